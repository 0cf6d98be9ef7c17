package procfs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// Holder is a process and how much of something it holds.
type Holder struct {
	PID, Held int
}

// Holders finds the ten processes that hold most of what count counts,
// most first. It leaves out processes that hold nothing or cannot be counted,
// and those it has not come to when the context ends.
func Holders(ctx context.Context, h *host.Root, count func(Process) (int, error)) ([]Holder, error) {
	var all []Holder
	err := EachStat(h, func(s Stat) bool {
		if ctx.Err() != nil {
			return false
		}
		if n, err := count(Of(h, s.PID)); err == nil && n > 0 {
			all = append(all, Holder{s.PID, n})
		}
		return true
	})
	sortHolders(all)
	return all[:min(len(all), 10)], err
}

// DescriptorHolders finds the ten processes that have most files open. It
// looks at how many each has had room for, and counts those of the ten with
// most.
func DescriptorHolders(ctx context.Context, h *host.Root) ([]Holder, error) {
	most, err := Holders(ctx, h, Process.descriptorRoom)
	for i := range most {
		if n, err := Of(h, most[i].PID).descriptors(); err == nil {
			most[i].Held = n
		}
	}
	sortHolders(most)
	return most, err
}

func sortHolders(holders []Holder) {
	slices.SortFunc(holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(b.Held, a.Held), cmp.Compare(a.PID, b.PID))
	})
}

// Inotify counts the descriptors of inotify instances, at most among the first
// 65,536. An instance that a process shares with its parent counts in both.
// Reading them takes CAP_SYS_PTRACE.
func (p Process) Inotify() (int, error) {
	count := 0
	err := p.eachLink(func(link []byte) {
		if bytes.Equal(link, []byte("anon_inode:inotify")) {
			count++
		}
	})
	return count, err
}

// descriptorRoom is how many descriptors the process has had room for, a power
// of two: what it has open is at most that.
func (p Process) descriptorRoom() (int, error) {
	value, err := p.status("FDSize:")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(value)
}

// descriptors counts the open ones. Since Linux 6.2 that is the size of the
// directory (fs/proc/fd.c); before, at most 1,048,576 are counted, which is
// fs.nr_open by default.
func (p Process) descriptors() (int, error) {
	info, err := p.host.Stat(p.dir + "/fd")
	if err != nil {
		return 0, err
	}
	if k, err := KernelOf(p.host); err == nil && !k.Before(6, 2) {
		return int(info.Size()), nil
	}
	names, err := p.host.ReadNames(p.dir+"/fd", 1<<20)
	return len(names), err
}

// eachLink calls visit with the target of each of the first 65,536 descriptors.
// Of a target only the first 64 bytes are read.
func (p Process) eachLink(visit func(link []byte)) error {
	dir, err := p.host.Open(p.dir + "/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(1 << 16)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	link := make([]byte, 64)
	for _, name := range names {
		if n, err := unix.Readlinkat(int(dir.Fd()), name, link); err == nil {
			visit(link[:n])
		}
	}
	return nil
}

// HostUID is the user as which the caller runs, seen from outside of all user
// namespaces.
func HostUID() (int, error) {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return os.Geteuid(), nil // a kernel without user namespaces
	}
	var inside, outside, length int
	if _, err := fmt.Sscan(string(b), &inside, &outside, &length); err != nil {
		return -1, err
	}
	return os.Geteuid() - inside + outside, nil
}
