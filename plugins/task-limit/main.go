// Command task-limit tells that the tasks of the node, or of a service of it,
// come near the limit beyond which no process and no thread can start.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"path"
	"strings"
	"time"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	percent int
	pidMax  int
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "task-limit",
		Condition: "TasksNearLimit",
		Purpose: "Beyond its limit of tasks (processes and threads) a node starts nothing any more: \"pthread_create failed\", \"fork/exec: resource temporarily unavailable\".\n" +
			"Compares all tasks with the smaller of kernel.pid_max and kernel.threads-max, and each cgroup that is not a pod's own (kubepods, kubelet.service, containerd.service) with its pids.max.",
		Reads: []string{"/proc/loadavg (4th field)", "/proc/sys/kernel/{pid_max,threads-max}", "/sys/fs/cgroup: pids.max and pids.current",
			"/proc/self/status and /sys/devices/system/cpu/possible, where pid_max cannot be read", "/var/log/pods (names of pods)"},
		Needs:            "the host's /proc and /sys below --host-root; since Linux 6.14 hostPID or --pid-max to know kernel.pid_max exactly",
		LookAlikes:       "a pod or container at its own limit of PIDs: that is its own problem",
		Example:          "--host-root=/host --percent=80",
		FailureThreshold: 2,
		Timeout:          8 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.PercentVar(fs, &c.percent, "percent", 80, "Problem at this `share` of a limit, in percent")
			plugin.OptionalCountVar(fs, &c.pidMax, "pid-max", "the host's kernel.pid_max, a `number`, where it cannot be read: Linux 6.14 and later without hostPID")
		},
		Look: c.look,
	})
}

// usage is how much of one limit is used.
type usage struct {
	tasks, limit uint64
	what         string // "the node's tasks", or the cgroup
	setting      string // that holds the limit
	cgroup       string // below which the consumers are; "/" for the node
}

func (u usage) percent() uint64 { return u.tasks * 100 / u.limit }

func (c *check) look(_ context.Context, l *plugin.Look) plugin.Verdict {
	limit, err := procfs.TaskLimit(l.Host, uint64(c.pidMax))
	foreign := errors.Is(err, procfs.ErrForeignNamespace)
	if err != nil && !foreign {
		return plugin.Unknownf("the limit of tasks is not known: %v", err)
	}
	tasks, err := procfs.Tasks(l.Host)
	if err != nil {
		return plugin.Unknownf("the number of tasks is not known: %v", err)
	}
	hierarchy, err := cgroup.Hierarchy(l.Host, "pids")
	var limited []usage
	if err == nil {
		limited, err = limitedCgroups(l, hierarchy)
	}
	certain := true
	if foreign {
		limit, certain = leastLimit(l.Host, limit, limited)
	}
	node := usage{uint64(tasks), limit.Tasks, "the node", limit.Sysctl, "/"}
	unsure := !certain && node.percent() >= uint64(c.percent)
	worst := node
	if unsure {
		worst = usage{limit: 1}
	}
	for _, u := range limited {
		if u.percent() > worst.percent() {
			worst = u
		}
	}
	if unsure && worst.percent() < uint64(c.percent) {
		return plugin.Unknownf("the node has %d tasks, %d percent of %s %d: %v: run with hostPID: true, or tell it with --pid-max",
			node.tasks, node.percent(), node.setting, node.limit, procfs.ErrForeignNamespace)
	}
	if err != nil && worst.percent() < uint64(c.percent) {
		return plugin.Unknownf("%d of %d tasks, but the limits of services are not known: %v", node.tasks, node.limit, err)
	}
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "tasks", Value: float64(node.tasks), Limit: float64(node.limit), Unit: "tasks", Forecast: worst == node && certain},
	}}
	if worst != node {
		v.Measurements = append(v.Measurements, plugin.Measurement{
			Name: "tasks_fullest_cgroup", Value: float64(worst.tasks), Limit: float64(worst.limit), Unit: "tasks"})
	}
	v.Message = fmt.Sprintf("%s has %d tasks, %d percent of %s %d", worst.what, worst.tasks, worst.percent(), worst.setting, worst.limit)
	if worst.percent() < uint64(c.percent) {
		return v
	}
	v.Status = plugin.Problem
	if !unsure {
		limited = append(limited, node)
	}
	for _, u := range limited {
		if u.percent() >= uint64(c.percent) {
			v.Details = append(v.Details, fmt.Sprintf("%s has %d tasks of %s %d", u.what, u.tasks, u.setting, u.limit))
		}
	}
	if hierarchy != "" {
		consumers := consumers(l, hierarchy, worst.cgroup)
		for _, c := range plugin.Culprits(consumers, 0, 10) {
			v.Details = append(v.Details, fmt.Sprintf("%s %.0f", c.Name, c.Amount))
		}
		culprits := plugin.Culprits(consumers, float64(worst.tasks), 3)
		for i, c := range culprits {
			v.Message += fmt.Sprintf("%s %s %.0f", []string{"; most:", ","}[min(i, 1)], c.Name, c.Amount)
		}
		if len(culprits) == 0 && len(consumers) > 0 {
			v.Message += fmt.Sprintf("; none of %d pods and cgroups has 10 percent of them", len(consumers))
		}
	}
	return v
}

