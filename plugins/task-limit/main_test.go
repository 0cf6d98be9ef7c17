package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const (
	uid        = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	uidSystemd = "0a3e4f52_9f6b_4c58_8f0e_6a1b2c3d4e5f"
	other      = "1b4f5063-a07c-4d69-9a1f-7b2c3d4e5f60"
	id         = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
)

// counts are the tasks and the limit of cgroups.
type counts map[string]struct {
	tasks int
	limit string
}

// v1 is a node with cgroupfs and its own hierarchy for pids, v2 one with
// systemd and a single hierarchy.

var v1 = counts{
	"/kubepods":                                {600, "max"},
	"/kubepods/burstable":                      {500, "max"},
	"/kubepods/burstable/pod" + uid:            {500, "max"},
	"/kubepods/burstable/pod" + uid + "/" + id: {490, "max"},
	"/kubepods/pod" + other:                    {100, "max"},
	"/system.slice":                            {90, "max"},
	"/system.slice/containerd.service":         {60, "1000"},
	"/system.slice/kubelet.service":            {30, "max"},
}

var v2 = counts{
	"/kubepods.slice":                          {600, "max"},
	"/kubepods.slice/kubepods-burstable.slice": {500, "max"},
	"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSystemd + ".slice":                                 {500, "max"},
	"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSystemd + ".slice/cri-containerd-" + id + ".scope": {490, "max"},
	"/kubepods.slice/kubepods-pod" + strings.ReplaceAll(other, "-", "_") + ".slice":                                           {100, "max"},
	"/system.slice":                    {90, "max"},
	"/system.slice/containerd.service": {60, "1000"},
	"/system.slice/kubelet.service":    {30, "max"},
}

// with is the same node with other counts for one cgroup.
func (c counts) with(name string, tasks int, limit string) counts {
	c = maps.Clone(c)
	c[name] = struct {
		tasks int
		limit string
	}{tasks, limit}
	return c
}

// node writes a node with that many tasks. The root cgroup has no pids files.
func node(tasks int, hierarchy string, c counts) hosttest.Tree {
	tree := hosttest.Tree{
		"proc/loadavg":                "0.20 0.38 0.41 2/" + fmt.Sprint(tasks) + " 32012\n",
		"proc/sys/kernel/pid_max":     "32768\n",
		"proc/sys/kernel/threads-max": "192730\n",
		"proc/sys/kernel/osrelease":   "6.12.43+deb13-amd64\n",
		"proc/812/status":             "Name:\ttask-limit\nNSpid:\t812\n",
		"proc/self":                   "-> 812",
		"var/log/pods/shop_crawler-5d8f9c7b64-x2x7q_" + uid + "/": "",
	}
	if hierarchy == "/sys/fs/cgroup" {
		tree["sys/fs/cgroup/cgroup.controllers"] = "cpuset cpu io memory hugetlb pids\n"
	} else {
		tree[hierarchy+"/cgroup.procs"] = "1\n"
	}
	for name, n := range c {
		tree[hierarchy+name+"/pids.current"] = fmt.Sprintf("%d\n", n.tasks)
		tree[hierarchy+name+"/pids.max"] = n.limit + "\n"
	}
	return tree
}

