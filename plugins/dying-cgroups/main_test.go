package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"

// defaults are those of the flags.
var defaults = check{count: 2000, slow: 200 * time.Millisecond}

// cgroups is /proc/cgroups as Linux 3.10 to 6.18 print it.
func cgroups(memory int) string {
	return fmt.Sprintf("#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t14\t1\ncpu\t5\t140\t1\nmemory\t4\t%d\t1\npids\t8\t140\t1\n", memory)
}

// v1 is a node with that many memory cgroups, 7 of which are directories.
func v1(release string, memory int) hosttest.Tree {
	const dir = "sys/fs/cgroup/memory/"
	return hosttest.Tree{
		"proc/cgroups":                   cgroups(memory),
		"proc/sys/kernel/osrelease":      release + "\n",
		dir + "cgroup.procs":             "1\n",
		dir + "release_agent":            "\n",
		dir + "memory.stat":              "cache 4096\nrss 0\n",
		dir + "kubepods/pod" + uid + "/": "",
		dir + "kubepods/burstable/a/":    "",
		dir + "system.slice/x.service/":  "",
	}
}

// v2 is a node with cgroup v2 whose root says that of its deleted cgroups.
func v2(release, dying string) hosttest.Tree {
	const dir = "sys/fs/cgroup/"
	return hosttest.Tree{
		"proc/sys/kernel/osrelease": release + "\n",
		dir + "cgroup.controllers":  "cpuset cpu io memory hugetlb pids\n",
		dir + "cgroup.stat":         dying,
		dir + "memory.stat":         "anon 4096\nfile 0\n",
	}
}

// stat is cgroup.stat as Linux 4.14 to 6.11 print it.
func stat(dying int) string {
	return fmt.Sprintf("nr_descendants 140\nnr_dying_descendants %d\n", dying)
}

// statSubsystems is cgroup.stat as Linux 6.12 prints it.
func statSubsystems(dying int) string {
	return fmt.Sprintf("nr_descendants 140\nnr_subsys_cpuset 12\nnr_subsys_memory 140\nnr_dying_descendants %d\nnr_dying_subsys_cpuset 0\nnr_dying_subsys_memory %d\n", dying, dying)
}

func look(t *testing.T, c check, tree hosttest.Tree) plugin.Verdict {
	t.Helper()
	return c.look(context.Background(), plugintest.Look(t, tree.Open(t)))
}

func TestV1(t *testing.T) {
	for _, tt := range []struct {
		release string
		memory  int
		status  plugin.Status
		words   []string
	}{
		{"4.19.0-27-amd64", 140, plugin.OK, []string{"at most 13", " deleted cgroups wait"}},
		{"4.19.0-27-amd64", 2006, plugin.OK, []string{"1999 deleted cgroups wait"}},
		{"4.19.0-27-amd64", 2007, plugin.Problem, []string{"2000 deleted cgroups are not freed by the kernel", "Linux 4.19 keeps those with slab: fixed in 5.3"}},
		{"3.10.0-1160.el7.x86_64", 40007, plugin.Problem, []string{"40000 deleted cgroups", "Linux 3.10 keeps"}},
		{"6.18.44", 3007, plugin.Problem, []string{"3000 deleted cgroups", "page cache (drop_caches frees it) or tmpfs holds them"}},
	} {
		v := look(t, defaults, v1(tt.release, tt.memory))
		plugintest.Want(t, v, tt.status, tt.words...)
	}
}

func TestV2(t *testing.T) {
	for _, tt := range []struct {
		release, stat string
		status        plugin.Status
		words         []string
	}{
		{"5.10.0-36-cloud-amd64", stat(93), plugin.OK, []string{"93 deleted cgroups wait to be freed"}},
		{"5.10.0-36-cloud-amd64", stat(1999), plugin.OK, nil},
		{"5.10.0-36-cloud-amd64", stat(2000), plugin.Problem, []string{"2000 deleted cgroups are not freed by the kernel", "most below / 2000", "or tmpfs holds them"}},
		{"5.2.0", stat(2000), plugin.Problem, []string{"Linux 5.2 keeps those with slab: fixed in 5.3"}},
		{"6.12.43+deb13-cloud-amd64", statSubsystems(0), plugin.OK, []string{"0 deleted cgroups"}},
		{"6.12.43+deb13-cloud-amd64", statSubsystems(3001), plugin.Problem, []string{"3001 deleted"}},
	} {
		v := look(t, defaults, v2(tt.release, tt.stat))
		plugintest.Want(t, v, tt.status, tt.words...)
	}
}

