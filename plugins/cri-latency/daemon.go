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
	"npd-plugins/internal/waits"
)

// listeners are the daemons that may listen at a CRI socket, by the beginning
// of its name.
var listeners = []struct {
	socket  string
	daemons []string
}{
	{"containerd", []string{"containerd"}},
	{"crio", []string{"crio"}},
	{"cri-dockerd", []string{"cri-dockerd", "k3s-server", "k3s-agent"}},
	{"", []string{"containerd", "crio", "cri-dockerd", "k3s-server", "k3s-agent"}},
}

// multiCall are programs that are daemons of other names, too.
var multiCall = []string{"k3s", "rke2", "k0s"}

// behind names the daemons that may listen at a socket.
func behind(socket string) []string {
	for _, l := range listeners {
		if strings.HasPrefix(path.Base(socket), l.socket) {
			return l.daemons
		}
	}
	return nil // never: each name begins with ""
}

// daemonState tells for a message why the runtime at a socket does not answer.
// listener is the pid of the process that listens there, 0 when it is not known.
//
// cri-dockerd passes most calls on to dockerd, which asks containerd. The one
// that hangs is the last of them that is held, else the one next to cri-dockerd.
func daemonState(ctx context.Context, l *plugin.Look, socket string, listener int) string {
	d, err := findListener(ctx, l.Host, socket, listener)
	switch {
	case err != nil:
		return "the state of its process is not known: " + err.Error()
	case d == nil:
		return "there is no process " + strings.Join(behind(socket), ", ")
	case d.Comm != "cri-dockerd" || d.why.Held():
		return d.state(ctx, l)
	}
	var next *daemon
	for _, name := range []string{"dockerd", "containerd"} {
		asked, err := findDaemon(ctx, l.Host, "", []string{name})
		switch {
		case err != nil:
			return fmt.Sprintf("%s waits for %s: %v", d.who(), name, err)
		case asked == nil && name == "dockerd":
			return d.who() + " waits for dockerd, and there is none"
		case asked != nil && (asked.why.Held() || name == "dockerd"):
			next = asked
		}
		if asked != nil && asked.why.Held() {
			break
		}
	}
	return d.who() + " waits for " + next.who() + ", which " + next.predicate(ctx, l)
}

// withoutDockerd tells of a cri-dockerd that listens at the socket and answers
// with errors because there is no dockerd to ask, "" of every other runtime.
func withoutDockerd(ctx context.Context, l *plugin.Look, socket string, listener int) string {
	d, err := findListener(ctx, l.Host, socket, listener)
	if err != nil || d == nil || d.Comm != "cri-dockerd" {
		return ""
	}
	dockerd, err := findDaemon(ctx, l.Host, "", []string{"dockerd"})
	if err != nil || dockerd != nil {
		return ""
	}
	text := d.who() + " answers, and there is no dockerd for it to ask"
	if u, err := findUnit(ctx, l, "docker.service"); err == nil && u != nil {
		text += "; " + u.String()
	}
	return text
}

// findListener returns the daemon that listens at a socket, nil when there is
// none.
//
// The kernel tells who listens, for the price of one system call. But the pid
// is 0 in a container without hostPID, and that of systemd where systemd
// listens for the daemon (cri-dockerd), and that of nobody in the host's /proc
// where this process is in another PID namespace than the one it belongs to.
// So it counts only when the process is a daemon; else that is looked for among
// all processes.
func findListener(ctx context.Context, h *host.Root, socket string, listener int) (*daemon, error) {
	if listener > 0 {
		s, err := procfs.Of(h, listener).Stat()
		if err == nil && slices.Contains(behind(""), s.Comm) && procfs.Of(h, listener).HostsNamespace() {
			d := inspect(h, s, socket)
			d.listens = true
			return d, nil
		}
	}
	return findDaemon(ctx, h, socket, behind(socket))
}

