// Command memory-stall tells that the node thrashes: it has so little memory
// that it reads back what it has just thrown out. It can hang in that state for
// long before the OOM killer comes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	full      int
	refaults  int
	available int
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "memory-stall",
		Condition: "MemoryThrashing",
		Purpose: "A node that is short of memory drops pages of programs and files that it needs again at once. It hangs in that, often for minutes, before the OOM killer ends it.\n" +
			"Looks at the time in which every task waits for memory (PSI), or without PSI at the pages that are read again, and at how much memory is available.",
		Reads: []string{"/proc/pressure/{memory,io}, /proc/meminfo, /sys/kernel/mm/lru_gen/enabled", "/proc/vmstat (without PSI, and with the multi-generational LRU)",
			"/sys/fs/cgroup: memory.pressure, memory.stat, usage and limit (only when tasks wait)", "/var/log/pods (names of pods)"},
		Needs:            "the host's /proc and /sys below --host-root; Linux 4.20 with PSI, or 3.15",
		LookAlikes:       "containers that thrash inside their own limit while the node has memory: named on stderr",
		Example:          "--host-root=/host --full=10",
		FailureThreshold: 1,
		Timeout:          20 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.PercentVar(fs, &c.full, "full", 10, "Problem when all tasks wait for memory this `share` of the last minute, in percent")
			plugin.CountVar(fs, &c.refaults, "refaults", 250, "where PSI does not tell: Problem at this `number` of pages read again per second")
			plugin.PercentVar(fs, &c.available, "available", 15, "memory is short when less than this `share` is available besides the active page cache, in percent")
		},
		Look: c.look,
	})
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	mem, err := readMemory(l.Host)
	if err != nil {
		return plugin.Unknownf("the available memory is not known: %v", err)
	}
	s, err := c.signal(ctx, l.Host, mem)
	if err != nil {
		return plugin.Unknownf("%v", err)
	}
	v := plugin.Verdict{
		Message: fmt.Sprintf("%s; %s", s.text(), mem),
		Measurements: []plugin.Measurement{s.measurement(),
			{Name: "memory_available", Value: float64(mem.available), Unit: "bytes"},
			{Name: "memory_available_inactive", Value: float64(mem.spare), Unit: "bytes"}},
	}
	if s.value < s.limit {
		return v
	}
	short := mem.sparePercent() < c.available
	var named bool // by an earlier look, when it was as bad and the node had memory too
	l.Recall(&named)
	if !short && (named || s.over) {
		l.Remember(named)
		return v
	}
	r, err := c.rank(ctx, l, s.pressure)
	if err != nil {
		l.Log.Warnf("not known which cgroup suffers: %v", err)
	}
	lines := r.lines(l)
	if !short || mem.percent() >= scarce && r.contained() {
		for _, line := range lines[:min(len(lines), 3)] {
			if !named {
				l.Log.Warnf("the node has memory, but a container thrashes inside its own limit: %s", line)
			}
		}
		l.Remember(true)
		return v
	}
	v.Status = plugin.Problem
	v.Details = append([]string{v.Message}, lines...)
	if len(lines) > 0 {
		v.Message += "; worst: " + lines[0]
	}
	return v
}

// scarce is the share of memory, in percent, below which it does not matter
// who thrashes: whatever is available is what the page cache cannot do without.
const scarce = 5

// memory is /proc/meminfo, in bytes.
type memory struct {
	total, available uint64
	// spare is what is available without the active page cache, which kubelet
	// leaves out too. The kernel counts nearly all of the page cache as available
	// (si_mem_available in mm/show_mem.c), also while it thrashes: where programs
	// read 34 percent of the memory over and over, 19 to 28 percent were available
	// when the first page had to be read again, and 10 to 12 without the active
	// ones (Linux 6.1, test/faults).
	spare uint64
}

func (m memory) percent() int      { return int(m.available * 100 / m.total) }
func (m memory) sparePercent() int { return int(m.spare * 100 / m.total) }

func (m memory) String() string {
	return fmt.Sprintf("%d percent of %s is available, %d without active page cache", m.percent(), plugin.FormatBytes(float64(m.total)), m.sparePercent())
}

func readMemory(h *host.Root) (memory, error) {
	b, err := h.ReadFile("/proc/meminfo")
	if err != nil {
		return memory{}, fmt.Errorf("%w: mount the host's /proc there, or set --host-root", err)
	}
	return parseMemory(b)
}

func parseMemory(b []byte) (memory, error) {
	var kib [3]uint64
	for i, key := range []string{"MemTotal:", "MemAvailable:", "Active(file):"} {
		n, ok := procfs.Counter(b, key)
		if !ok || n > 1<<50 {
			return memory{}, fmt.Errorf("/proc/meminfo: no %s (Linux before 3.14 has no MemAvailable)", key)
		}
		kib[i] = n
	}
	m := memory{total: kib[0] << 10, available: kib[1] << 10}
	m.spare = m.available - min(kib[2]<<10, m.available)
	if m.total == 0 || m.available > m.total {
		return memory{}, errors.New("/proc/meminfo: more memory is available than there is")
	}
	return m, nil
}
