// Command stuck-tasks tells of tasks that hang in the kernel: they have slept
// uninterruptibly for minutes, mostly behind a disk or a mount that is dead,
// and cannot be killed.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	age time.Duration
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "stuck-tasks",
		Condition: "TasksStuck",
		Purpose: "A task in uninterruptible sleep (state D) for minutes hangs in the kernel: a disk, a network or FUSE mount, or a lock does not answer.\n" +
			"It cannot be killed, and its container cannot be stopped. Looks for tasks that were in the same sleep at two looks, --age apart.",
		Reads: []string{"/proc/loadavg, /proc/uptime, /proc/sys/kernel/hung_task_{detect_count,timeout_secs}; all else only when the load average is as high as a stuck task makes it:",
			"/proc/PID/stat and /proc/PID/task/*/stat of all tasks", "/proc/PID/task/TID/{status,wchan,stack,cgroup} of those in state D, never their cmdline",
			"/sys/fs/cgroup/freezer", "/proc/1/mountinfo, /sys/fs/fuse/connections, and the cwd and config.json of a shim that is stuck", "/var/log/pods (names of pods)"},
		Needs: "the host's /proc below --host-root, without hostPID; a --state-dir that lasts between runs; with cgroup v1 the host's /sys/fs/cgroup; " +
			"CAP_SYS_PTRACE and CAP_SYS_ADMIN to tell what a task waits for",
		LookAlikes: "a task that sleeps uninterruptibly again and again; a frozen container; a parent whose vfork child has not executed yet; " +
			"threads that wait for a core dump; kernel threads that are not workers; load from the CPU alone",
		Example:          "--host-root=/host --age=2m",
		FailureThreshold: 1,
		Timeout:          50 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.age, "age", 2*time.Minute, "Problem when a task is in the same uninterruptible sleep for this `duration`")
		},
		Look: c.look,
	})
}

// memory is what the next look must know.
type memory struct {
	Hung    *uint64 `json:"hung,omitempty"` // kernel.hung_task_detect_count
	Grew    float64 `json:"grew,omitempty"` // the last look that found it higher than before, in seconds after the boot
	Scanned bool    `json:"scanned,omitempty"`
	Tasks   []sleep `json:"tasks,omitempty"` // those in uninterruptible sleep, if it scanned
}

// sleep identifies the sleep of a task: it is another one when the task, or the
// number of its context switches, is another.
type sleep struct {
	TID      int     `json:"tid"`
	Start    uint64  `json:"start"` // after the boot, in clock ticks
	Switches uint64  `json:"switches"`
	Since    float64 `json:"since"` // the first look that saw it, in seconds after the boot
}

// maxRemembered bounds the state file.
const maxRemembered = 10000

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	load, err := procfs.Load(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot look for stuck tasks: %v", err)
	}
	var last memory
	l.Recall(&last)
	uptime, err := procfs.Uptime(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot look for stuck tasks: %v", err)
	}
	now := memory{Hung: hungTasks(l)}
	var counted string // what the kernel counted since the last look
	if last.Hung != nil && now.Hung != nil && *now.Hung > *last.Hung {
		counted = fmt.Sprintf("kernel.hung_task_detect_count %d, was %d", *now.Hung, *last.Hung)
		now.Grew = uptime.Seconds()
	} else if uptime.Seconds()-last.Grew < c.age.Seconds() {
		now.Grew = last.Grew
	}
	if least := leastLoad(c.age); load < least && now.Grew == 0 {
		l.Remember(now)
		return plugin.Verdict{
			Message:      fmt.Sprintf("no task is stuck: load average %.2f, and one would make it %.2f", load, least),
			Measurements: []plugin.Measurement{{Name: "tasks_stuck", Unit: "tasks"}},
		}
	}

	asleep, scanned, err := blocked(ctx, l, uptime, last.Tasks)
	if err != nil {
		return plugin.Unknownf("cannot look for stuck tasks: %v", err)
	}
	now.Scanned = scanned
	for _, t := range asleep[:min(len(asleep), maxRemembered)] {
		now.Tasks = append(now.Tasks, t.sleep)
	}
	l.Remember(now)
	return c.judge(l, asleep, last.Scanned, now, counted)
}

// hungTasks is how often the kernel has found a task in uninterruptible sleep
// for kernel.hung_task_timeout_secs, nil where it does not count (before Linux
// 6.13, or without CONFIG_DETECT_HUNG_TASK).
func hungTasks(l *plugin.Look) *uint64 {
	n, ok, err := l.Host.ReadUint("/proc/sys/kernel/hung_task_detect_count")
	if err != nil || !ok {
		return nil
	}
	return &n
}

// leastLoad is the least that the load average of the last minute can be when a
// task has been in uninterruptible sleep for that long.
//
// Every LOAD_FREQ the kernel counts the tasks n that run or are in such a sleep,
// and makes load*e + n*(1-e) the load, with e = EXP_1/FIXED_1 (kernel/sched/loadavg.c).
// With n >= 1 the distance 1-load shrinks to e of what it was, or less; from
// anywhere, k counts later the load is at least 1-e^k. One count is granted, for
// CPUs are counted in turns, and 0.01 for what the kernel rounds.
func leastLoad(d time.Duration) float64 {
	const e = 1884.0 / 2048                // EXP_1 and FIXED_1 of include/linux/sched/loadavg.h
	const period = 5010 * time.Millisecond // LOAD_FREQ is 5*HZ+1 ticks; HZ is at least 100
	counts := math.Floor(float64(d)/float64(period)) - 1
	return max(0, 1-math.Pow(e, counts)-0.01)
}

