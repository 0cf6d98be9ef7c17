package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const (
	uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	id  = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
)

// stat is a stat line as the kernel writes it.
func stat(pid int, comm string, state byte, parent, threads, start int) string {
	return fmt.Sprintf("%d (%s) %c %d 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 %d 0 %d 0 0 18446744073709551615 0 0\n", pid, comm, state, parent, threads, start)
}

// node is a node with a worker that is pid 100, in a pod.
func node() hosttest.Tree {
	return hosttest.Tree{
		"proc/loadavg":                          "0.20 0.38 0.41 2/744 32012\n",
		"proc/sys/kernel/pid_max":               "32768\n",
		"proc/sys/kernel/threads-max":           "192730\n",
		"proc/1/stat":                           stat(1, "systemd", 'S', 0, 1, 1),
		"proc/1/cgroup":                         "12:pids:/init.scope\n0::/init.scope\n",
		"proc/100/stat":                         stat(100, "worker", 'S', 1, 4, 500),
		"proc/100/cgroup":                       "12:pids:/kubepods/burstable/pod" + uid + "/" + id + "\n0::/\n",
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
}

// add makes n zombies of a parent. Their own cgroup is the root, as on v1.
func add(tree hosttest.Tree, first, n, parent, start int) hosttest.Tree {
	for pid := first; pid < first+n; pid++ {
		tree[fmt.Sprintf("proc/%d/stat", pid)] = stat(pid, "sh", 'Z', parent, 1, start)
		tree[fmt.Sprintf("proc/%d/cgroup", pid)] = "12:pids:/\n0::/\n"
	}
	return tree
}

func TestZombies(t *testing.T) {
	tests := []struct {
		name          string
		first, second hosttest.Tree
		status        plugin.Status
		words         []string
	}{
		{"none", node(), node(), plugin.OK, []string{"0 zombies stay unreaped, 0 are new"}},
		{"they stay", add(node(), 1000, 60, 100, 900), add(node(), 1000, 60, 100, 900), plugin.Problem,
			[]string{"60 zombies stay unreaped; worker (pid 100) of pod shop/cart-0 owns 60; they take 0.2 percent of the 32768 tasks (kernel.pid_max)"}},
		{"as many as allowed", add(node(), 1000, 49, 100, 900), add(node(), 1000, 49, 100, 900), plugin.OK, []string{"49 zombies stay unreaped, 0 are new"}},
		{"reaped in time", add(node(), 1000, 60, 100, 900), add(node(), 2000, 60, 100, 950), plugin.OK, []string{"0 zombies stay unreaped, 60 are new"}},
		{"reaped in time, the pids used again", add(node(), 1000, 60, 100, 900), add(node(), 1000, 60, 100, 950), plugin.OK, []string{"0 zombies stay unreaped, 60 are new"}},
		{"all reaped", add(node(), 1000, 60, 100, 900), node(), plugin.OK, []string{"0 zombies stay unreaped, 0 are new"}},
		{"several parents", add(add(node(), 1000, 40, 100, 900), 2000, 45, 1, 900), add(add(node(), 1000, 40, 100, 900), 2000, 45, 1, 900), plugin.Problem,
			[]string{"85 zombies stay unreaped; systemd (pid 1) owns 45"}},
		{"a parent that has gone meanwhile", add(node(), 1000, 60, 555, 900), add(node(), 1000, 60, 555, 900), plugin.Problem, []string{"pid 555 owns 60"}},
		{"main thread ended, others run", withThreads(), withThreads(), plugin.OK, []string{"0 zombies stay unreaped, 0 are new"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := plugintest.Look(t, tt.first.Open(t))
			c := &check{count: 50}
			plugintest.Want(t, c.look(context.Background(), first), plugin.OK, "0 zombies stay unreaped")
			second := first.Next()
			second.Host = tt.second.Open(t)
			plugintest.Want(t, c.look(context.Background(), second), tt.status, tt.words...)
		})
	}
}

// withThreads are 60 processes whose main thread has ended and whose other
// threads run on: nobody can reap them, and nobody must.
func withThreads() hosttest.Tree {
	tree := node()
	for pid := 1000; pid < 1060; pid++ {
		tree[fmt.Sprintf("proc/%d/stat", pid)] = stat(pid, "java", 'Z', 1, 20, 900)
	}
	return tree
}

func TestDetailsNameParents(t *testing.T) {
	tree := node()
	for parent := 100; parent < 112; parent++ {
		tree[fmt.Sprintf("proc/%d/stat", parent)] = stat(parent, "w%\x1b[31m", 'S', 1, 1, 500)
		add(tree, parent*100, 10+parent-100, parent, 900)
	}
	h := tree.Open(t)
	first := plugintest.Look(t, h)
	c := &check{count: 50}
	c.look(context.Background(), first)
	v := c.look(context.Background(), first.Next())
	plugintest.Want(t, v, plugin.Problem, "186 zombies stay", "(pid 111)", "owns 21")
	if len(v.Details) != 10 || !strings.HasSuffix(v.Details[9], "owns 12 zombies") || !strings.HasPrefix(v.Details[0], "w??[31m (pid 111)") {
		t.Errorf("want the ten parents that own most: %q", v.Details)
	}
}

func TestMeasurements(t *testing.T) {
	first := plugintest.Look(t, add(node(), 1000, 60, 100, 900).Open(t))
	c := &check{count: 50}
	c.look(context.Background(), first)
	second := first.Next()
	second.Host = add(add(node(), 1000, 60, 100, 900), 2000, 7, 100, 950).Open(t)
	m := c.look(context.Background(), second).Measurements
	if m[0].Value != 60 || m[0].Limit != 32768 || m[1].Value != 7 || m[1].Limit != 0 {
		t.Errorf("%+v; want 60 zombies that stay, of 32768, and 7 new ones", m)
	}
}

func TestWithoutTaskLimit(t *testing.T) {
	tree := add(node(), 1000, 60, 100, 900)
	delete(tree, "proc/sys/kernel/pid_max")
	first := plugintest.Look(t, tree.Open(t))
	c := &check{count: 50}
	c.look(context.Background(), first)
	v := c.look(context.Background(), first.Next())
	plugintest.Want(t, v, plugin.Problem, "worker (pid 100) of pod shop/cart-0 owns 60")
	if strings.Contains(v.Message, "they take") {
		t.Errorf("a share of a limit that is not known: %s", v.Message)
	}
}

func TestSuspicion(t *testing.T) {
	c := &check{count: 50}
	for _, tt := range []struct {
		zombies int
		words   string
	}{
		{60, "60 zombies"},
		{49, ""},
	} {
		l := plugintest.Look(t, add(node(), 1000, tt.zombies, 100, 900).Open(t))
		plugintest.WantSuspicion(t, c.look(context.Background(), l), tt.words)
	}
}

func TestUnknown(t *testing.T) {
	for name, tt := range map[string]struct {
		tree hosttest.Tree
		want string
	}{
		"no /proc":              {hosttest.Tree{}, "cannot list processes: "},
		"an empty /proc":        {hosttest.Tree{"proc/": ""}, "mount the host's /proc there"},
		"not what proc(5) says": {hosttest.Tree{"proc/1/stat": "\xff\x00garbage"}, "1 stat files in "},
	} {
		l := plugintest.Look(t, tt.tree.Open(t))
		t.Log(name)
		plugintest.Want(t, (&check{count: 50}).look(context.Background(), l), plugin.Unknown, tt.want)
	}
}

// Of many parents with a few zombies each, none is to blame.
func TestManyParents(t *testing.T) {
	owned := map[int]int{}
	for pid := range 20 {
		owned[1000+pid] = 5
	}
	message, details := blame(plugintest.Look(t, hosttest.Tree{}.Open(t)), owned, 100)
	if message != "100 zombies stay unreaped; none of 20 parents owns 10 percent" || len(details) != 10 {
		t.Errorf("%q, %q", message, details)
	}
}
