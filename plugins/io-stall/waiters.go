package main

import (
	"context"
	"fmt"
	"path"
	"strconv"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
	"npd-plugins/internal/waits"
)

// maxWaiters is how many are told on stderr.
const maxWaiters = 5

// waiters names who waits most for IO, as far as it can be told: the cgroups
// with the highest pressure, else the processes with most tasks in
// uninterruptible sleep.
func waiters(ctx context.Context, l *plugin.Look) []string {
	if names := groups(l); len(names) > 0 {
		return names
	}
	return processes(ctx, l)
}

// groups are the cgroups that have no others below, which on v2 are those with
// processes. On v1 there is no pressure of the cgroups that pods are in.
func groups(l *plugin.Look) []string {
	const v2 = "/sys/fs/cgroup"
	if _, err := l.Host.Stat(v2 + "/cgroup.controllers"); err != nil {
		return nil
	}
	shares := map[string]float64{}
	err := cgroup.Walk(l.Host, v2, func(name string) bool {
		delete(shares, path.Dir(name))
		if p, err := procfs.ReadPressure(l.Host, v2+name+"/io.pressure"); err == nil {
			shares[name] = p.Some.Avg60
		}
		return true
	})
	if err != nil {
		l.Log.Infof("the pressure of some cgroups is not known: %v", err)
	}
	var all []plugin.Consumer
	for name, share := range shares {
		all = append(all, plugin.Consumer{Name: name, Amount: share})
	}
	var told []string
	for _, c := range plugin.Culprits(all, 100, maxWaiters) {
		owner := l.Owner(cgroup.OwnerOf(c.Name))
		if owner == "" {
			owner = "cgroup " + plugin.Safe(c.Name, 80)
		}
		told = append(told, fmt.Sprintf("%s, %.0f percent", owner, c.Amount))
	}
	return told
}

func processes(ctx context.Context, l *plugin.Look) []string {
	tasks := map[int]int{} // by pid
	total := 0
	err := procfs.EachBlocked(ctx, l.Host, func(pid int, s procfs.Stat) {
		if waits.Of(l.Host, procfs.Thread(l.Host, pid, s.PID), s.State).Frozen {
			return
		}
		tasks[pid]++
		total++
	})
	if err != nil {
		l.Log.Infof("who waits is not known: %v", err)
	}
	var all []plugin.Consumer
	for pid, blocked := range tasks {
		all = append(all, plugin.Consumer{Name: strconv.Itoa(pid), Amount: float64(blocked)})
	}
	var told []string
	for _, c := range plugin.Culprits(all, float64(total), maxWaiters) {
		pid, _ := strconv.Atoi(c.Name)
		told = append(told, fmt.Sprintf("%s, %.0f of %s", l.Process(pid), c.Amount, plugin.Count(total, "blocked task")))
	}
	return told
}
