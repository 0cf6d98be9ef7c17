package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"npd-plugins/internal/host"
)

// Mount is a line of /proc/PID/mountinfo (proc(5), fs/proc_namespace.c).
type Mount struct {
	Major, Minor uint32 // of the file system as stat(2) tells it; Major is 0 where it has no block device of its own
	Root         string // directory of the file system that is mounted
	Point        string // where
	Options      string // of the mount: rw,noatime
	Type         string // of the file system: ext4, fuse.sshfs
	Source       string // device, server or what the mounter called it
	SuperOptions string // of the file system: rw,errors=remount-ro
}

// ErrMountinfo is the error of a mountinfo file that is not one.
var ErrMountinfo = errors.New("not what proc(5) describes")

// EachMount calls visit with the mounts of the node (those of its process 1)
// in the kernel's order, as long as it says true. A later mount on the same
// point covers the earlier one.
//
// The file tells what the kernel has in memory and never asks a file system.
// It is read line by line, for a node may have 100,000 mounts (fs.mount-max).
func EachMount(h *host.Root, visit func(Mount) bool) error {
	const path = "/proc/1/mountinfo"
	f, err := h.Open(path)
	if err != nil {
		return mended(err)
	}
	defer f.Close()
	return eachMount(f, h.Path(path), visit)
}

// EachOwnMount is EachMount for the mounts that this process sees.
func EachOwnMount(visit func(Mount) bool) error {
	const path = "/proc/self/mountinfo"
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return eachMount(f, path, visit)
}

func eachMount(f io.Reader, path string, visit func(Mount) bool) error {
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 16<<10), 1<<20) // overlay names all its layers
	n := 0
	for lines.Scan() {
		m, err := parseMount(lines.Bytes())
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		n++
		if !visit(m) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if n == 0 {
		return fmt.Errorf("read %s: %w", path, ErrMountinfo)
	}
	return nil
}

// parseMount reads a line: "36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/sda1 rw", with any number of
// optional fields before the "-".
func parseMount(line []byte) (Mount, error) {
	before, after, ok := bytes.Cut(line, []byte(" - "))
	f, g := strings.Split(string(before), " "), strings.Split(string(after), " ")
	if !ok || len(f) < 6 || len(g) < 3 {
		return Mount{}, ErrMountinfo
	}
	major, minor, ok := strings.Cut(f[2], ":")
	ma, ok1 := number([]byte(major))
	mi, ok2 := number([]byte(minor))
	if !ok || !ok1 || !ok2 || ma >= 1<<32 || mi >= 1<<32 {
		return Mount{}, ErrMountinfo
	}
	return Mount{uint32(ma), uint32(mi), unescape(f[3]), unescape(f[4]), f[5], unescape(g[0]), unescape(g[1]), unescape(strings.Join(g[2:], " "))}, nil
}

// unescape undoes the kernel's octal escapes of blank, tab, newline, backslash
// and number sign (fs/seq_file.c, mangle_path).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] >= '0' && s[i+1] <= '3' && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