// The guests had 31 deleted cgroups, the machine with cgroup v1 had 64 in all.
func TestCaptured(t *testing.T) {
	for kernel, want := range map[string]string{"5.10": "31 deleted", "6.1": "31 deleted", "6.12": "31 deleted", "6.18": "59 deleted"} {
		tree := hosttest.Captured(t, "testdata/"+kernel+".txt")
		v := look(t, defaults, tree)
		plugintest.Want(t, v, plugin.OK, "deleted cgroups wait to be freed")
		few := check{count: 31, slow: defaults.slow}
		plugintest.Want(t, look(t, few, tree), plugin.Problem, want+" cgroups are not freed")
	}
}

func TestNumbers(t *testing.T) {
	find := func(v plugin.Verdict, name string) *plugin.Measurement {
		for _, m := range v.Measurements {
			if m.Name == name {
				return &m
			}
		}
		return nil
	}
	v := look(t, defaults, v1("3.10.0", 40007))
	if m := find(v, "dying_cgroups"); m == nil || m.Value != 40000 || m.Limit != 65535 || !m.Forecast {
		t.Errorf("%+v", m)
	}
	v = look(t, defaults, v1("3.10.0", 140))
	if m := find(v, "memory_cgroups"); m == nil || m.Value != 140 || find(v, "dying_cgroups") != nil {
		t.Errorf("%+v: want no number of dying cgroups where only a bound is known", v.Measurements)
	}
	v = look(t, defaults, v2("5.10.0", stat(93)))
	if m := find(v, "dying_cgroups"); m == nil || m.Value != 93 || m.Limit != 0 {
		t.Errorf("%+v", m)
	}
}

