// Command dying-cgroups tells of deleted memory cgroups that the kernel cannot
// free: each still holds kernel memory, and old kernels look at all of them
// whenever kubelet asks for memory statistics.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	count int
	slow  time.Duration
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "dying-cgroups",
		Condition: "DyingCgroups",
		Purpose: "A deleted memory cgroup stays in the kernel as long as a page, or on old kernels a piece of slab, is charged to it. Nodes that start many short pods collect thousands; memory goes, and kubelet spends its CPU on statistics.\n" +
			"Counts them, and measures the CPU time of reading the root cgroup's memory.stat.",
		Reads: []string{"/sys/fs/cgroup: cgroup.stat and memory.stat (cgroup v2)",
			"/proc/cgroups and the directories of /sys/fs/cgroup/memory, its memory.stat (cgroup v1)", "/proc/sys/kernel/osrelease"},
		Needs:            "the host's /proc and /sys/fs/cgroup below --host-root; Linux 4.14 with cgroup v2",
		LookAlikes:       "the hundred or so that any busy node has",
		Example:          "--host-root=/host --count=2000",
		FailureThreshold: 2,
		Timeout:          50 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.CountVar(fs, &c.count, "count", 2000, "Problem at this `number` of deleted cgroups that are not freed")
			plugin.DurationVar(fs, &c.slow, "slow", 200*time.Millisecond, "Problem when reading the root's memory.stat takes this `duration` of CPU time")
		},
		Look: c.look,
	})
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	hierarchy, err := cgroup.Hierarchy(l.Host, "memory")
	if err != nil {
		return plugin.Unknownf("%v", err)
	}
	if err := cgroup.NeedRoot(l.Host, hierarchy); err != nil {
		return plugin.Unknownf("%v", err)
	}
	kernel, err := procfs.KernelOf(l.Host)
	if err != nil {
		return plugin.Unknownf("the version of the kernel is not known: %v", err)
	}
	v2 := cgroup.IsV2(hierarchy)
	p, err := c.population(l.Host, hierarchy)
	if err != nil {
		return plugin.Unknownf("deleted cgroups cannot be counted: %v", err)
	}
	cost, err := timeReading(ctx, l.Host, hierarchy+"/memory.stat")
	if errors.Is(err, fs.ErrNotExist) && v2 {
		cost, err = 0, nil // not every kernel gives the root one
	}
	many, slow := p.dying >= c.count, cost >= c.slow
	if err != nil && !many && !slow {
		return plugin.Unknownf("the cost of memory.stat is not known: %v", err)
	}

	v := plugin.Verdict{Measurements: measurements(p, cost, kernel)}
	switch {
	case many:
		v.Message = fmt.Sprintf("%d deleted cgroups are not freed by the kernel", p.dying)
	case p.bound:
		v.Message = fmt.Sprintf("at most %d deleted cgroups wait to be freed", p.dying)
	default:
		v.Message = fmt.Sprintf("%d deleted cgroups wait to be freed", p.dying)
	}
	if !many && !slow {
		return v
	}
	v.Status = plugin.Problem
	reading := fmt.Sprintf("reading the root's memory.stat takes %.3f s of CPU", cost.Seconds())
	v.Details = []string{v.Message, reading}
	switch {
	case many && slow:
		v.Message += ", " + reading
	case slow:
		v.Message = reading + "; " + v.Message
	}
	if v2 {
		parents := parents(l, hierarchy)
		v.Details = append(v.Details, parents...)
		if len(parents) > 0 {
			v.Message += "; most below " + strings.Join(parents[:min(len(parents), 2)], ", ")
		}
	}
	v.Message += "; " + advice(kernel, slow)
	return v
}

// maxIDs is how many memory cgroups there can be before Linux 4.8, the deleted
// ones among them (MEM_CGROUP_ID_MAX of mm/memcontrol.c; since then a deleted
// cgroup gives its number back).
const maxIDs = 65535

func measurements(p population, cost time.Duration, kernel procfs.Kernel) []plugin.Measurement {
	limit := 0.0
	if kernel.Before(4, 8) {
		limit = maxIDs
	}
	m := []plugin.Measurement{{Name: "memory_stat_cpu", Value: cost.Seconds(), Unit: "seconds"}}
	if !p.bound {
		m = append(m, plugin.Measurement{Name: "dying_cgroups", Value: float64(p.dying), Limit: limit, Unit: "cgroups", Forecast: true})
	}
	if p.all > 0 {
		m = append(m, plugin.Measurement{Name: "memory_cgroups", Value: float64(p.all), Limit: limit, Unit: "cgroups"})
	}
	return m
}

// advice names the version of Linux that mends it: 5.2 keeps the sums of
// memory.stat ("mm: memcontrol: fix recursive statistics correctness &
// scalabilty"), 5.3 gives the slab of a deleted cgroup to its parent ("mm:
// memcg/slab: reparent memcg kmem_caches on cgroup removal").
func advice(kernel procfs.Kernel, slow bool) string {
	switch {
	case slow && kernel.Before(5, 2):
		return kernel.String() + " sums all of them at each read: fixed in 5.2"
	case kernel.Before(5, 3):
		return kernel.String() + " keeps those with slab: fixed in 5.3"
	default:
		return "page cache (drop_caches frees it) or tmpfs holds them"
	}
}
