package cgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// IsV2 says whether a Hierarchy is that of cgroup v2.
func IsV2(hierarchy string) bool { return hierarchy == mount }

// NeedRoot is an error with the mend unless the hierarchy shows all cgroups of
// the kernel. A container often sees only its own cgroup there and those below.
// The kernel gives the root, and no other cgroup, a release_agent (v1), and every
// cgroup but the root a cgroup.events (v2).
func NeedRoot(h *host.Root, hierarchy string) error {
	if IsV2(hierarchy) {
		if _, err := h.Stat(hierarchy + "/cgroup.events"); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	} else if _, err := h.Stat(hierarchy + "/release_agent"); err == nil {
		return nil
	}
	const nested = "the node itself is a container (kind, LXC) with a cgroup namespace"
	switch namespace, err := h.Readlink("/proc/1/ns/cgroup"); {
	case err != nil: // it takes CAP_SYS_PTRACE, and Linux 4.6
		return fmt.Errorf("%s shows the cgroups of a container only: mount the host's /sys/fs/cgroup there; if %s, start it with that of its host", h.Path(hierarchy), nested)
	case namespace != initialNamespace:
		return fmt.Errorf("%s, which hides the kernel's root cgroup; no mount helps: start the node with the cgroup namespace of its host (docker: --cgroupns=host), or leave this check out", nested)
	}
	return fmt.Errorf("%s shows the cgroups of a container only: mount the host's /sys/fs/cgroup there", h.Path(hierarchy))
}

// initialNamespace is what /proc/PID/ns/cgroup of a process in no container
// links to: CGROUP_NS_INIT_INO of include/uapi/linux/nsfs.h.
const initialNamespace = "cgroup:[4026531835]"

// CountTo counts the cgroups of a hierarchy of cgroup v1, its root among them,
// and stops when there are enough.
//
// A directory's link count is 2 and one more for each directory in it, on
// cgroupfs (fs/kernfs/inode.c; kernel/cgroup.c before Linux 3.15) as on most
// file systems. So the many cgroups without children are never opened, and
// children count before they are visited. Most of the time goes into listing
// the forty files that a memory cgroup has beside its children. So the names
// are taken from another hierarchy with fewer files where the link count says
// that these are all: runtimes make the same cgroups in each (test/bench).
func CountTo(h *host.Root, hierarchy string, enough int) (int, error) {
	dir, err := h.Open(hierarchy)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	c := counter{n: 1, enough: enough, entries: make([]byte, 16<<10)}
	other := none
	for _, name := range []string{"systemd", "pids"} {
		if d, err := h.Open(path.Join(path.Dir(hierarchy), name)); err == nil {
			defer d.Close()
			other = int(d.Fd())
			break
		}
	}
	if err := c.countBelow(int(dir.Fd()), other, links{}); err != nil {
		return c.n, &fs.PathError{Op: "count cgroups in", Path: h.Path(hierarchy), Err: err}
	}
	return c.n, nil
}

type counter struct {
	n, enough int
	entries   []byte
}

// none stands for the descriptor of a directory that is not there.
const none = -1

// links is what a link count tells: how many directories are in one.
type links struct {
	known bool // not where the file system does not count
	dirs  int
}

// child is a directory, and what is in it.
type child struct {
	name string
	in   links
}

// countBelow counts the directories below dir, without those right in it when
// their number is known and so counted. other is the same cgroup in another
// hierarchy, or none. What goes away meanwhile is left out.
func (c *counter) countBelow(dir, other int, below links) error {
	children, err := c.children(dir, other, below)
	if err != nil {
		return err
	}
	for _, child := range children {
		if !below.known {
			c.n++
		}
		c.n += child.in.dirs
	}
	for _, child := range children {
		if child.in.known && child.in.dirs == 0 {
			continue
		}
		if c.n >= c.enough {
			return nil
		}
		if c.n > maxCgroups {
			return fmt.Errorf("more than %d cgroups", maxCgroups)
		}
		if err := c.countIn(dir, other, child); err != nil && !host.Gone(err) {
			return err
		}
	}
	return nil
}

func (c *counter) countIn(dir, other int, child child) error {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, child.name, flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if other != none {
		if other, err = unix.Openat(other, child.name, flags, 0); err != nil {
			other = none
		} else {
			defer unix.Close(other)
		}
	}
	return c.countBelow(fd, other, child.in)
}

func (c *counter) children(dir, other int, below links) ([]child, error) {
	if below.known && other != none {
		names, err := c.subdirectories(other)
		if err == nil && len(names) >= below.dirs {
			if children, err := stat(dir, names); err == nil && len(children) == below.dirs {
				return children, nil
			}
		}
	}
	names, err := c.subdirectories(dir)
	if err != nil {
		return nil, err
	}
	return stat(dir, names)
}

// stat tells the link counts of those of the names that are directories.
func stat(dir int, names []string) ([]child, error) {
	children := make([]child, 0, len(names))
	for _, name := range names {
		var stat unix.Stat_t
		err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case host.Gone(err):
		case err != nil:
			return nil, err
		case stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		case stat.Nlink < 2:
			children = append(children, child{name, links{}})
		default:
			children = append(children, child{name, links{true, int(stat.Nlink) - 2}})
		}
	}
	return children, nil
}

// subdirectories lists the directories in dir, and perhaps other things where
// the file system does not tell the type of its entries.
func (c *counter) subdirectories(dir int) ([]string, error) {
	var names []string
	for {
		n, err := unix.ReadDirent(dir, c.entries)
		if err != nil && !host.Gone(err) {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		names = appendDirectories(names, c.entries[:n])
	}
}

// appendDirectories reads what getdents64(2) gives: entries of an inode and an
// offset of 8 bytes each, the entry's length in 2, its type in 1, and its name
// up to a zero.
func appendDirectories(names []string, entries []byte) []string {
	const header = 8 + 8 + 2 + 1
	for len(entries) > header {
		length := int(binary.NativeEndian.Uint16(entries[16:]))
		if length <= header || length > len(entries) {
			break
		}
		if kind := entries[18]; kind == unix.DT_DIR || kind == unix.DT_UNKNOWN {
			name, _, _ := bytes.Cut(entries[header:length], []byte{0})
			if s := string(name); s != "." && s != ".." {
				names = append(names, s)
			}
		}
		entries = entries[length:]
	}
	return names
}