// The parents that lost most are named: the descendants of each are subtracted.
func TestParents(t *testing.T) {
	tree := v2("6.12.43", statSubsystems(3010))
	const pods = "sys/fs/cgroup/kubepods.slice/"
	pod := pods + "kubepods-besteffort.slice/kubepods-besteffort-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/"
	for file, n := range map[string]int{
		"sys/fs/cgroup/system.slice/": 7, pods: 3000, pods + "kubepods-besteffort.slice/": 2900, pod: 400, pods + "idle/": 0,
	} {
		tree[file+"cgroup.stat"] = statSubsystems(n)
	}
	tree["var/log/pods/shop_cron-1_"+uid+"/"] = ""
	v := look(t, defaults, tree)
	plugintest.Want(t, v, plugin.Problem, "most below /kubepods.slice/kubepods-besteffort.slice 2500, pod shop/cron-1 400")
	want := []string{"/kubepods.slice/kubepods-besteffort.slice 2500", "pod shop/cron-1 400", "/kubepods.slice 100", "/system.slice 7", "/ 3"}
	if got := v.Details[2:]; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestUnsafeNames(t *testing.T) {
	tree := v2("6.12.43", stat(3000))
	tree["sys/fs/cgroup/evil\x1b[31m%s\n/cgroup.stat"] = stat(3000)
	plugintest.Want(t, look(t, defaults, tree), plugin.Problem, "most below /evil?[31m?s  3000")
}

// Reading is never free, so that a very low limit shows what a slow kernel would.
func TestSlowReading(t *testing.T) {
	slow := check{count: 2000, slow: 1}
	v := look(t, slow, v1("4.19.0", 1500))
	plugintest.Want(t, v, plugin.Problem, "reading the root's memory.stat takes 0.0", " s of CPU; at most 149", "Linux 4.19 sums all of them at each read: fixed in 5.2")
	v = look(t, slow, v1("5.2.0", 2500))
	plugintest.Want(t, v, plugin.Problem, "2493 deleted cgroups are not freed by the kernel, reading the root's", "fixed in 5.3")
	// Old kernels give the root of cgroup v2 no such file.
	tree := v2("4.19.0", stat(93))
	delete(tree, "sys/fs/cgroup/memory.stat")
	plugintest.Want(t, look(t, slow, tree), plugin.OK)
}

// A reading that does not end: what it took until then counts, and waiting is not CPU time.
func TestHungReading(t *testing.T) {
	tree := v1("4.19.0", 140)
	delete(tree, "sys/fs/cgroup/memory/memory.stat")
	dir := t.TempDir()
	tree.Write(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "sys/fs/cgroup/memory/memory.stat"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	v := defaults.look(ctx, plugintest.Look(t, hosttest.Open(t, dir)))
	plugintest.Want(t, v, plugin.Unknown, "memory.stat could not be read in time")
}

// The clock of another thread runs while that thread computes.
func TestThreadClock(t *testing.T) {
	h := hosttest.Tree{"zeros": strings.Repeat("\x00", 3<<20)}.Open(t)
	cost, err := timeReading(context.Background(), h, "/zeros")
	if err != nil || cost <= 0 || cost > 10*time.Second {
		t.Errorf("%v, %v", cost, err)
	}
	if again := cpuTime(threadClock(syscall.Gettid())); again <= 0 {
		t.Errorf("%v of CPU time so far", again)
	}
}

func TestUnknown(t *testing.T) {
	change := func(tree hosttest.Tree, path, content string) hosttest.Tree {
		delete(tree, path)
		if content != "" {
			tree[path] = content
		}
		return tree
	}
	for _, tt := range []struct {
		tree hosttest.Tree
		want string
	}{
		{hosttest.Tree{}, "no cgroups with the memory controller: mount the host's /sys/fs/cgroup at"},
		{change(v1("4.19.0", 140), "sys/fs/cgroup/memory/release_agent", ""), "shows the cgroups of a container only: mount the host's /sys/fs/cgroup there"},
		{change(v2("6.1.0", stat(3)), "sys/fs/cgroup/cgroup.events", "populated 1\n"), "shows the cgroups of a container only"},
		{change(v2("6.1.0", stat(3)), "sys/fs/cgroup/cgroup.controllers", "cpu pids\n"), "the memory controller is not among those"},
		{change(v2("4.9.0", stat(3)), "sys/fs/cgroup/cgroup.stat", ""), "Linux has it since 4.14"},
		{change(v2("6.1.0", stat(3)), "sys/fs/cgroup/cgroup.stat", "nr_descendants 3\n"), "no nr_dying_descendants"},
		{change(v2("6.1.0", stat(3)), "sys/fs/cgroup/cgroup.stat", "nr_dying_descendants 99999999999999\n"), "no nr_dying_descendants"},
		{change(v2("6.1.0", stat(3)), "proc/sys/kernel/osrelease", ""), "the version of the kernel is not known"},
		{change(v1("4.19.0", 140), "proc/cgroups", ""), "mount the host's /proc there"},
		{change(v1("4.19.0", 140), "proc/cgroups", "cpu\t1\t2\t1\nmemory 4 \xff%n 1\n"), "no number of cgroups for memory"},
		{change(v1("4.19.0", 140), "sys/fs/cgroup/memory/memory.stat", ""), "the cost of memory.stat is not known"},
	} {
		plugintest.Want(t, look(t, defaults, tt.tree), plugin.Unknown, tt.want)
	}
}

func FuzzMemoryCgroups(f *testing.F) {
	f.Add([]byte(cgroups(140)))
	f.Add([]byte("memory 1 -5 1\n"))
	f.Add([]byte("memory\t4\t99999999999999999999\t1"))
	f.Add([]byte("\x00\xff\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseCgroups(b)
		if (err == nil) != (n > 0) {
			t.Errorf("%d, %v", n, err)
		}
		if err != nil {
			return
		}
		if again, err := parseCgroups([]byte(cgroups(n))); again != n || err != nil {
			t.Errorf("%d, written as the kernel does %d, %v", n, again, err)
		}
	})
}
