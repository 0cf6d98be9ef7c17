package apart

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// serveStatfs writes an answer for each path as soon as there is one.
func serveStatfs(w io.Writer, hostRoot string, paths []string) {
	h, err := host.Open(hostRoot)
	var asked sync.WaitGroup
	for i, path := range paths {
		asked.Go(func() {
			a := answer{}
			if err == nil {
				a = statfs(h, path)
			} else {
				a.Errno = errno(err)
			}
			a.Path = uint32(i)
			var b bytes.Buffer
			_ = binary.Write(&b, binary.NativeEndian, a)
			_, _ = w.Write(b.Bytes()) // whole, as all that is smaller than PIPE_BUF
		})
	}
	asked.Wait()
}

func statfs(h *host.Root, path string) answer {
	f, err := h.Open(path)
	if err != nil {
		return answer{Errno: errno(err)}
	}
	defer f.Close()
	var st unix.Statfs_t
	var stat unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &st), unix.Fstat(int(f.Fd()), &stat)); err != nil {
		return answer{Errno: errno(err)}
	}
	unit := uint64(st.Frsize) // what the counts of blocks are in; the kernel always sets it
	return answer{Device: uint64(stat.Dev), Size: st.Blocks * unit, Free: st.Bfree * unit, Available: st.Bavail * unit, Inodes: st.Files, InodesFree: st.Ffree}
}

// errnoSize is that of the number that comes before names.
const errnoSize = 4

// serveNames writes the number of an error, or 0 and the names in a directory.
// The arguments are its path and the limit of host.Root.ReadNames.
func serveNames(w io.Writer, hostRoot string, args []string) {
	var names []string
	h, err := host.Open(hostRoot)
	if err == nil && len(args) == 2 {
		limit, _ := strconv.Atoi(args[1])
		names, err = h.ReadNames(args[0], limit)
	}
	b := binary.NativeEndian.AppendUint32(nil, 0)
	if err != nil {
		b = binary.NativeEndian.AppendUint32(nil, errno(err))
	}
	for _, name := range names {
		b = append(append(b, name...), 0)
	}
	_, _ = w.Write(b)
}

// errno is EXDEV for a symlink that leads out of the host root, which is an
// error without a number where there is no openat2(2).
func errno(err error) uint32 {
	var e syscall.Errno
	if errors.As(err, &e) {
		return uint32(e)
	}
	return uint32(syscall.EXDEV)
}
