// Command kernel-tables tells that one of the kernel's tables with a size
// comes near that size: a node with a full one drops connections, cannot open
// files, mount, or start containers.
package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/plugin"
)

type check struct {
	percent int
	inotify inotifyProbe
}

func main() {
	c := &check{inotify: probeInotify}
	plugin.Main(plugin.Check{
		Name:      "kernel-tables",
		Condition: "KernelTableNearLimit",
		Purpose: "Some of the kernel's tables have a size: when one fills up, the node drops connections and cannot open files, mount, or start containers.\n" +
			"Compares each with its size: open files, conntrack, inotify instances and watches of uid 0, keys, AIO requests, mounts, neighbours, pseudo-terminals.\n" +
			"The kernel does not tell how many inotify instances there are, so it makes some, asks for one watch, and closes them at once.",
		Reads: []string{"/proc/sys/fs/{file-nr,aio-nr,aio-max-nr,mount-max,inotify}, /proc/sys/kernel/pty", "/proc/1/net/stat/{nf_conntrack,arp_cache,ndisc_cache}, /proc/1/mountinfo, /proc/key-users",
			"/proc/sys/net: nf_conntrack_max, gc_thresh2 and gc_thresh3", "inotify instances of its own", "only when files or inotify run out: /proc/*/{stat,status,cgroup,fd}"},
		Needs:            "root without a user namespace, the host's /proc below --host-root; without hostNetwork also CAP_SYS_ADMIN and CAP_SYS_PTRACE (privileged), to read gc_thresh3 as the host does",
		LookAlikes:       "a full table in a pod's own network namespace; permanent neighbours, which the kernel does not count",
		Example:          "--host-root=/host --percent=80",
		FailureThreshold: 2,
		Timeout:          8 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.PercentVar(fs, &c.percent, "percent", 80, "Problem at this `share` of a table, in percent")
		},
		Look: c.look,
	})
}

// table is what is used of one of the kernel's tables.
type table struct {
	name        string // with what is counted: "conntrack entries"
	measurement string
	unit        string
	used, limit uint64
	sysctl      string // that sets the limit
	setTo       uint64 // a value that makes room
	unconfirmed bool   // the next look may tell that it is exempt
	exempt      bool   // full by the numbers, but what fills it is not held against the limit
}

// newTable is a table whose sysctl is the limit itself: twice the size makes
// room.
func newTable(name, measurement, unit string, used, limit uint64, sysctl string) table {
	return table{name: name, measurement: measurement, unit: unit, used: used, limit: limit, sysctl: sysctl, setTo: 2 * max(used, limit)}
}

// unlimited is a limit that no node reaches: fs.file-max is 2^63-1 by default,
// and a share of that could not be computed. 0 means "no limit" for one table
// and "none at all" for another, and neither runs full.
func unlimited(limit uint64) bool { return limit == 0 || limit >= 1<<56 }

func (t table) share() float64 {
	if unlimited(t.limit) || t.exempt {
		return 0
	}
	return float64(t.used) / float64(t.limit)
}

func (t table) near(percent int) bool {
	return !unlimited(t.limit) && !t.exempt && t.used*100 >= t.limit*uint64(percent)
}

func (t table) String() string {
	return fmt.Sprintf("%s: %d of %d, %d percent", t.name, t.used, t.limit, t.used*100/t.limit)
}

func (t table) mend() string {
	return fmt.Sprintf("raise %s to %d", t.sysctl, t.setTo)
}

// survey is what one look has found.
type survey struct {
	look         *plugin.Look
	percent      int
	tables       []table
	measurements []plugin.Measurement // beside those of the tables
	failed       []error              // tables that are there and cannot be read
}

func (s *survey) add(t table) { s.tables = append(s.tables, t) }

func (s *survey) fail(format string, args ...any) {
	s.failed = append(s.failed, fmt.Errorf(format, args...))
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	s := &survey{look: l, percent: c.percent}
	s.openFiles()
	s.requests()
	s.terminals()
	s.keys()
	s.mounts(ctx)
	s.conntrack()
	s.neighbours()
	s.inotify(c.inotify)
	return s.verdict(ctx)
}

func (s *survey) verdict(ctx context.Context) plugin.Verdict {
	var near []table
	worst := -1
	for i, t := range s.tables {
		if worst < 0 || t.share() > s.tables[worst].share() {
			worst = i
		}
		if t.near(s.percent) {
			near = append(near, t)
		}
	}
	switch {
	case len(near) == 0 && len(s.failed) > 0:
		s.warn(s.failed[1:])
		return plugin.Unknownf("%v", s.failed[0])
	case worst < 0:
		return plugin.Unknownf("none of the kernel's tables is in %s: mount the host's /proc there, or set --host-root", s.look.Host.Path("/proc"))
	}
	fullest := s.tables[worst]
	v := plugin.Verdict{Measurements: s.measurements}
	for i, t := range s.tables {
		m := plugin.Measurement{Name: t.measurement, Value: float64(t.used), Unit: t.unit, Forecast: i == worst}
		if !unlimited(t.limit) {
			m.Limit = float64(t.limit)
		}
		v.Measurements = append(v.Measurements, m)
	}
	if len(near) == 0 {
		v.Message = fmt.Sprintf("all tables have room; fullest: %s", fullest.fill())
		return v
	}
	s.warn(s.failed)
	s.blame(ctx, &v, fullest, near)
	if !slices.ContainsFunc(near, func(t table) bool { return !t.unconfirmed }) {
		v.Suspicion = fullest.String()
	}
	return v
}

func (s *survey) warn(errs []error) {
	for _, err := range errs {
		s.look.Log.Warn(err)
	}
}

// fill tells how full a table is that may have no limit.
func (t table) fill() string {
	if unlimited(t.limit) {
		return fmt.Sprintf("%s: %d", t.name, t.used)
	}
	return t.String()
}

// blame tells of the tables that are near their limits.
func (s *survey) blame(ctx context.Context, v *plugin.Verdict, fullest table, near []table) {
	v.Status = plugin.Problem
	var others []string
	for _, t := range near {
		v.Details = append(v.Details, t.String()+"; "+t.mend())
		if t.name != fullest.name {
			others = append(others, t.name)
		}
	}
	v.Message = fullest.String() + "; " + fullest.mend()
	holders := s.holders(ctx, fullest)
	for _, h := range holders {
		v.Details = append(v.Details, fmt.Sprintf("%s %.0f", h.Name, h.Amount))
	}
	for i, h := range plugin.Culprits(holders, float64(fullest.used), 3) {
		v.Message += fmt.Sprintf("%s %s %.0f", []string{"; most:", ","}[min(i, 1)], h.Name, h.Amount)
	}
	if len(others) > 0 {
		v.Message += "; also near: " + strings.Join(others, ", ")
	}
}