// leastLimit is what the limit of the node is at least, where kernel.pid_max
// cannot be read; threads is kernel.threads-max. A node with room below that has
// room, whatever the limit is.
//
// Kubelet reads kernel.pid_max and kernel.threads-max on the host, and gives the
// smaller, less what is reserved, to the cgroup of all pods
// (pkg/kubelet/stats/pidlimit, pkg/kubelet/cm/node_container_manager_linux.go):
// that is certain. Without it what the kernel sets at boot is assumed.
func leastLimit(h *host.Root, threads procfs.Limit, limited []usage) (least procfs.Limit, certain bool) {
	var pods uint64
	for _, u := range limited {
		if name := path.Base(u.cgroup); strings.HasSuffix(name, "kubepods") || strings.HasSuffix(name, "kubepods.slice") { // behind kubelet's cgroupRoot, if any
			pods = max(pods, u.limit)
		}
	}
	own := procfs.OwnPID(h)
	switch {
	case pods > own:
		least, certain = procfs.Limit{Tasks: pods, Sysctl: "kubelet's limit for all pods,"}, true
	case pods == 0 && procfs.DefaultPIDMax(h) > own:
		least.Tasks, least.Sysctl = procfs.DefaultPIDMax(h), "the kernel's default of kernel.pid_max,"
	default:
		least.Tasks, least.Sysctl = own, "the highest PID seen,"
	}
	if threads.Tasks <= least.Tasks {
		return threads, true
	}
	return least, certain
}

// limitedCgroups lists the cgroups with a pids.max that are not a pod's or a
// container's own.
func limitedCgroups(l *plugin.Look, hierarchy string) ([]usage, error) {
	var found []usage
	var broken error
	read := func(file string) (n uint64, ok bool) {
		n, ok, err := l.Host.ReadUint(hierarchy + file)
		if err != nil && !host.Gone(err) {
			broken = err
		}
		return n, ok
	}
	err := cgroup.Walk(l.Host, hierarchy, func(name string) bool {
		if cgroup.OwnerOf(name) != (cgroup.Owner{}) {
			return false
		}
		if limit, ok := read(name + "/pids.max"); ok { // the root has none
			if tasks, ok := read(name + "/pids.current"); ok {
				found = append(found, usage{tasks, max(limit, 1), plugin.Safe(name, 70), "pids.max", name})
			}
		}
		return true
	})
	return found, cmp.Or(err, broken)
}

// consumers are the cgroups below a cgroup, or the pods, that have tasks of their own.
func consumers(l *plugin.Look, hierarchy, below string) (all []plugin.Consumer) {
	own := map[string]int64{} // tasks of the cgroup and not of its children
	cgroup.Walk(l.Host, hierarchy+strings.TrimSuffix(below, "/"), func(name string) bool {
		name = path.Join(below, name)
		tasks, ok, err := l.Host.ReadUint(hierarchy + name + "/pids.current")
		if err == nil && ok {
			own[name] += int64(tasks)
			if name != below {
				own[path.Dir(name)] -= int64(tasks)
			}
		}
		return cgroup.OwnerOf(name).Container == ""
	})
	byName := map[string]int64{}
	for name, tasks := range own {
		label := l.Owner(cgroup.OwnerOf(name))
		if label == "" {
			label = plugin.Safe(name, 60)
		}
		if name != "/" && tasks > 0 {
			byName[label] += tasks
		}
	}
	for name, tasks := range byName {
		all = append(all, plugin.Consumer{Name: name, Amount: float64(tasks)})
	}
	return all
}
