package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// conntrack has the connections of the host's network namespace. The limit is
// one variable for all namespaces, and each is held against it alone
// (__nf_conntrack_alloc in net/netfilter/nf_conntrack_core.c), so a reader in
// another namespace sees the host's limit in its own sysctl.
func (s *survey) conntrack() {
	const file = "/proc/1/net/stat/nf_conntrack"
	limit, limited := s.sysctl("net.netfilter.nf_conntrack_max")
	b, err := s.look.Host.ReadFile(file)
	if host.Gone(err) && !limited {
		return // the module is not loaded
	}
	var used uint64
	if host.Gone(err) {
		used, err = s.conntrackOfReader()
	} else if err == nil {
		used, _, err = parseNetStat(b, "")
	}
	switch {
	case err != nil:
		s.fail("conntrack entries are not known: %w", err)
	case !limited:
		s.fail("net.netfilter.nf_conntrack_max is not in this network namespace: run with hostNetwork: true")
	default:
		s.add(newTable("conntrack entries", "conntrack_entries", "entries", used, limit, "net.netfilter.nf_conntrack_max"))
	}
}

// conntrackOfReader reads the count where a kernel without
// CONFIG_NF_CONNTRACK_PROCFS has no statistics. The count is that of the
// reader's network namespace, which is the host's where net.nf_conntrack_max
// stands: the kernel shows that older name nowhere else.
func (s *survey) conntrackOfReader() (uint64, error) {
	if _, err := s.look.Host.Stat(sysctlPath("net.nf_conntrack_max")); err != nil {
		return 0, errors.New("this kernel counts them only in the host's network namespace: run with hostNetwork: true")
	}
	n, _, err := s.look.Host.ReadUint(sysctlPath("net.netfilter.nf_conntrack_count"))
	return n, err
}

// parseNetStat reads a file of /proc/net/stat: a line of names, and for each
// CPU one of hexadecimal numbers. The first column is the same in all: the
// entries of the table. sum is the total of the named column, 0 where there is
// none of that name.
func parseNetStat(b []byte, column string) (entries, sum uint64, err error) {
	header, rows, _ := bytes.Cut(b, []byte("\n"))
	names := bytes.Fields(header)
	if len(names) == 0 || string(names[0]) != "entries" {
		return 0, 0, errors.New("no column \"entries\" in the statistics of /proc/1/net/stat")
	}
	index := slices.IndexFunc(names, func(name []byte) bool { return string(name) == column })
	first := true
	for row := range bytes.Lines(rows) {
		fields := bytes.Fields(row)
		for i, field := range fields {
			if i != index && !(first && i == 0) {
				continue
			}
			n, err := strconv.ParseUint(string(field), 16, 32)
			if err != nil {
				return 0, 0, fmt.Errorf("%q is no number in the statistics of /proc/1/net/stat", field[:min(len(field), 20)])
			}
			if i == index {
				sum += n
			}
			if first && i == 0 {
				entries = n
			}
		}
		first = first && len(fields) == 0
	}
	if first {
		return 0, 0, errors.New("no row in the statistics of /proc/1/net/stat")
	}
	return entries, sum, nil
}

// neighbourTables are one for each kernel, whatever the network namespace of an
// entry (net/core/neighbour.c).
var neighbourTables = []struct{ name, measurement, file, sysctls string }{
	{"IPv4 neighbours", "neighbours_ipv4", "arp_cache", "net.ipv4.neigh.default."},
	{"IPv6 neighbours", "neighbours_ipv6", "ndisc_cache", "net.ipv6.neigh.default."},
}

// neighbours are those of ARP and of IPv6. Since Linux 5.0 permanent ones, and
// those that a network plugin has put there ("extern_learn"), are not held
// against the limit but are still among the entries. What tells is the kernel's
// own alarm: with more than gc_thresh2 that count, each new one makes it collect
// garbage at once, at most every five seconds (neigh_alloc). A table that has
// not had to since the last look is not short of room.
func (s *survey) neighbours() {
	forcedBefore, forced := map[string]uint64{}, map[string]uint64{}
	recalled := s.look.Recall(&forcedBefore)
	for _, n := range neighbourTables {
		b, err := s.look.Host.ReadFile("/proc/1/net/stat/" + n.file)
		if host.Gone(err) {
			continue
		}
		var used, limit, soft uint64
		if err == nil {
			used, forced[n.file], err = parseNetStat(b, "forced_gc_runs")
		}
		if err == nil {
			limit, soft, err = s.thresholds(n.sysctls)
		}
		if err != nil {
			s.fail("%s are not known: %w", n.name, err)
			continue
		}
		t := newTable(n.name, n.measurement, "entries", used, limit, n.sysctls+"gc_thresh3")
		t.exempt = recalled && used > soft && forced[n.file] == forcedBefore[n.file]
		t.unconfirmed = !recalled && used > soft
		s.add(t)
	}
	if len(forced) > 0 {
		s.look.Remember(forced)
	}
}

// thresholds reads gc_thresh3, the limit, and gc_thresh2. The kernel shows them
// only in the host's network namespace, also through the host's /proc, so a
// reader elsewhere enters that of PID 1 for a moment.
func (s *survey) thresholds(sysctls string) (limit, soft uint64, err error) {
	read := func() error {
		if limit, _, err = s.look.Host.ReadUint(sysctlPath(sysctls + "gc_thresh3")); err == nil {
			soft, _, err = s.look.Host.ReadUint(sysctlPath(sysctls + "gc_thresh2"))
		}
		return err
	}
	if err := read(); !errors.Is(err, fs.ErrNotExist) {
		return limit, soft, err
	}
	if err := inNetworkOfHost(s.look.Host, read); err != nil {
		return 0, 0, fmt.Errorf("%sgc_thresh3 is only in the host's network namespace (%v): run privileged, or with hostNetwork: true", sysctls, err)
	}
	return limit, soft, nil
}

// inNetworkOfHost calls f on a thread in the network namespace of PID 1, which
// takes CAP_SYS_ADMIN and CAP_SYS_PTRACE.
func inNetworkOfHost(h *host.Root, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			fd, err := openNamespace(h.Path("/proc/1/ns/net"))
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("setns: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// openNamespace opens the link of a namespace. It is looked at before, for a
// link below the host root that leads anywhere else is not followed.
func openNamespace(link string) (int, error) {
	path, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", link, err)
	}
	defer unix.Close(path)
	var stat unix.Statfs_t
	if err := unix.Fstatfs(path, &stat); err != nil || stat.Type != unix.NSFS_MAGIC {
		return -1, fmt.Errorf("%s is no namespace", link)
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
