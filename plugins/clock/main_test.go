package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

// kernel answers adjtimex as a kernel does whose clock is in that state, and takes no request to set anything.
func kernel(t testing.TB, state int, clock unix.Timex) func(*unix.Timex) (int, error) {
	return func(asked *unix.Timex) (int, error) {
		if asked.Modes != 0 || *asked != (unix.Timex{}) {
			t.Errorf("asked to set the clock: %+v", *asked)
		}
		*asked = clock
		return state, nil
	}
}

func process(pid int, comm string, state byte) string {
	return fmt.Sprintf("%d (%s) %c 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0 18446744073709551615 0 0\n", pid, comm, state)
}

func TestClock(t *testing.T) {
	const (
		staPLL, staPPSFreq, staPPSTime, staNano, staIns = 0x0001, 0x0002, 0x0004, 0x2000, 0x0010

		timeOK, timeIns, timeDel, timeOOP, timeWait = 0, 1, 2, 3, 4
	)
	systemd := hosttest.Tree{"proc/1/stat": process(1, "systemd", 'S')}
	chrony := hosttest.Tree{"proc/1/stat": process(1, "systemd", 'S'), "proc/612/stat": process(612, "chronyd", 'S')}
	tests := []struct {
		name   string
		state  int
		clock  unix.Timex
		tree   hosttest.Tree
		status plugin.Status
		words  []string
	}{
		{"chrony", timeOK, unix.Timex{Status: staPLL | staNano, Esterror: 731, Maxerror: 24816, Offset: -18000}, chrony, plugin.OK, []string{"estimated error is 0.000731 s, at most 0.024816 s"}},
		{"systemd-timesyncd an hour after its last report", timeOK, unix.Timex{Status: staPLL | staNano, Maxerror: 1800000}, chrony, plugin.OK, []string{"at most 1.8 s"}},
		{"just right enough", timeOK, unix.Timex{Esterror: 1000000}, chrony, plugin.OK, nil},
		{"leap second to come", timeIns, unix.Timex{Status: staPLL | staIns}, chrony, plugin.OK, nil},
		{"leap second to be left out", timeDel, unix.Timex{Status: staPLL}, chrony, plugin.OK, nil},
		{"leap second", timeOOP, unix.Timex{Status: staPLL | staIns}, chrony, plugin.OK, nil},
		{"after a leap second", timeWait, unix.Timex{Status: staPLL | staIns}, chrony, plugin.OK, nil},
		{"a large offset is worked off", timeOK, unix.Timex{Status: staPLL, Offset: 400000}, chrony, plugin.OK, nil},

		{"since the boot", timeError, unix.Timex{Status: staUnsync, Esterror: 16000000, Maxerror: 16000000}, systemd, plugin.Problem, []string{"the clock is not synchronized; no time daemon runs on the node"}},
		{"chrony without a source", timeError, unix.Timex{Status: staPLL | staUnsync, Esterror: 16000000, Maxerror: 16000000}, chrony, plugin.Problem,
			[]string{"the clock is not synchronized; chronyd (pid 612) does not keep it"}},
		{"during a leap second the state is not that of an error", timeWait, unix.Timex{Status: staUnsync}, systemd, plugin.Problem, []string{"not synchronized"}},
		{"hardware", timeError, unix.Timex{Status: staPLL | staClockErr}, systemd, plugin.Problem, []string{"fault of its hardware"}},
		{"PPS", timeError, unix.Timex{Status: staPLL | staPPSFreq | staPPSTime}, systemd, plugin.Problem, []string{"PPS signal"}},
		{"inexact", timeOK, unix.Timex{Status: staPLL, Esterror: 2345678, Maxerror: 3000000}, chrony, plugin.Problem, []string{"the clock may be wrong by 2.3 s, more than 1 s; chronyd (pid 612)"}},
		{"a daemon that has ended", timeError, unix.Timex{Status: staUnsync}, hosttest.Tree{"proc/612/stat": process(612, "ntpd", 'Z')}, plugin.Problem, []string{"no time daemon runs"}},
		{"without the host's processes", timeError, unix.Timex{Status: staUnsync}, hosttest.Tree{}, plugin.Problem, []string{"the clock is not synchronized; see timedatectl"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &check{adjtimex: kernel(t, tt.state, tt.clock), maxError: time.Second}
			plugintest.Want(t, c.look(context.Background(), plugintest.Look(t, tt.tree.Open(t))), tt.status, tt.words...)
		})
	}
}

func TestRefused(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS, unix.EFAULT} {
		c := &check{adjtimex: func(*unix.Timex) (int, error) { return -1, errno }}
		v := c.look(context.Background(), plugintest.Look(t, hosttest.Tree{}.Open(t)))
		plugintest.Want(t, v, plugin.Unknown, errno.Error(), "--help")
		if errno != unix.EFAULT && !strings.Contains(v.Message, "seccomp") {
			t.Errorf("does not tell the cause: %s", v.Message)
		}
	}
}

func TestMeasurements(t *testing.T) {
	c := &check{adjtimex: kernel(t, 0, unix.Timex{Esterror: 500, Maxerror: 2500000, Offset: -250000}), maxError: time.Second}
	m := c.look(context.Background(), plugintest.Look(t, hosttest.Tree{}.Open(t))).Measurements
	if m[0].Value != 0.0005 || m[1].Value != 2.5 || m[1].Limit != 16 || m[2].Value != 0.25 {
		t.Errorf("%+v", m)
	}
}

// The real clock, whatever its state: it is read without any right, and the verdict is that of the kernel.
func TestThisClock(t *testing.T) {
	var clock unix.Timex
	state, err := unix.Adjtimex(&clock)
	if err != nil {
		t.Skipf("needs adjtimex: %v", err)
	}
	c := &check{adjtimex: unix.Adjtimex, maxError: time.Hour}
	want := plugin.OK
	if state == timeError || clock.Status&staUnsync != 0 {
		want = plugin.Problem
	}
	plugintest.Want(t, c.look(context.Background(), plugintest.Look(t, hosttest.Tree{}.Open(t))), want)
}

func FuzzClock(f *testing.F) {
	f.Add(5, int32(64), int64(16000000), int64(16000000), int64(0), "chronyd")
	f.Add(0, int32('?'), int64(49), int64(1)<<62, int64(-1)<<63, "0")
	f.Add(0, int32(-1), int64(-1), int64(1)<<62, int64(-1)<<63, "ntpd%\x1b")
	f.Fuzz(func(t *testing.T, state int, status int32, esterror, maxerror, offset int64, comm string) {
		c := &check{adjtimex: kernel(t, state, unix.Timex{Status: status, Esterror: esterror, Maxerror: maxerror, Offset: offset}), maxError: time.Second}
		v := c.look(context.Background(), plugintest.Look(t, hosttest.Tree{"proc/9/stat": process(9, comm, 'S')}.Open(t)))
		plugintest.Want(t, v, v.Status)
		if v.Status == plugin.Unknown || plugin.Safe(v.Message, plugin.MaxMessage) != v.Message {
			t.Errorf("%+v", v)
		}
		if wrong := status&staUnsync != 0 || state == timeError || esterror > 1000000; wrong != (v.Status == plugin.Problem) && status&staClockErr == 0 {
			t.Errorf("state %d, status %#x, error %d: %+v", state, status, esterror, v)
		}
	})
}
