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

	"golang.org/x/sys/unix"
)

// maxFile is the most that ReadFile reads of one file, in bytes. Files of
// /proc and /sys that checks read whole are far smaller; more is not what it
// says it is.
const maxFile = 4 << 20

// Root is the root of a node's file system. Paths given to its methods are
// absolute paths of the node ("/proc/loadavg"). Symlinks lead where they lead
// on the node, absolute ones too, and never out of the root.
type Root struct {
	dir  string
	root *os.File

	// old is the root where openat2(2) is not there: before Linux 5.6, or
	// forbidden by a seccomp filter. An absolute symlink is an error then.
	old *os.Root
}

// Open returns the root at dir.
func Open(dir string) (*Root, error) {
	fd, err := openat2(unix.AT_FDCWD, dir, unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC})
	r := &Root{dir: dir}
	switch err {
	case nil:
		r.root = os.NewFile(uintptr(fd), dir)
	case unix.ENOSYS, unix.EPERM:
		r.old, err = os.OpenRoot(dir)
	default:
		err = &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("host root: %w", err)
	}
	return r, nil
}

// Path is where the reader finds the node's path, for messages.
func (r *Root) Path(path string) string {
	return filepath.Join(r.dir, path)
}

// Reach names what the node's path leads to, for calls that take a path of the
// reader (connect). The name is good until release is called.
func (r *Root) Reach(path string) (name string, release func(), err error) {
	if r.old != nil {
		_, err := r.Stat(path)
		return r.Path(path), func() {}, err
	}
	f, err := r.open(path, unix.O_PATH)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd()), func() { f.Close() }, nil
}

// Stat is os.Stat of the node's path.
func (r *Root) Stat(path string) (fs.FileInfo, error) {
	if r.old != nil {
		info, err := r.old.Stat(relative(path))
		return info, r.named(path, err)
	}
	f, err := r.open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// Readlink is os.Readlink of the node's path. The link is not followed.
func (r *Root) Readlink(path string) (string, error) {
	if r.old != nil {
		link, err := r.old.Readlink(relative(path))
		return link, r.named(path, err)
	}
	f, err := r.open(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", b)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: r.Path(path), Err: err}
	}
	return string(b[:n]), nil
}

// Open opens the node's path for reading.
func (r *Root) Open(path string) (*os.File, error) {
	return r.open(path, unix.O_RDONLY)
}

// OpenNow is Open without waiting for the writer of a FIFO. What it opens may be
// a directory.
func (r *Root) OpenNow(path string) (*os.File, error) {
	return r.open(path, unix.O_RDONLY|unix.O_NONBLOCK)
}

// open is open(2) of the node's path.
func (r *Root) open(path string, flags int) (*os.File, error) {
	if r.old != nil {
		f, err := r.old.OpenFile(relative(path), flags, 0)
		return f, r.named(path, err)
	}
	fd, err := openat2(int(r.root.Fd()), relative(path), unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: r.Path(path), Err: err}
	}
	return os.NewFile(uintptr(fd), r.Path(path)), nil
}

// openat2 tries again where the kernel could not tell where ".." leads, for
// something was renamed meanwhile.
func openat2(dir int, path string, how unix.OpenHow) (fd int, err error) {
	for again := 0; ; again++ {
		fd, err = unix.Openat2(dir, path, &how)
		if err != unix.EINTR && (err != unix.EAGAIN || again == 100) {
			return fd, err
		}
	}
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

// ErrGone marks the error of a look that did not fail: it saw that a daemon's
// socket or file is not there. A file of /proc or /sys is always there, and its
// absence means that the host root is no host.
var ErrGone = errors.New("not there")

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
