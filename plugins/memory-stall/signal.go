package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// signal is how much tasks suffer from the lack of memory, in one of two units.
type signal struct {
	pressure     bool    // PSI, else refaults
	value, limit float64 // percent of the last minute, or pages per second
	over         bool    // it was so in that minute, and is no longer
}

func (s signal) text() string {
	if s.pressure {
		return fmt.Sprintf("all tasks wait for memory %.0f percent of the time", s.value)
	}
	return fmt.Sprintf("%.0f pages per second are read again", s.value)
}

func (s signal) measurement() plugin.Measurement {
	if s.pressure {
		return plugin.Measurement{Name: "memory_full_avg60", Value: s.value, Unit: "percent"}
	}
	return plugin.Measurement{Name: "memory_refaults", Value: s.value, Unit: "pages/s"}
}

// signal reads the pressure. Where the kernel has none it counts refaults for a
// second when memory is short: else they do not matter. Where it does not know
// them for pressure it does so when all tasks wait for the disk.
func (c *check) signal(ctx context.Context, h *host.Root, mem memory) (signal, error) {
	limit := float64(c.full)
	p, err := procfs.ReadPressure(h, "/proc/pressure/memory")
	switch {
	case errors.Is(err, procfs.ErrNoPressure):
		return c.refaultSignal(ctx, h, mem.sparePercent() < c.available)
	case err != nil:
		return signal{}, fmt.Errorf("the pressure is not known: %w", err)
	case p.Full.Avg60 < limit && multiGenerational(h):
		if io, err := procfs.ReadPressure(h, "/proc/pressure/io"); err == nil && io.Full.Avg60 >= limit {
			return c.refaultSignal(ctx, h, true)
		}
	}
	return signal{true, p.Full.Avg60, limit, p.Full.Avg10 < limit}, nil
}

// multiGenerational says whether the kernel reclaims with the multi-generational
// LRU of Linux 6.1 (Documentation/admin-guide/mm/multigen_lru.rst), as Debian's
// 6.12 does. It hardly ever marks a dropped page as one of the working set
// (lru_gen_refault of mm/workingset.c), so that to wait for one is no memory
// pressure: 1 percent of the time where it is 30 with the older LRU, and 70 of
// 100 are told as pressure of I/O.
func multiGenerational(h *host.Root) bool {
	b, err := h.ReadFile("/sys/kernel/mm/lru_gen/enabled")
	if err != nil {
		return false
	}
	bits, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 16)
	const mainSwitch = 1
	return err == nil && bits&mainSwitch != 0
}

func (c *check) refaultSignal(ctx context.Context, h *host.Root, matter bool) (signal, error) {
	s := signal{limit: float64(c.refaults)}
	before, err := nodeRefaults(h)
	if err != nil || !matter {
		return s, err
	}
	elapsed := pause(ctx)
	after, err := nodeRefaults(h)
	s.value = rate(before, after, elapsed)
	return s, err
}

// nodeRefaults is how many pages were read that had been dropped not long ago.
func nodeRefaults(h *host.Root) (uint64, error) {
	b, err := h.ReadFile("/proc/vmstat")
	if err != nil {
		return 0, fmt.Errorf("neither pressure stall information nor refaults: %w: mount the host's /proc there, or set --host-root", err)
	}
	n, ok := refaults(b)
	if !ok {
		return 0, errors.New("the kernel has neither /proc/pressure/memory (Linux 4.20, psi=1) nor workingset_refault in /proc/vmstat (3.15)")
	}
	return n, nil
}

// refaults reads vmstat, or memory.stat of a cgroup. Linux 5.9 has split the
// number into pages of files and of swap.
func refaults(b []byte) (uint64, bool) {
	file, ok := procfs.Counter(b, "workingset_refault_file")
	if !ok {
		return procfs.Counter(b, "workingset_refault")
	}
	anon, _ := procfs.Counter(b, "workingset_refault_anon")
	return file + anon, true
}

// pause lets a second pass, so that counters show a rate.
func pause(ctx context.Context) time.Duration {
	began := time.Now()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return time.Since(began)
}

func rate(before, after uint64, elapsed time.Duration) float64 {
	if after < before || elapsed <= 0 {
		return 0
	}
	return float64(after-before) / elapsed.Seconds()
}
