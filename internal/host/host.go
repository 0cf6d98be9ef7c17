// Package host reads the files of a node below one root, which is "/" on the
// node itself and the mount point of the node's file system (say /host) in a
// container.
package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxFile is the most that ReadFile reads of one file, in bytes. Files of
// /proc and /sys that checks read whole are far smaller; more is not what it
// says it is.
const maxFile = 4 << 20

// Root is the root of a node's file system. Paths given to its methods are
// absolute paths of the node ("/proc/loadavg"). A symlink that leads out of
// the root is an error, never followed.
type Root struct {
	dir  string
	root *os.Root
}

// Open returns the root at dir.
func Open(dir string) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("host root: %w", err)
	}
	return &Root{dir: dir, root: root}, nil
}

// Path is where the reader finds the node's path, for messages and for calls
// that take a path of the reader (connect).
func (r *Root) Path(path string) string {
	return filepath.Join(r.dir, path)
}

// Stat is os.Stat of the node's path.
func (r *Root) Stat(path string) (fs.FileInfo, error) {
	info, err := r.root.Stat(relative(path))
	return info, r.named(path, err)
}

// Readlink is os.Readlink of the node's path. The link is not followed.
func (r *Root) Readlink(path string) (string, error) {
	link, err := r.root.Readlink(relative(path))
	return link, r.named(path, err)
}

// Open opens the node's path for reading.
func (r *Root) Open(path string) (*os.File, error) {
	f, err := r.root.Open(relative(path))
	return f, r.named(path, err)
}

// ReadFile reads the node's path whole, or fails when it holds more than 4 MiB.
func (r *Root) ReadFile(path string) ([]byte, error) {
	f, err := r.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("read %s: more than %d bytes", r.Path(path), maxFile)
	}
	return b, nil
}

// ReadUint reads a file that holds one number, such as a sysctl. The word
// "max" of the cgroup files gives ok = false.
func (r *Root) ReadUint(path string) (n uint64, ok bool, err error) {
	b, err := r.ReadFile(path)
	if err != nil {
		return 0, false, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return 0, false, nil
	}
	n, err = strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("read %s: %q is no number", r.Path(path), clip(s))
	}
	return n, true, nil
}

// Gone says whether an error means that the file, or the process or cgroup
// behind it, is not there.
func Gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENODEV)
}

// ReadNames lists the names in a directory of the node, at most limit of
// them, in the order in which the kernel gives them.
func (r *Root) ReadNames(path string, limit int) ([]string, error) {
	d, err := r.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(limit)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// BootID identifies the boot of the node, "" where the kernel does not say.
func (r *Root) BootID() string {
	b, err := r.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return clip(strings.TrimSpace(string(b)))
}

// named gives an error the path as the reader finds it, for os.Root knows only
// what is below the root.
func (r *Root) named(path string, err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return &fs.PathError{Op: strings.TrimSuffix(e.Op, "at"), Path: r.Path(path), Err: e.Err}
	}
	return err
}

func relative(path string) string {
	path = strings.TrimLeft(path, "/")
	if path == "" {
		return "."
	}
	return path
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}
