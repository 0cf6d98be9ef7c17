package main

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"npd-plugins/internal/containerd"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
	"npd-plugins/internal/systemd"
)

// memory is what the next look must know.
type memory struct {
	Socket string `json:"socket"` // at which a runtime has answered in this boot
}

// down judges a runtime that nobody can connect to; what says where. err is why
// nothing can be said of a node on which nobody has ever answered, else nil.
//
// A runtime that starts, or restarts, is told like one that is down: the next
// look, before which nothing is told, does not find it any more. One that takes
// longer is excused as long as it works: it may have many containers to recover.
func (c *check) down(ctx context.Context, l *plugin.Look, socket, what string, err error) plugin.Verdict {
	d, procErr := findDaemon(ctx, l.Host, socket, behind(socket))
	u, unitErr := findUnit(ctx, l, unitsOf(socket)...)
	if unitErr != nil {
		l.Log.Infof("the unit of the runtime is not known: %v", unitErr)
	}
	var age time.Duration // of a daemon that listens nowhere, 0 for none
	if d != nil && d.seen && len(d.serves) == 0 {
		if uptime, err := procfs.Uptime(l.Host); err == nil {
			age = d.Age(uptime)
		}
	}
	parts := []string{"container runtime is down: " + what}
	switch {
	case d != nil && d.listens:
		return plugin.Undecidedf("%s here, but %s listens at it: the mount of its directory is stale, restart node-problem-detector or mount /run", what, d.who())
	case age >= c.start/3 && age < 10*c.start && d.works(ctx, l.Host):
		return plugin.Undecidedf("container runtime is starting: %s has run for %s, works, and does not listen yet", d.who(), age.Truncate(time.Second))
	case age >= c.start:
		parts = []string{fmt.Sprintf("container runtime does not start: %s has run for %s and listens nowhere", d.who(), age.Truncate(time.Second))}
		if shim := heldShim(ctx, l); shim != "" {
			parts = append(parts, shim)
		} else {
			parts = append(parts, d.state(ctx, l))
		}
	case err != nil && !u.down(l.Now, c.start):
		return plugin.Unknownf("cannot time the container runtime: %v", err)
	case procErr != nil:
		parts = append(parts, "the state of its process is not known: "+procErr.Error())
	case d == nil:
		parts = append(parts, "there is no process "+strings.Join(behind(socket), ", "))
	case len(d.serves) > 0: // Docker's own containerd, or a socket that was moved
		parts = append(parts, fmt.Sprintf("%s listens at %s", d.who(), plugin.Safe(d.serves[0], 60)))
	case age > 0:
		parts = append(parts, fmt.Sprintf("%s started %s ago", d.who(), age.Truncate(time.Second)))
	default:
		parts = append(parts, d.state(ctx, l))
	}
	if u != nil {
		parts = append(parts, u.String())
	}
	return problem(strings.Join(parts, "; "))
}

// atWork is for how long a daemon is watched that starts. One that waits has
// used no CPU at its end; what its runtime does meanwhile is less than a tick
// or two.
const atWork = 2 * time.Second

// works says whether the daemon uses CPU.
func (d *daemon) works(ctx context.Context, h *host.Root) bool {
	p := procfs.Of(h, d.PID)
	before, err := p.CPU()
	if err != nil {
		return false
	}
	select {
	case <-time.After(atWork):
	case <-ctx.Done():
	}
	now, err := p.CPU()
	return err == nil && now-before > 2*procfs.ClockTick
}

// shimComm is the comm of containerd's shims, which the kernel cuts at 15 bytes.
const shimComm = "containerd-shim"

// heldShim names a shim that is held, and its pod, "" when there is none. A
// containerd that starts asks all shims, and does not listen before each has
// answered or was given up.
func heldShim(ctx context.Context, l *plugin.Look) string {
	held, text := 0, ""
	procfs.EachStat(l.Host, func(s procfs.Stat) bool {
		if s.Comm != shimComm || !isNodes(l.Host, s) {
			return ctx.Err() == nil
		}
		d := inspect(l.Host, s, "")
		if !d.why.Held() {
			return ctx.Err() == nil
		}
		if held++; held == 1 {
			text = d.who()
			if owner := l.Owner(containerd.ShimOwner(l.Host, s.PID)); owner != "" {
				text += " of " + owner
			}
			text += " " + plugin.Safe(d.why.String(), 60)
		}
		return ctx.Err() == nil
	})
	if held > 1 {
		text += ", and " + plugin.Count(held-1, "more shim")
	}
	return text
}

// unitsOf are the services that may run the daemon behind a socket.
func unitsOf(socket string) []string {
	switch base := path.Base(socket); {
	case strings.HasPrefix(socket, "/run/k3s/"):
		return []string{"k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service"}
	case strings.HasPrefix(socket, "/run/k0s/"):
		return []string{"k0scontroller.service", "k0sworker.service"}
	case strings.HasPrefix(socket, "/var/snap/microk8s/"):
		return []string{"snap.microk8s.daemon-containerd.service"}
	case strings.HasPrefix(base, "containerd"):
		return []string{"containerd.service", "containerd-deckhouse.service"}
	case strings.HasPrefix(base, "crio"):
		return []string{"crio.service"}
	case strings.HasPrefix(base, "cri-dockerd"):
		return []string{"docker.service", "cri-docker.service"} // without the first the other cannot start
	}
	return []string{"containerd.service", "containerd-deckhouse.service", "crio.service", "cri-docker.service"}
}

// unit is the service of a runtime.
type unit struct {
	systemd.Unit
	run   systemd.Service
	since time.Time // when it left the state inactive, zero when it has not
}

// findUnit asks systemd for these services and returns the first that is down,
// else one that does not run, else one that does, nil when none is loaded.
func findUnit(ctx context.Context, l *plugin.Look, names ...string) (*unit, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	m, err := systemd.Connect(ctx, l.Host)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	loaded, err := m.List(ctx, names...)
	if err != nil {
		return nil, err
	}
	var found *unit
	for _, name := range names {
		for _, u := range loaded {
			if u.Name != name || u.LoadState == "not-found" {
				continue
			}
			now := &unit{Unit: u}
			if now.run, err = m.Service(ctx, name); err == nil {
				now.since, err = m.ActivatingSince(ctx, name)
			}
			if err != nil {
				return nil, err
			}
			if found == nil || now.rank() > found.rank() {
				found = now
			}
		}
	}
	return found, nil
}

func (u *unit) rank() int {
	switch {
	case u.down(time.Now(), 0):
		return 2
	case u.ActiveState != "active":
		return 1
	}
	return 0
}

// down says whether systemd could not start the service: it has given up, it
// tries again, or it has been starting for that long.
func (u *unit) down(now time.Time, start time.Duration) bool {
	if u == nil {
		return false
	}
	return u.ActiveState == "failed" || u.ActiveState == "activating" &&
		(u.run.Restarts > 0 || u.SubState == "auto-restart" || !u.since.IsZero() && now.Sub(u.since) >= start)
}

func (u *unit) String() string {
	ending := ""
	if how := u.run.Ending(); how != "" {
		ending = ": " + how
	}
	switch {
	case u.ActiveState == "failed":
		return u.Name + " has failed" + ending
	case u.ActiveState == "activating" && u.run.Restarts > 1:
		return fmt.Sprintf("%s restarts again and again (%d times)%s", u.Name, u.run.Restarts, ending)
	case u.ActiveState == "inactive":
		return u.Name + " is stopped"
	case u.ActiveState == "activating":
		return u.Name + " is activating" + ending
	}
	return u.Name + " is " + plugin.Safe(u.ActiveState, 20)
}