// judge tells the tasks that are stuck from all that sleep uninterruptibly now.
// counted is not empty when the kernel has found some since the last look, which
// knew all that slept then if scanned is true.
func (c *check) judge(l *plugin.Look, asleep []task, scanned bool, now memory, counted string) plugin.Verdict {
	// What the kernel may have meant need not wait for --age, but must have slept on since an earlier look: of what is
	// first seen now nobody knows whether it has just begun.
	meant := c.age
	if now.Grew > 0 {
		meant = min(c.age, hungTimeout(l)/2)
	}
	var stuck, beside []task // beside: kernel threads
	young := 0               // or not seen before
	for _, t := range asleep {
		enough := c.age
		if t.sleep.Since <= now.Grew {
			enough = meant
		}
		if !t.seen || t.age+time.Second < enough { // a second is granted, for looks are not made at the tick of a clock
			young++
			continue
		}
		t.inspect(l)
		switch {
		case t.harmless():
		case t.idlesInKernel(l.Host):
			beside = append(beside, t)
		default:
			stuck = append(stuck, t)
		}
	}
	if len(stuck) == 0 && counted != "" {
		stuck, beside = beside, nil // then it is these that the kernel means
	}
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "tasks_stuck", Value: float64(len(stuck)), Unit: "tasks"},
		{Name: "tasks_blocked", Value: float64(len(asleep)), Unit: "tasks"},
		{Name: "kernel_threads_blocked", Value: float64(len(beside)), Unit: "tasks"},
	}}
	switch {
	case len(stuck) > 0:
		v.Status = plugin.Problem
		v.Message, v.Details = blame(l, stuck)
		if counted != "" {
			v.Message += "; " + counted
		}
		for _, t := range beside[:min(len(beside), 5)] {
			v.Details = append(v.Details, t.describe(l))
		}
	case counted != "":
		v.Status = plugin.Problem
		v.Message = "a task was stuck in uninterruptible sleep and is gone"
		if young > 0 && !(scanned && now.Scanned) {
			v.Message = "a task was stuck in uninterruptible sleep; if it still is, the next look names it"
		}
		v.Message += ": " + counted + "; dmesg has it"
		v.Suspicion = counted // it has grown since a look that may be long ago, where nothing can be kept
		v.Details = []string{"dmesg: \"blocked for more than\" has the task"}
	case !now.Scanned:
		return plugin.Unknownf("cannot look for stuck tasks: not all were read in time; raise --timeout")
	default:
		if young > 0 {
			v.Suspicion = plugin.Count(young, "task") + " in uninterruptible sleep"
		}
		v.Message = fmt.Sprintf("no task is stuck: %s in uninterruptible sleep now, none of them for %s", plugin.Count(len(asleep), "task"), c.age)
		if len(beside) > 0 {
			v.Message += " but " + plugin.Count(len(beside), "kernel thread")
		}
	}
	return v
}

// hungTimeout is for how long a task sleeps before the kernel counts it, or up
// to twice as long (kernel/hung_task.c).
func hungTimeout(l *plugin.Look) time.Duration {
	seconds, ok, err := l.Host.ReadUint("/proc/sys/kernel/hung_task_timeout_secs")
	if err != nil || !ok || seconds == 0 || seconds > 86400 {
		return 2 * time.Minute // CONFIG_DEFAULT_HUNG_TASK_TIMEOUT
	}
	return time.Duration(seconds) * time.Second
}

// blame names one task, a shim before others because its container is what
// cannot be deleted, and describes ten.
func blame(l *plugin.Look, stuck []task) (message string, details []string) {
	slices.SortStableFunc(stuck, func(a, b task) int {
		switch {
		case a.isShim() == b.isShim():
			return cmp.Compare(b.age, a.age)
		case a.isShim():
			return -1
		default:
			return 1
		}
	})
	for _, t := range stuck[:min(len(stuck), 10)] {
		details = append(details, t.describe(l))
	}
	if len(stuck) == 1 {
		return "a task is stuck in uninterruptible sleep: " + details[0], details
	}
	processes := map[int]bool{}
	for _, t := range stuck {
		processes[t.pid] = true
	}
	return fmt.Sprintf("%d tasks of %s are stuck in uninterruptible sleep: %s", len(stuck), plugin.Count(len(processes), "process"), details[0]), details
}

// blocked returns the tasks in uninterruptible sleep, those that sleep longest
// first, and whether all were read in time.
func blocked(ctx context.Context, l *plugin.Look, uptime time.Duration, last []sleep) (asleep []task, all bool, err error) {
	known := map[int]sleep{}
	for _, s := range last {
		known[s.TID] = s
	}
	err = procfs.EachBlocked(ctx, l.Host, func(pid int, s procfs.Stat) {
		t := task{Stat: s, pid: pid, process: procfs.Thread(l.Host, pid, s.PID)}
		state, err := t.process.Sleep()
		if err != nil {
			return // ended meanwhile
		}
		t.dumping = state.Dumping
		t.sleep = sleep{s.PID, s.Start, state.Switches, uptime.Seconds()}
		if before, ok := known[s.PID]; ok && before.Start == s.Start && before.Switches == state.Switches {
			t.seen = true
			t.sleep.Since = min(before.Since, t.sleep.Since)
		}
		t.age = time.Duration((uptime.Seconds() - t.sleep.Since) * float64(time.Second))
		asleep = append(asleep, t)
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, false, err
	}
	slices.SortStableFunc(asleep, func(a, b task) int { return cmp.Compare(b.age, a.age) })
	return asleep, err == nil, nil
}
