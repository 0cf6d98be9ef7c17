package guest

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// writeInitramfs writes executables and the directories above them as a cpio archive in the "newc" format
// (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel). files maps the path in the archive to
// the file that it is read from.
func writeInitramfs(archive string, files map[string]string) error {
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer out.Close()
	w := &cpioWriter{out: bufio.NewWriter(out)}
	made := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if dir := path.Dir(name); !made[dir] {
			made[dir] = true
			w.entry(dir, 0o040755, nil)
		}
		content, err := os.ReadFile(files[name])
		if err != nil {
			return err
		}
		w.entry(name, 0o100755, content)
	}
	w.entry("TRAILER!!!", 0, nil)
	if w.err != nil {
		return w.err
	}
	if err := w.out.Flush(); err != nil {
		return err
	}
	return out.Close()
}

// cpioWriter keeps the first error.
type cpioWriter struct {
	out   *bufio.Writer
	inode int
	err   error
}

func (w *cpioWriter) entry(name string, mode int, content []byte) {
	w.inode++
	const uid, gid, links, mtime, device, checksum = 0, 0, 1, 0, 0, 0
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", w.inode, mode, uid, gid, links, mtime,
		len(content), device, device, device, device, len(name)+1, checksum)
	w.padded(header + name + "\x00")
	w.padded(string(content))
}

// padded writes text and zeros up to a multiple of four bytes; every entry begins at one.
func (w *cpioWriter) padded(text string) {
	if w.err == nil {
		_, w.err = io.WriteString(w.out, text+strings.Repeat("\x00", (4-len(text)%4)%4))
	}
}
