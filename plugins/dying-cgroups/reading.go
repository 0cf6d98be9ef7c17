package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// timeReading is the CPU time that reading a file takes in the kernel. The
// clock on the wall would also tell of a quota: with a hundredth of a CPU it
// runs a hundred times as long. A reading that outlasts the look is measured
// as far as it got.
func timeReading(ctx context.Context, h *host.Root, path string) (time.Duration, error) {
	type reader struct {
		clock  int32
		before time.Duration
	}
	type outcome struct {
		cost time.Duration
		err  error
	}
	began, ended := make(chan reader, 1), make(chan outcome, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		r := reader{clock: threadClock(unix.Gettid())}
		r.before = cpuTime(r.clock)
		began <- r
		_, err := h.ReadFile(path)
		ended <- outcome{cpuTime(r.clock) - r.before, err}
	}()
	select {
	case o := <-ended:
		return o.cost, o.err
	case <-ctx.Done():
	}
	select {
	case r := <-began:
		cost := cpuTime(r.clock) - r.before
		return cost, fmt.Errorf("%s could not be read in time, with %s of CPU", h.Path(path), cost.Round(time.Millisecond))
	default:
		return 0, ctx.Err()
	}
}

// threadClock is the clock of the CPU time of one thread of this process
// (MAKE_THREAD_CPUCLOCK of include/linux/posix-timers_types.h).
func threadClock(tid int) int32 {
	const perThread, scheduled = 4, 2
	return ^int32(tid)<<3 | perThread | scheduled
}

func cpuTime(clock int32) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0 // the thread is gone
	}
	return time.Duration(t.Nano())
}
