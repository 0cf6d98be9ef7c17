package faults

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// Modes, states and status of adjtimex(2), from include/uapi/linux/timex.h.
const (
	adjMaxError, adjEstError, adjStatus = 0x0004, 0x0008, 0x0010

	staPLL, staIns, staUnsync = 0x0001, 0x0010, 0x0040
)

// discipline tells the kernel what a time daemon tells it, errors in microseconds.
func discipline(t *testing.T, status int32, estimated, maximum int64) {
	t.Helper()
	clock := unix.Timex{Modes: adjStatus | adjEstError | adjMaxError, Status: status, Esterror: estimated, Maxerror: maximum}
	if _, err := unix.Adjtimex(&clock); err != nil {
		t.Fatal(err)
	}
}

// A clock that a time daemon keeps, that is inexact, and whose daemon is gone until the kernel gives it up.
func TestClockUnsynchronized(t *testing.T) {
	if !lab.InGuest() {
		t.Skip("would change this machine's clock: runs in an emulated guest (make kernels)")
	}
	t.Cleanup(func() { discipline(t, staUnsync, 16000000, 16000000) })
	check := watch(t, "clock", "--failure-threshold=3")
	for range 2 {
		check.wantOK(t) // not synchronized since the boot, but not for three looks yet
	}
	check.wantProblem(t, "the clock is not synchronized", "no time daemon runs on the node")

	discipline(t, staPLL, 700, 20000)
	check.wantOK(t)
	discipline(t, staPLL|staIns, 700, 20000) // a leap second at the end of the day
	check.wantOK(t)

	discipline(t, staPLL, 2500000, 3000000)
	each := watch(t, "clock")
	each.wantProblem(t, "wrong by 2.5 s")
	watch(t, "clock", "--max-error=3s").wantOK(t)

	discipline(t, staPLL, 700, 20000)
	each.wantOK(t)
	discipline(t, staPLL, 700, 15999900) // the last report was nine hours ago, but for a second
	lab.Eventually(t, 10*time.Second, "the kernel takes the clock for unsynchronized", func() bool {
		var clock unix.Timex
		unix.Adjtimex(&clock)
		return clock.Status&staUnsync != 0
	})
	each.wantProblem(t, "the clock is not synchronized")
	discipline(t, staPLL, 700, 20000)
	each.wantOK(t)
}

// The check leaves the clock as it is, and says of it what the kernel does.
func TestClockIsOnlyRead(t *testing.T) {
	var before, after unix.Timex
	if _, err := unix.Adjtimex(&before); err != nil {
		t.Skipf("needs adjtimex: %v", err)
	}
	check := watch(t, "clock", "--max-error=1h")
	if before.Status&staUnsync != 0 {
		check.wantProblem(t, "the clock is not synchronized")
	} else {
		check.look(t)
	}
	if _, err := unix.Adjtimex(&after); err != nil {
		t.Fatal(err)
	}
	if before.Status&staUnsync == 0 {
		t.Skip("a time daemon adjusts this machine's clock: whether somebody else did cannot be told")
	}
	if after.Status != before.Status || after.Freq != before.Freq || after.Tick != before.Tick || after.Offset != before.Offset || after.Tai != before.Tai {
		t.Errorf("the clock was set: %+v, before %+v", after, before)
	}
}

// The clock of a machine that tests run on is not theirs to set: the condition is only as the kernel's state is.
func TestClockOnDetector(t *testing.T) {
	notInGuest(t)
	d := startDetector(t, map[string][]string{"clock": nil})
	var clock unix.Timex
	if _, err := unix.Adjtimex(&clock); err != nil {
		t.Skipf("needs adjtimex: %v", err)
	}
	unsynchronized := clock.Status&staUnsync != 0
	d.wait(t, "ClockUnsynchronized", "TimeSynchronizationLost", unsynchronized)
	if unsynchronized {
		d.wantSaid(t, "ClockUnsynchronized", "the clock is not synchronized")
	}
}
