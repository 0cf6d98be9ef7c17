// Command zombies tells of processes that have ended and that their parent
// does not reap. Each keeps its PID, and the node runs out of PIDs.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	count int
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "zombies",
		Condition: "ZombieProcesses",
		Purpose: "Processes that have ended and stay unreaped keep their PIDs until nothing on the node can start any more.\n" +
			"Counts those that were zombies at the last look too, and names the parents that do not wait for them.",
		Reads:            []string{"/proc/*/stat", "/proc/PID/cgroup of the parents", "/proc/loadavg, /proc/sys/kernel/{pid_max,threads-max}", "/var/log/pods (names of pods)"},
		Needs:            "the host's /proc below --host-root, without hostPID; a --state-dir that lasts between runs",
		LookAlikes:       "zombies that are reaped before the next look; a process whose main thread ended and whose other threads run on",
		Example:          "--host-root=/host --count=50",
		FailureThreshold: 1,
		Timeout:          8 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.CountVar(fs, &c.count, "count", 50, "Problem at this `number` of zombies seen at two looks")
		},
		Look: c.look,
	})
}

// zombie identifies a process: {pid, start time in clock ticks}.
type zombie [2]uint64

// maxRemembered bounds the state file. More zombies than these are a Problem
// whether or not each of them is recognised.
const maxRemembered = 20000

func (c *check) look(_ context.Context, l *plugin.Look) plugin.Verdict {
	parents := map[zombie]int{} // pid of the parent
	err := procfs.EachStat(l.Host, func(s procfs.Stat) bool {
		if s.State == 'Z' && s.Threads <= 1 {
			parents[zombie{uint64(s.PID), s.Start}] = s.PPID
		}
		return true
	})
	if err != nil {
		return plugin.Unknownf("cannot list processes: %v", err)
	}

	var last []zombie
	l.Recall(&last)
	remembered := slices.Collect(maps.Keys(parents))
	l.Remember(remembered[:min(len(remembered), maxRemembered)])

	owned := map[int]int{} // zombies that stay, by parent
	stay := 0
	for _, z := range last {
		if parent, ok := parents[z]; ok {
			owned[parent]++
			stay++
		}
	}
	limit, err := procfs.TaskLimit(l.Host, 0)
	if err != nil {
		l.Log.Infof("the share of the task limit is not known: %v", err)
	}
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "zombies", Value: float64(stay), Limit: float64(limit.Tasks), Unit: "processes", Forecast: true},
		{Name: "zombies_new", Value: float64(len(parents) - stay), Unit: "processes"},
	}}
	if stay < c.count {
		if len(parents) >= c.count {
			v.Suspicion = plugin.Count(len(parents), "zombie")
		}
		v.Message = fmt.Sprintf("%d zombies stay unreaped, %d are new since the last look", stay, len(parents)-stay)
		return v
	}
	v.Status = plugin.Problem
	v.Message, v.Details = blame(l, owned, stay)
	if limit.Tasks > 0 {
		v.Message += fmt.Sprintf("; they take %.1f percent of the %d tasks (%s)", 100*float64(stay)/float64(limit.Tasks), limit.Tasks, limit.Sysctl)
	}
	return v
}

// blame names the parents that own most. The pod is that of the parent's
// cgroup: on cgroup v1 a zombie itself is in "/".
func blame(l *plugin.Look, owned map[int]int, stay int) (message string, details []string) {
	pids := slices.SortedFunc(maps.Keys(owned), func(a, b int) int {
		return cmp.Or(cmp.Compare(owned[b], owned[a]), cmp.Compare(a, b))
	})
	for _, pid := range pids[:min(len(pids), 10)] {
		details = append(details, fmt.Sprintf("%s owns %s", l.Process(pid), plugin.Count(owned[pid], "zombie")))
	}
	message = fmt.Sprintf("%d zombies stay unreaped; ", stay)
	if !plugin.IsCulprit(float64(owned[pids[0]]), float64(stay)) {
		return message + fmt.Sprintf("none of %d parents owns 10 percent", len(pids)), details
	}
	return message + fmt.Sprintf("%s owns %d", l.Process(pids[0]), owned[pids[0]]), details
}