func TestTaskLimit(t *testing.T) {
	layouts := map[string]struct {
		hierarchy, kubepods, pod, container string
		counts                              counts
	}{
		"v1": {"/sys/fs/cgroup/pids", "/kubepods", "/kubepods/burstable/pod" + uid, "/kubepods/burstable/pod" + uid + "/" + id, v1},
		"v2": {"/sys/fs/cgroup", "/kubepods.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSystemd + ".slice",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSystemd + ".slice/cri-containerd-" + id + ".scope", v2},
	}
	for name, layout := range layouts {
		tests := []struct {
			name   string
			tasks  int
			counts counts
			status plugin.Status
			words  []string
		}{
			{"room", 744, layout.counts, plugin.OK, []string{"/system.slice/containerd.service has 60 tasks, 6 percent of pids.max 1000"}},
			{"just below", 26213, layout.counts, plugin.OK, []string{"the node has 26213 tasks, 79 percent of kernel.pid_max 32768"}},
			{"node full", 31744, layout.counts.with(layout.pod, 20000, "max").with("/system.slice/containerd.service", 4000, "max"), plugin.Problem,
				[]string{"the node has 31744 tasks, 96 percent of kernel.pid_max 32768; most: pod shop/crawler-5d8f9c7b64-x2x7q 20000, /system.slice/containerd.service 4000"}},
			{"node full of many small ones", 31744, layout.counts, plugin.Problem, []string{"; none of 4 pods and cgroups has 10 percent of them"}},
			{"all pods full", 744, layout.counts.with(layout.kubepods, 600, "700"), plugin.Problem,
				[]string{layout.kubepods + " has 600 tasks, 85 percent of pids.max 700; most: pod shop/crawler-5d8f9c7b64-x2x7q 500, pod " + other + " 100"}},
			{"service full", 744, layout.counts.with("/system.slice/containerd.service", 950, "1000"), plugin.Problem,
				[]string{"/system.slice/containerd.service has 950 tasks, 95 percent of pids.max 1000; most: /system.slice/containerd.service 950"}},
			{"service over a limit of 0", 744, layout.counts.with("/system.slice/kubelet.service", 30, "0"), plugin.Problem, []string{"/system.slice/kubelet.service has 30 tasks"}},
			{"pod at its own limit", 744, layout.counts.with(layout.pod, 500, "500"), plugin.OK, nil},
			{"container at its own limit", 744, layout.counts.with(layout.container, 490, "490"), plugin.OK, nil},
		}
		for _, tt := range tests {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				l := plugintest.Look(t, node(tt.tasks, layout.hierarchy, tt.counts).Open(t))
				plugintest.Want(t, (&check{percent: 80}).look(context.Background(), l), tt.status, tt.words...)
			})
		}
	}
}

func TestThreadsMax(t *testing.T) {
	tree := node(744, "/sys/fs/cgroup", v2)
	tree["proc/sys/kernel/threads-max"] = "800\n"
	l := plugintest.Look(t, tree.Open(t))
	v := (&check{percent: 80}).look(context.Background(), l)
	plugintest.Want(t, v, plugin.Problem, "the node has 744 tasks, 93 percent of kernel.threads-max 800")
	if m := v.Measurements[0]; m.Value != 744 || m.Limit != 800 || !m.Forecast {
		t.Errorf("%+v", m)
	}
}

// Since Linux 6.14 kernel.pid_max cannot be read from a container: what the limit is at least tells that there is room.
func TestForeignNamespace(t *testing.T) {
	const service = "/system.slice/containerd.service"
	for _, tt := range []struct {
		name    string
		tasks   int
		counts  counts
		cpus    string
		threads string
		pid     int // of the check, on the host
		status  plugin.Status
		want    string
	}{
		{"room below the kernel's default", 26000, v2, "0-3", "192730", 812, plugin.OK, "the node has 26000 tasks, 79 percent of the kernel's default of kernel.pid_max, 32768"},
		{"room below that of many CPUs", 50000, v2, "0-63", "192730", 812, plugin.OK, "the kernel's default of kernel.pid_max, 65536"},
		{"room below a PID that was given", 31744, v2, "0-3", "192730", 100000, plugin.OK, "the node has 31744 tasks, 31 percent of the highest PID seen, 100000"},
		{"no room that is sure", 31744, v2, "0-3", "192730", 812, plugin.Unknown,
			"the node has 31744 tasks, 96 percent of the kernel's default of kernel.pid_max, 32768: since Linux 6.14 kernel.pid_max of the host cannot be read from another PID namespace: run with hostPID: true, or tell it with --pid-max"},
		{"nor below a PID that was given", 31744, v2, "0-3", "192730", 33000, plugin.Unknown, "the highest PID seen, 33000"},
		{"a full service beside it", 31744, v2.with(service, 950, "1000"), "0-3", "192730", 812, plugin.Problem, service + " has 950 tasks, 95 percent of pids.max 1000"},
		{"threads-max is less", 31744, v2, "0-3", "32000", 812, plugin.Problem, "the node has 31744 tasks, 99 percent of kernel.threads-max 32000"},
		{"kubelet knows the limit", 31744, v2.with("/kubepods.slice", 600, "32768"), "0-3", "192730", 812, plugin.Problem,
			"the node has 31744 tasks, 96 percent of kubelet's limit for all pods, 32768; none of 4 pods"},
		{"kubelet knows a lower one", 7000, v2.with("/kubepods.slice", 600, "8192"), "0-3", "192730", 812, plugin.Problem, "the node has 7000 tasks, 85 percent of kubelet's limit for all pods, 8192"},
		{"kubelet knows a higher one", 31744, v2.with("/kubepods.slice", 600, "4194304"), "0-3", "192730", 812, plugin.OK, "the node has 31744 tasks, 16 percent of kernel.threads-max 192730"},
		{"kubelet below a cgroup of its own", 7000, v2.with("/kubelet.slice/kubelet-kubepods.slice", 600, "8192"), "0-3", "192730", 812, plugin.Problem, "kubelet's limit for all pods, 8192"},
		{"raised since kubelet started", 7000, v2.with("/kubepods.slice", 600, "8192"), "0-3", "192730", 20000, plugin.OK, "the highest PID seen, 20000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := node(tt.tasks, "/sys/fs/cgroup", tt.counts)
			tree["proc/sys/kernel/osrelease"] = "6.18.0\n"
			tree["proc/sys/kernel/pid_max"] = "4194304\n"
			tree["proc/sys/kernel/threads-max"] = tt.threads + "\n"
			tree["sys/devices/system/cpu/possible"] = tt.cpus + "\n"
			tree["proc/812/status"] = fmt.Sprintf("Name:\ttask-limit\nNSpid:\t%d\t23\n", tt.pid)
			h := tree.Open(t)
			plugintest.Want(t, (&check{percent: 80}).look(context.Background(), plugintest.Look(t, h)), tt.status, tt.want)
			told := (&check{percent: 80, pidMax: 4096}).look(context.Background(), plugintest.Look(t, h))
			plugintest.Want(t, told, plugin.Problem, "kernel.pid_max 4096")
		})
	}
}

