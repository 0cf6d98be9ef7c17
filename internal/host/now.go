package host

import (
	"os"
	"syscall"
)

// OpenNow is Open without waiting for the writer of a FIFO. What it opens may be a directory.
func (r *Root) OpenNow(path string) (*os.File, error) {
	f, err := r.root.OpenFile(relative(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	return f, r.named(path, err)
}