// findDaemon returns a daemon of the node with one of these names, nil when
// there is none: the one that listens at the socket, else one that is held, else
// one that listens nowhere.
func findDaemon(ctx context.Context, h *host.Root, socket string, names []string) (found *daemon, err error) {
	err = procfs.EachStat(h, func(s procfs.Stat) bool {
		if slices.Contains(names, s.Comm) && isNodes(h, s) {
			if d := inspect(h, s, socket); found == nil || d.rank() > found.rank() {
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

// isNodes says whether a process with the name of a daemon is the node's: of
// that program and of root, and not in a container, where some run a runtime of
// their own.
func isNodes(h *host.Root, s procfs.Stat) bool {
	p := procfs.Of(h, s.PID)
	uid, err := p.UID()
	if err != nil || uid != 0 || !p.HostsNamespace() || s.State == 'Z' && s.Threads <= 1 {
		return false
	}
	// A node may be a container itself, and have its own id in all its cgroups.
	owner := ownerOf(p)
	if owner.PodUID != "" || owner.Container != ownerOf(procfs.Of(h, 1)).Container {
		return false
	}
	exe, err := p.Executable()
	if err != nil {
		return true // nobody may know without CAP_SYS_PTRACE
	}
	program := path.Base(strings.TrimSuffix(exe, " (deleted)")) // the kernel's word for one that was replaced meanwhile
	return strings.HasPrefix(program, s.Comm) || slices.Contains(multiCall, program)
}

func ownerOf(p procfs.Process) cgroup.Owner {
	file, _ := p.Cgroups() // a process that has just ended has none
	return cgroup.OwnerOfProcess(file)
}

// daemon is the process of a runtime, as it is at one moment.
type daemon struct {
	procfs.Stat
	tid     int          // of the thread that why is of: the first that is held, else the first of all
	why     waits.Reason // that it does not run
	listens bool         // at the socket
	serves  []string     // paths at which it listens
	seen    bool         // serves is known
}

// maxThreads is how many threads of a daemon are looked at. Go gives up at
// 10,000 (runtime/debug.SetMaxThreads); a healthy daemon has some dozens.
const maxThreads = 10000

func inspect(h *host.Root, s procfs.Stat, socket string) *daemon {
	p := procfs.Of(h, s.PID)
	d := &daemon{Stat: s, tid: s.PID, why: waits.Of(h, p, s.State)}
	paths, err := p.Listens()
	d.seen = err == nil
	for _, at := range paths {
		if path.Base(at) == "nri.sock" { // which containerd and CRI-O open before they have started
			continue
		}
		d.serves = append(d.serves, at)
		d.listens = d.listens || socket != "" && samePath(at, socket)
	}
	if d.why.Held() {
		return d
	}
	tasks, _ := h.ReadNames(fmt.Sprintf("/proc/%d/task", s.PID), maxThreads)
	for _, name := range tasks {
		tid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		thread := procfs.Thread(h, s.PID, tid)
		t, err := thread.Stat()
		if err != nil {
			continue
		}
		if t.State == 'T' || t.State == 't' || t.State == 'D' {
			d.tid, d.why = tid, waits.Of(h, thread, t.State)
			break
		}
	}
	return d
}

// samePath knows that /var/run is a link to /run.
func samePath(a, b string) bool {
	return strings.TrimPrefix(a, "/var") == strings.TrimPrefix(b, "/var")
}

func (d *daemon) rank() int {
	switch {
	case d.listens:
		return 3
	case d.why.Held():
		return 2
	case len(d.serves) == 0:
		return 1
	}
	return 0
}

// who names the process, and the thread when it is that of one that is held.
func (d *daemon) who() string {
	who := fmt.Sprintf("%s (pid %d)", d.Comm, d.PID)
	if d.tid != d.PID {
		who += fmt.Sprintf(" thread %d", d.tid)
	}
	return who
}

func (d *daemon) state(ctx context.Context, l *plugin.Look) string {
	return d.who() + " " + d.predicate(ctx, l)
}

// predicate tells why it does not run. How to let it run again is told only of
// the one that listens: for another the signal may be the wrong one.
func (d *daemon) predicate(ctx context.Context, l *plugin.Look) string {
	if !d.why.Held() {
		if group := waits.Throttled(ctx, l.Host, procfs.Of(l.Host, d.PID)); group != "" {
			return "is throttled by the CPU quota of " + plugin.Safe(group, 60)
		}
	}
	text := plugin.Safe(d.why.String(), 90)
	if d.listens && d.why.State == 'T' && !d.why.Frozen {
		text += fmt.Sprintf(": kill -CONT %d", d.PID)
	}
	return text
}
