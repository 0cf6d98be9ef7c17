// Command systemd-units tells that systemd holds units that nobody takes away:
// the transient scopes of kubelet's mounts, or any other kind.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
	"npd-plugins/internal/systemd"
)

type check struct {
	scopes, units int
	age           time.Duration
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "systemd-units",
		Condition: "SystemdUnitLeak",
		Purpose: "kubelet makes mounts in transient scopes of systemd that last a second. Where systemd misses the end of one it stays for ever; with thousands of units systemd needs seconds\n" +
			"of CPU for each mount, pods stay in ContainerCreating, and the node goes NotReady. Counts systemd's units, and those scopes among them that stay.",
		Reads:            []string{"/run/systemd/private or /run/dbus/system_bus_socket: NNames of systemd; with --scopes units or more ListUnitsByPatterns run-*.scope", "/proc/1/status (memory of systemd)", "/var/log/pods (names of pods)"},
		Needs:            "the host's /run/systemd and /run/dbus below --host-root, and root of the host's user namespace; no hostPID",
		LookAlikes:       "scopes of mounts that are being made; scopes that others start with systemd-run; the thousand units of a node with many pods",
		Example:          "--host-root=/host --scopes=500",
		FailureThreshold: 1,
		Timeout:          16 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.CountVar(fs, &c.scopes, "scopes", 500, "Problem at this `number` of scopes of kubelet's mounts that stay")
			plugin.DurationVar(fs, &c.age, "age", 5*time.Minute, "a scope stays when it is older than this `duration`")
			plugin.CountVar(fs, &c.units, "units", 5000, "Problem at this `number` of units of all kinds")
		},
		Look: c.look,
	})
}

// maxUnits is how many units systemd can have (MANAGER_MAX_NAMES in
// src/core/manager.h). Nothing can be started beyond that.
const maxUnits = 131072

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	m, err := systemd.Connect(ctx, l.Host)
	if err != nil {
		return plugin.Unknownf("cannot ask systemd: %v", err)
	}
	defer m.Close()
	units, err := m.Names(ctx)
	if err != nil {
		return plugin.Unknownf("the number of systemd's units is not known: %v", err)
	}
	v := plugin.Verdict{
		Message:      fmt.Sprintf("%d units in systemd", units),
		Measurements: []plugin.Measurement{{Name: "units", Value: float64(units), Limit: maxUnits, Unit: "units", Forecast: true}},
	}
	if units < c.scopes && units < c.units { // so there cannot be as many scopes either
		return v
	}
	memory := ""
	if bytes, err := procfs.Of(l.Host, 1).Resident(); err == nil {
		v.Measurements = append(v.Measurements, plugin.Measurement{Name: "systemd_memory", Value: float64(bytes), Unit: "bytes"})
		memory = "; systemd has " + plugin.FormatBytes(float64(bytes))
	}
	list, err := m.List(ctx, c.pattern(units))
	if err != nil && units < c.units {
		return plugin.Unknownf("%d units in systemd, but those of kubelet's mounts are not known: %v", units, err)
	}
	if err != nil {
		v.Status, v.Message = plugin.Problem, fmt.Sprintf("%d units in systemd, limit %d%s; what they are is not known: %v", units, c.units, memory, err)
		v.Details = []string{v.Message}
		return v
	}
	mounts := kubeletMounts(list)
	if units <= systemd.MaxUnits { // else it is a sample, and says nothing of how many there are
		stay, oldest, err := c.staying(ctx, l, m, mounts)
		if err != nil && units < c.units {
			return plugin.Unknownf("%d scopes of kubelet's mounts in systemd, for an unknown time: %v", len(mounts), err)
		}
		v.Measurements = append(v.Measurements, plugin.Measurement{Name: "leaked_scopes", Value: float64(stay), Unit: "scopes"})
		if stay >= c.scopes {
			v.Status = plugin.Problem
			v.Details = blame(l, mounts)
			v.Message = fmt.Sprintf("%d scopes of kubelet's mounts stay in systemd, oldest %s; most: %s%s", stay, age(oldest), v.Details[0], memory)
			return v
		}
		v.Message += fmt.Sprintf(", %d scopes of kubelet's mounts among them, %d stay", len(mounts), stay)
	}
	if units >= c.units {
		v.Status = plugin.Problem
		what, details := largest(l, list, mounts)
		v.Message = fmt.Sprintf("%d units in systemd, limit %d; %s%s", units, c.units, cmp.Or(what, "none in a sample"), memory)
		v.Details = append([]string{v.Message}, details...)
	}
	return v
}

// pattern is what to list. Of more units than systemd can list in a moment it
// is a sample: those whose name ends in two zeros, about a hundredth of all
// that have a number or a random word for a name.
func (c *check) pattern(units int) string {
	switch {
	case units < c.units:
		return scopes
	case units <= systemd.MaxUnits:
		return "*"
	default:
		return "*00.*"
	}
}

// maxAsked is of how many scopes systemd is asked for the age.
const maxAsked = 40

// staying is how many of the scopes are older than --age, by that of maxAsked
// of them, and the age of the oldest that was asked for. systemd lists in no
// order, and so they are a fair sample.
func (c *check) staying(ctx context.Context, l *plugin.Look, m *systemd.Manager, mounts []mount) (stay int, oldest time.Duration, err error) {
	if len(mounts) < c.scopes {
		return 0, 0, nil // too few, whatever their age
	}
	asked := mounts[:min(len(mounts), maxAsked)]
	old := 0
	for _, mount := range asked {
		since, err := m.ActiveSince(ctx, mount.unit)
		if err != nil {
			return 0, 0, err
		}
		if since.IsZero() { // it has ended meanwhile
			continue
		}
		if d := l.Now.Sub(since); d >= c.age {
			old++
			oldest = max(oldest, d)
		}
	}
	return len(mounts) * old / len(asked), oldest, nil
}

// age writes 7 min, 3 h and 12 d.
func age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	}
}
