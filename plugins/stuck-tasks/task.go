package main

import (
	"fmt"
	"strings"
	"time"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/containerd"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
	"npd-plugins/internal/waits"
)

// task is one in uninterruptible sleep. Its Stat is that of the thread.
type task struct {
	procfs.Stat
	pid     int // of its process
	process procfs.Process
	sleep   sleep
	seen    bool          // in the same sleep at the last look
	age     time.Duration // of the sleep, since the first look that saw it
	dumping bool          // its process writes a core dump

	// Set by inspect.
	frozen bool
	waits  string   // kernel function in which it sleeps, "" when it cannot be read
	stack  []string // the functions above it, too
}

func (t *task) inspect(l *plugin.Look) {
	t.waits = t.process.WaitChannel()
	t.stack = append([]string{t.waits}, t.process.Stack()...)
	t.frozen = waits.Of(l.Host, t.process, t.State).Frozen
}

// harmless says whether the task waits for what is allowed to take long: the
// thaw of its cgroup, the child that it made with vfork, or the core dump that
// another thread of its process writes.
func (t *task) harmless() bool {
	switch t.waits {
	case "kernel_clone", "_do_fork", "do_fork", "wait_for_vfork_done": // since Linux 5.10, since 4.2, before; kernel/fork.c
		return true
	case "do_exit", "exit_mm", "coredump_task_exit": // kernel/exit.c
		return t.frozen || t.dumping
	}
	return t.frozen
}

// idlesInKernel says whether it is a thread of the kernel that may idle in this
// state: drivers have such, and before Linux 4.14 TASK_IDLE is shown as D. The
// workers of the kernel's queues idle in other states.
func (t *task) idlesInKernel(h *host.Root) bool {
	const kthreadd = 2 // the parent of them all, unless this is the /proc of a PID namespace
	if t.PPID != kthreadd || strings.HasPrefix(t.Comm, "kworker/") {
		return false
	}
	parent, err := procfs.Of(h, kthreadd).Stat()
	return err == nil && parent.PPID == 0 && parent.Comm == "kthreadd"
}

// isShim knows the parents of containers: containerd's shims, whose comm is cut
// at 15 bytes, and CRI-O's monitor.
func (t *task) isShim() bool {
	return strings.HasPrefix(t.Comm, "containerd-shim") || strings.HasPrefix(t.Comm, "conmon")
}

// describe names the task, how long it has been seen asleep, in what, and behind
// which mount.
func (t *task) describe(l *plugin.Look) string {
	text := l.Process(t.pid)
	if t.PID != t.pid {
		text += fmt.Sprintf(" thread %d", t.PID)
	}
	text += " for " + t.age.Truncate(time.Second).String()
	operation := procfs.Operation(t.stack)
	switch {
	case operation != "" && operation != t.waits:
		text += fmt.Sprintf(" in %s (%s)", plugin.Safe(operation, 40), plugin.Safe(t.waits, 40))
	case t.waits != "":
		text += " in " + plugin.Safe(t.waits, 40)
	}
	if t.isShim() {
		text += ": " + t.container(l) + " cannot be deleted"
	}
	if mount := t.mount(l); mount != "" {
		text += ", on " + mount
	}
	return text
}

// container names the container of a shim. containerd's shims are all in the
// cgroup of its service.
func (t *task) container(l *plugin.Look) string {
	groups, _ := t.process.Cgroups()
	owner := cgroup.OwnerOfProcess(groups)
	if owner.Container == "" {
		owner = containerd.ShimOwner(l.Host, t.pid)
	}
	switch {
	case owner.Container == "":
		return "its container"
	case owner.PodUID == "":
		return "container " + owner.Container[:12]
	default:
		return fmt.Sprintf("container %s of %s", owner.Container[:12], l.Owner(owner))
	}
}
