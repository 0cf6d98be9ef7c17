// Command service-restarts tells that a service without which the node does not
// work, such as kubelet or the container runtime, starts again and again, or
// that systemd has given it up.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/systemd"
)

type check struct {
	units  unitNames
	count  int
	window time.Duration
}

// nodeServices are the services that a node lives by, as far as it has them.
var nodeServices = strings.Join(distribution.Every(func(d *distribution.Distribution) []string { return d.Units }), ",")

func main() {
	c := new(check)
	if err := c.units.Set(nodeServices); err != nil {
		panic(err)
	}
	plugin.Main(plugin.Check{
		Name:      "service-restarts",
		Condition: "NodeServiceFlapping",
		Purpose: "A service without which the node does not work starts again and again, or has failed and systemd does not start it any more.\n" +
			"Counts the starts by NRestarts and InvocationID of systemd, from one look to the next, and tells how the service ended.",
		Reads:            []string{"/run/systemd/private or /run/dbus/system_bus_socket: ListUnitsByPatterns with the names of --units; NRestarts, Result, ExecMainCode, ExecMainStatus, ExecMainStartTimestamp and InvocationID of those that are loaded"},
		Needs:            "the host's /run/systemd and /run/dbus below --host-root, and root of the host's user namespace; no hostPID; a --state-dir that lasts between runs",
		LookAlikes:       "some planned restarts; a service that the host does not have, or that is installed and not used; starts before the first look",
		Example:          "--host-root=/host --units=kubelet,containerd",
		FailureThreshold: 1,
		Timeout:          8 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			fs.Var(&c.units, "units", "`services` to look at, with commas between")
			plugin.CountVar(fs, &c.count, "count", 5, "Problem at this `number` of starts")
			plugin.DurationVar(fs, &c.window, "window", 20*time.Minute, "starts are counted for this `duration`")
		},
		Look: c.look,
	})
}

// unitNames are names of services, with ".service".
type unitNames []string

func (u *unitNames) String() string {
	return strings.ReplaceAll(strings.Join(*u, ","), ".service", "")
}

// unitName has the bytes that systemd allows in the name of a unit, of which
// at most 255.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]{1,247}$`)

func (u *unitNames) Set(s string) error {
	var names unitNames
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSuffix(name, ".service")
		if !unitName.MatchString(name) {
			return errors.New("want names of services, such as kubelet,containerd")
		}
		names = append(names, name+".service")
	}
	*u = names
	return nil
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	m, err := systemd.Connect(ctx, l.Host)
	if err != nil {
		return plugin.Unknownf("cannot ask systemd: %v", err)
	}
	defer m.Close()
	units, err := m.List(ctx, c.units...)
	if err != nil {
		return plugin.Unknownf("the services are not known: %v", err)
	}
	if len(units) == 0 {
		return plugin.Undecidedf("systemd has none of the services %s: set --units", plugin.Safe(c.units.String(), 120))
	}
	services := map[string]*service{}
	for _, u := range units {
		s, err := m.Service(ctx, u.Name)
		if err != nil {
			return plugin.Unknownf("how often services start is not known: %v", err)
		}
		services[u.Name] = &service{name: u.Name, state: u.ActiveState, Service: s}
	}
	return c.judge(l, services)
}

// service is one that systemd has loaded.
type service struct {
	name, state string
	systemd.Service
	*record
}

func (s *service) failed() bool { return s.state == "failed" }

func (c *check) judge(l *plugin.Look, services map[string]*service) plugin.Verdict {
	last := map[string]*record{}
	l.Recall(&last)
	records := map[string]*record{}
	for _, name := range c.units {
		if r := last[name]; r != nil {
			records[name] = r // also of one that is not loaded while it is stopped
		}
	}
	var v plugin.Verdict
	var counts []string
	var bad []*service
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		s.record = last[name].next(s.Service, l.Now, c.window)
		records[name] = s.record
		counts = append(counts, fmt.Sprintf("%s %d", plugin.Safe(name, 40), s.count()))
		v.Measurements = append(v.Measurements, plugin.Measurement{Name: "starts_" + measured(name), Value: float64(s.count()), Limit: float64(c.count), Unit: "starts"})
		s.tell(c, last[name])
		if s.Told != "" {
			bad = append(bad, s)
		}
	}
	l.Remember(records)
	if len(bad) == 0 {
		v.Suspicion = c.manyRestarts(services)
		v.Message = fmt.Sprintf("starts in %s: %s", short(c.window), strings.Join(counts, ", "))
		return v
	}
	slices.SortStableFunc(bad, func(a, b *service) int {
		switch {
		case a.failed() == b.failed():
			return 0
		case a.failed():
			return -1
		default:
			return 1
		}
	})
	v.Status = plugin.Problem
	for _, s := range bad {
		v.Details = append(v.Details, s.Told)
	}
	v.Message = message(bad)
	return v
}

// message tells of all services, of those for which there is no room by their
// names. It is the same from look to look as long as they are the same: only then
// is it told to Kubernetes once.
func message(bad []*service) string {
	if len(bad) == 1 {
		return bad[0].Told + "; see journalctl -u " + plugin.Safe(bad[0].name, 40)
	}
	text := fmt.Sprintf("%d services: %s", len(bad), bad[0].Told)
	var others []string
	for _, s := range bad[1:] {
		if len(others) == 0 && len(text)+len(s.Told) < plugin.MaxMessage-50 {
			text += "; " + s.Told
		} else {
			others = append(others, plugin.Safe(s.name, 40))
		}
	}
	if others != nil {
		text += "; also " + strings.Join(others, ", ")
	}
	return text
}

// manyRestarts tells of a service that systemd has restarted --count times since
// somebody started it, "" for none: when, only counting from look to look tells.
func (c *check) manyRestarts(services map[string]*service) string {
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if n := services[name].Service.Restarts; int64(n) >= int64(c.count) {
			return fmt.Sprintf("%s was restarted %d times by systemd", plugin.Safe(name, 40), n)
		}
	}
	return ""
}

// unseen stands for how a service ended that ran at each look.
const unseen = "an end that was not seen"

// tell sets what is told of a service that is down or starts often, "" of any
// other. Of one that starts often that is what was so at the first such look, and
// how it ended when that was seen later.
func (s *service) tell(c *check, last *record) {
	name, end := plugin.Safe(s.name, 40), cmp.Or(s.End, unseen)
	switch {
	case s.failed():
		s.Told = fmt.Sprintf("%s has failed and systemd does not start it again: %s", name, end)
	case s.count() < c.count:
	case last != nil && strings.Contains(last.Told, " started ") && (end == unseen || !strings.HasSuffix(last.Told, unseen)):
		s.Told = last.Told
	default:
		s.Told = fmt.Sprintf("%s started %d times in %s, last ended by %s", name, s.count(), short(c.window), end)
	}
}

// short writes 20m for Go's 20m0s.
func short(d time.Duration) string {
	if s, ok := strings.CutSuffix(d.String(), "m0s"); ok {
		return s + "m"
	}
	return d.String()
}

// measured is the name of a service among the measurements.
func measured(unit string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(strings.TrimSuffix(unit, ".service")))
}
