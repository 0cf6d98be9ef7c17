package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// runs is how often a command is measured. The median counts.
const runs = 11

func median[T int | float64 | time.Duration](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// cpu is the user and system time of the command, after one run that does not count. An exit code above worst fails:
// what could not look was cheap for the wrong reason.
func cpu(b *testing.B, worst int, command ...string) time.Duration {
	b.Helper()
	cpuOnce(b, worst, command)
	var times []time.Duration
	for range runs {
		times = append(times, cpuOnce(b, worst, command))
	}
	return median(times)
}

// cpuInTurns is the user and system time of two commands that are so short that caches and neighbours tell: they run in
// turns, as checks do on a node, and more often. How a program lies in the page cache, which is luck, makes a tenth too,
// and the linker leaves it there in single pages; so both are copied time and again, as the installer does.
func cpuInTurns(b *testing.B, one, other []string) (time.Duration, time.Duration) {
	b.Helper()
	var ones, others []time.Duration
	for range runs {
		one, other := copied(b, one), copied(b, other)
		for range 10 {
			ones = append(ones, cpuOnce(b, 0, one))
			others = append(others, cpuOnce(b, 0, other))
		}
	}
	return median(ones), median(others)
}

// copied is the command with a copy of its program.
func copied(b *testing.B, command []string) []string {
	b.Helper()
	program, err := os.ReadFile(command[0])
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), filepath.Base(command[0]))
	if err := os.WriteFile(path, program, 0o755); err != nil {
		b.Fatal(err)
	}
	return append([]string{path}, command[1:]...)
}

// empty is a Go program that does nothing.
func empty() []string { return []string{filepath.Join(binaries, "empty")} }

func cpuOnce(b *testing.B, worst int, command []string) time.Duration {
	b.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	var exit *exec.ExitError
	out, err := cmd.Output()
	if err != nil && !errors.As(err, &exit) {
		b.Fatalf("%q: %v", command, err)
	}
	if code := cmd.ProcessState.ExitCode(); code < 0 || code > worst {
		b.Fatalf("%q: %v: %.300s", command, cmd.ProcessState, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// rss is the most memory in MiB that the command had resident, the median of three runs. The kernel's ru_maxrss does
// not tell it: that also counts what this process had when it started the command. So the command is traced, and
// looked at when it has done everything and not yet gone.
func rss(b *testing.B, command []string) float64 {
	b.Helper()
	var sizes []float64
	for range 3 {
		size, err := tracedRSS(command)
		if err != nil {
			b.Fatalf("%q: %v", command, err)
		}
		sizes = append(sizes, size)
	}
	return median(sizes)
}

func tracedRSS(command []string) (mib float64, err error) {
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	defer cmd.Wait()
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil { // stopped by its exec
		return 0, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL); err != nil {
		return 0, err
	}
	signal := 0
	for {
		if err := unix.PtraceCont(pid, signal); err != nil {
			return 0, err
		}
		if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
			return 0, err
		}
		switch {
		case !status.Stopped():
			return 0, fmt.Errorf("ended before it was looked at: %v", status)
		case status.TrapCause() == unix.PTRACE_EVENT_EXIT:
			mib, err = peakRSS(pid)
			return mib, errors.Join(err, unix.PtraceDetach(pid))
		}
		signal = int(status.StopSignal())
	}
}

func peakRSS(pid int) (mib float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err := fmt.Sscanf(value, "%f kB", &mib)
			return mib / 1024, err
		}
	}
	return 0, errors.New("no VmHWM in the status of the process")
}

// quotaGroup makes a cgroup with 1 ms of CPU in 100 ms and returns a script that runs its arguments in there.
func quotaGroup(b *testing.B) (script string) {
	b.Helper()
	lab.NeedRoot(b)
	group := lab.CgroupParent(b)
	v1, v2 := "/sys/fs/cgroup/cpu"+group, "/sys/fs/cgroup"+group
	dir, files := v1, map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "1000"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, files = v2, map[string]string{"cpu.max": "1000 100000"}
		if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu"), 0); err != nil {
			b.Skipf("needs the cpu cgroup controller: %v", err)
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Skipf("needs the cpu cgroup controller: %v", err)
	}
	for file, value := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0); err != nil {
			b.Skipf("needs the cpu cgroup controller: %v", err)
		}
	}
	script = filepath.Join(b.TempDir(), "join")
	text := fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs && exec \"$@\"\n", dir)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		b.Fatal(err)
	}
	return script
}