// Names that others chose are made safe.
func TestUnsafeNames(t *testing.T) {
	tree := node(744, "/sys/fs/cgroup", v2.with("/evil\x1b[31m%s\n", 95, "100"))
	l := plugintest.Look(t, tree.Open(t))
	plugintest.Want(t, (&check{percent: 80}).look(context.Background(), l), plugin.Problem, "/evil?[31m?s  has 95 tasks")
}

func TestDetails(t *testing.T) {
	c := v2.with("/system.slice/containerd.service", 950, "1000")
	for i := range 20 {
		c = c.with(fmt.Sprintf("/system.slice/s%02d.service", i), 10+i, "max")
	}
	l := plugintest.Look(t, node(31744, "/sys/fs/cgroup", c).Open(t))
	v := (&check{percent: 80}).look(context.Background(), l)
	plugintest.Want(t, v, plugin.Problem)
	details := strings.Join(v.Details, "\n")
	for _, want := range []string{"/system.slice/containerd.service has 950 tasks of pids.max 1000", "the node has 31744 tasks of kernel.pid_max 32768", "/system.slice/s19.service 29"} {
		if !strings.Contains(details, want) {
			t.Errorf("the details do not say %q:\n%s", want, details)
		}
	}
	if len(v.Details) != 2+10 {
		t.Errorf("%d details, want both limits and ten consumers", len(v.Details))
	}
}

func TestUnknown(t *testing.T) {
	without := func(paths ...string) hosttest.Tree {
		tree := node(744, "/sys/fs/cgroup", v2)
		for _, path := range paths {
			delete(tree, path)
		}
		return tree
	}
	garbage := func(path string) hosttest.Tree {
		tree := node(744, "/sys/fs/cgroup", v2)
		tree[path] = "\xff%s\x00\n"
		return tree
	}
	for _, tt := range []struct {
		tree hosttest.Tree
		want string
	}{
		{hosttest.Tree{}, "the limit of tasks is not known: "},
		{without("proc/sys/kernel/pid_max"), "the limit of tasks is not known: "},
		{without("proc/loadavg"), "the number of tasks is not known: "},
		{without("sys/fs/cgroup/cgroup.controllers"), "744 of 32768 tasks, but the limits of services are not known: no cgroups with the pids controller: mount the host's /sys/fs/cgroup"},
		{garbage("proc/loadavg"), "the number of tasks is not known: "},
		{garbage("proc/sys/kernel/threads-max"), "the limit of tasks is not known: "},
		{garbage("/sys/fs/cgroup/system.slice/containerd.service/pids.max"), "but the limits of services are not known: "},
	} {
		plugintest.Want(t, (&check{percent: 80}).look(context.Background(), plugintest.Look(t, tt.tree.Open(t))), plugin.Unknown, tt.want)
	}
}

// What the node's own files show is told although cgroups cannot be read.
func TestNodeFullWithoutCgroups(t *testing.T) {
	tree := node(31744, "/sys/fs/cgroup", v2)
	delete(tree, "sys/fs/cgroup/cgroup.controllers")
	plugintest.Want(t, (&check{percent: 80}).look(context.Background(), plugintest.Look(t, tree.Open(t))), plugin.Problem, "the node has 31744 tasks")
}
