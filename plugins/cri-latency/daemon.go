package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// daemons are the names of the processes that listen at a CRI socket, or that
// cri-dockerd asks in turn.
var daemons = []string{"containerd", "crio", "cri-dockerd", "dockerd", "k3s-server", "k3s-agent"}

// behind names the daemons that may be behind a socket, as its name tells:
// containerd.sock, crio.sock.
func behind(socket string) []string {
	for _, name := range []string{"containerd", "crio"} {
		if strings.HasPrefix(path.Base(socket), name) {
			return []string{name}
		}
	}
	return daemons
}

// daemonState tells the state of the daemon of a runtime for a message.
// listener is the pid of the process that listens at the socket, 0 when it is
// not known.
func daemonState(ctx context.Context, l *plugin.Look, socket string, listener int) string {
	d, err := findDaemon(ctx, l.Host, socket, listener)
	switch {
	case err != nil:
		return "the state of its process is not known: " + err.Error()
	case d == nil:
		return "there is no process " + strings.Join(behind(socket), ", ")
	}
	return d.String()
}

// findDaemon returns the daemon behind a socket, nil when there is none.
//
// The kernel tells who listens, for the price of one system call. But the pid
// is 0 in a container without hostPID, and that of systemd where systemd
// listens for the daemon (cri-dockerd), and that of nobody in the host's /proc
// where this process is in another PID namespace than the one it belongs to.
// So it counts only when the process has the name of a daemon; else that name
// is looked for among all processes.
func findDaemon(ctx context.Context, h *host.Root, socket string, listener int) (*daemon, error) {
	if listener > 0 {
		s, err := procfs.Of(h, listener).Stat()
		if err == nil && slices.Contains(daemons, s.Comm) && s.Comm != "cri-dockerd" { // which asks others
			return inspect(h, s), nil
		}
	}
	var found *daemon
	err := procfs.EachStat(h, func(s procfs.Stat) bool {
		gone := s.State == 'Z' && s.Threads <= 1
		if slices.Contains(behind(socket), s.Comm) && !gone && !inPod(h, s.PID) {
			if d := inspect(h, s); found == nil || d.blocked() && !found.blocked() {
				found = d
			}
		}
		return ctx.Err() == nil
	})
	if err == nil && found == nil {
		err = ctx.Err()
	}
	return found, err
}

// inPod says whether the process is in a pod, where some run a runtime of
// their own that is not the node's.
func inPod(h *host.Root, pid int) bool {
	file, err := procfs.Of(h, pid).Cgroups()
	return err == nil && cgroup.OwnerOfProcess(file).PodUID != ""
}

// daemon is the process of a runtime, as it is at one moment.
type daemon struct {
	comm  string
	pid   int
	tid   int    // of the thread that the state is of: the first that is blocked, else pid
	state byte   // as in /proc/PID/stat
	waits string // wait channel of that thread, "" when it cannot be read
}

// maxThreads is how many threads of a daemon are looked at. Go gives up at
// 10,000 (runtime/debug.SetMaxThreads); a healthy daemon has some dozens.
const maxThreads = 10000

func inspect(h *host.Root, s procfs.Stat) *daemon {
	d := &daemon{comm: s.Comm, pid: s.PID, tid: s.PID, state: s.State}
	if !d.blocked() {
		tasks, _ := h.ReadNames(fmt.Sprintf("/proc/%d/task", s.PID), maxThreads)
		for _, name := range tasks {
			tid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			// /proc has the directory of every thread, though it lists only processes.
			t, err := procfs.Of(h, tid).Stat()
			if err == nil && isBlocked(t.State) {
				d.tid, d.state = tid, t.State
				break
			}
		}
	}
	d.waits = plugin.Safe(procfs.Of(h, d.tid).WaitChannel(), 40)
	return d
}

func (d *daemon) blocked() bool { return isBlocked(d.state) }

// isBlocked knows the states in which a thread goes on only when others let
// it: stopped, traced, and uninterruptible sleep.
func isBlocked(state byte) bool { return state == 'T' || state == 't' || state == 'D' }

func (d *daemon) String() string {
	who := fmt.Sprintf("%s (pid %d)", d.comm, d.pid)
	if d.tid != d.pid {
		who += fmt.Sprintf(" thread %d", d.tid)
	}
	state := fmt.Sprintf("state %c", d.state)
	if d.waits != "" {
		state += " in " + d.waits
	}
	switch d.state {
	case 'T':
		return fmt.Sprintf("%s is stopped, %s: kill -CONT %d", who, state, d.pid)
	case 't':
		return fmt.Sprintf("%s is held by a debugger, %s", who, state)
	case 'D':
		return fmt.Sprintf("%s sleeps uninterruptibly, %s", who, state)
	}
	return fmt.Sprintf("%s is not stopped, %s", who, state)
}
