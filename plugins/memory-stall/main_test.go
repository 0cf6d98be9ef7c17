package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const (
	uid   = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	id    = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
	other = "1b4f5063-a07c-4d69-9a1f-7b2c3d4e5f60"
)

// defaults are those of the flags.
var defaults = check{full: 10, refaults: 250, available: 15}

// meminfo has what Linux 3.14 to 6.18 print, in MiB, among other lines.
func meminfo(total, available, active int) string {
	return fmt.Sprintf("MemTotal:       %8d kB\nMemFree:           12345 kB\nMemAvailable:   %8d kB\nBuffers:            1234 kB\nCached:           123456 kB\n"+
		"Active:           123456 kB\nInactive:         123456 kB\nActive(anon):     123456 kB\nInactive(anon):   123456 kB\nActive(file):   %8d kB\n"+
		"Inactive(file):    12345 kB\nUnevictable:           0 kB\n", total<<10, available<<10, active<<10)
}

func pressure(full10, full60 float64) string {
	return fmt.Sprintf("some avg10=%.2f avg60=%.2f avg300=0.10 total=123456\nfull avg10=%.2f avg60=%.2f avg300=0.05 total=12345\n", full10, full60, full10, full60)
}

// The memory of a node: plenty, and what is left when it thrashes.
var (
	plenty = meminfo(16000, 9000, 3000)
	short  = meminfo(16000, 3000, 1400)
)

// v2 is a node with PSI and cgroup v2.
func v2(full10, full60 float64, mem string) hosttest.Tree {
	const (
		root = "sys/fs/cgroup/"
		pods = root + "kubepods.slice/kubepods-burstable.slice/"
	)
	pod := pods + "kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/"
	tree := hosttest.Tree{
		"proc/pressure/memory":                  pressure(full10, full60),
		"proc/meminfo":                          mem,
		"proc/vmstat":                           "nr_free_pages 1234\nworkingset_refault_anon 0\nworkingset_refault_file 4321\n",
		root + "cgroup.controllers":             "cpuset cpu io memory hugetlb pids\n",
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
	group := func(dir string, full float64, current int, limit string, file int) {
		tree[dir+"memory.pressure"] = pressure(full, full)
		tree[dir+"memory.current"] = fmt.Sprintf("%d\n", current<<20)
		tree[dir+"memory.max"] = limit + "\n"
		tree[dir+"memory.high"] = "max\n"
		tree[dir+"memory.stat"] = fmt.Sprintf("anon 1234\nfile %d\nworkingset_refault_file 99\n", file<<20)
	}
	group(root+"kubepods.slice/", 60, 14000, "max", 900)
	group(pods, 60, 14000, "max", 900)
	group(pod, 61, 12000, "max", 500)
	group(pod+"cri-containerd-"+id+".scope/", 61.4, 12000, "max", 600)
	group(root+"system.slice/kubelet.service/", 23, 200, "max", 150)
	group(root+"system.slice/idle.service/", 0, 10, "max", 1)
	return tree
}

// limited gives the container of the node a limit that it has reached.
func limited(tree hosttest.Tree, mib int) hosttest.Tree {
	for file := range tree {
		if strings.HasSuffix(file, ".scope/memory.max") {
			tree[file] = fmt.Sprintf("%d\n", mib<<20)
		}
		if strings.HasSuffix(file, "kubelet.service/memory.pressure") {
			tree[file] = pressure(1, 1)
		}
	}
	return tree
}

func look(t *testing.T, tree hosttest.Tree) plugin.Verdict {
	t.Helper()
	return defaults.look(context.Background(), plugintest.Look(t, tree.Open(t)))
}

func TestPressure(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tree   hosttest.Tree
		status plugin.Status
		words  []string
	}{
		{"calm", v2(0, 0, plenty), plugin.OK, []string{"all tasks wait for memory 0 percent of the time; 56 percent of 15.6GiB is available, 37 without active page cache"}},
		{"little memory, no pressure", v2(0, 0, short), plugin.OK, nil},
		{"just below", v2(9.9, 9.99, short), plugin.OK, nil},
		{"thrashes", v2(40, 34.2, short), plugin.Problem,
			[]string{"all tasks wait for memory 34 percent of the time; 18 percent of 15.6GiB is available, 10 without active page cache; worst: pod shop/cart-0 61 percent, 5 percent of its 11.7GiB are page cache"}},
		{"a limit far off", limited(v2(40, 34.2, short), 15000), plugin.Problem, []string{"worst: pod shop/cart-0"}},
		{"inside its own limit, the node has memory", limited(v2(40, 34.2, plenty), 12000), plugin.OK, nil},
		{"inside its own limit, much is page cache", limited(v2(40, 34.2, short), 12000), plugin.OK, nil},
		{"inside its own limit, nothing is left", limited(v2(40, 34.2, meminfo(16000, 700, 100)), 12000), plugin.Problem, []string{"4 percent of 15.6GiB is available"}},
		{"the killer has come", v2(4, 34.2, plenty), plugin.OK, nil},
	} {
		t.Run(tt.name, func(t *testing.T) { plugintest.Want(t, look(t, tt.tree), tt.status, tt.words...) })
	}
}

const capturedUID = "3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13"

// A container thrashed inside its limit of 96 MiB for some seconds when these were written down; not on 6.18.
func TestCaptured(t *testing.T) {
	for _, tt := range []struct {
		kernel string
		full60 float64
	}{{"5.10", 0.02}, {"6.1", 3}, {"6.12", 3.46}, {"6.18", 0}} {
		t.Run(tt.kernel, func(t *testing.T) {
			tree := hosttest.Captured(t, "testdata/"+tt.kernel+".txt")
			v := look(t, tree)
			plugintest.Want(t, v, plugin.OK, " percent of the time; ")
			if m := v.Measurements[0]; m.Name != "memory_full_avg60" || m.Value != tt.full60 {
				t.Errorf("%+v, want a pressure of %v", m, tt.full60)
			}
			if n, err := nodeRefaults(tree.Open(t)); n == 0 || err != nil {
				t.Errorf("%d refaults, %v", n, err)
			}
			// With the pressure of a longer time, when the node has memory, and when it has none.
			tree["proc/pressure/memory"] = pressure(40, 34.2)
			l := plugintest.Look(t, tree.Open(t))
			var log bytes.Buffer
			l.Log.Out = &log
			plugintest.Want(t, defaults.look(context.Background(), l), plugin.OK)
			v2 := tree["sys/fs/cgroup/cgroup.controllers"] != ""
			if v2 && tt.full60 >= 1 && !strings.Contains(log.String(), "own limit: pod "+capturedUID) {
				t.Errorf("the log does not name the pod:\n%s", log.String())
			}
			tree["proc/meminfo"] = meminfo(973, 20, 10)
			v = look(t, tree)
			plugintest.Want(t, v, plugin.Problem, "all tasks wait for memory 34 percent")
			if v2 && tt.full60 >= 1 {
				plugintest.Want(t, v, plugin.Problem, "worst: pod "+capturedUID)
			}
		})
	}
}

// What thrashes inside its own limit is told once, on stderr.
func TestContainedIsNamed(t *testing.T) {
	l := plugintest.Look(t, limited(v2(40, 34.2, plenty), 12000).Open(t))
	var log bytes.Buffer
	l.Log.Out = &log
	plugintest.Want(t, defaults.look(context.Background(), l), plugin.OK)
	if !strings.Contains(log.String(), "thrashes inside its own limit: pod shop/cart-0 61 percent") {
		t.Errorf("the log does not name the pod:\n%s", log.String())
	}
	next := l.Next()
	log.Reset()
	plugintest.Want(t, defaults.look(context.Background(), next), plugin.OK)
	if log.Len() > 0 {
		t.Errorf("told again:\n%s", log.String())
	}
	var named bool
	if next.Next().Recall(&named); !named {
		t.Error("the second look forgot that it was told")
	}
	over := plugintest.Look(t, v2(4, 34.2, plenty).Open(t))
	over.Log.Out = &log
	defaults.look(context.Background(), over)
	if log.Len() > 0 {
		t.Errorf("told of what is over:\n%s", log.String())
	}
}

// The root is left out, and so is a parent: its files count what its children do.
func TestDetails(t *testing.T) {
	v := look(t, v2(40, 34.2, short))
	plugintest.Want(t, v, plugin.Problem)
	want := []string{"pod shop/cart-0 61 percent", "/system.slice/kubelet.service 23 percent, 75 percent of its 200MiB are page cache"}
	if len(v.Details) != 1+len(want) {
		t.Errorf("%q", v.Details)
	}
	for i, w := range want {
		if !strings.HasPrefix(v.Details[i+1], w) {
			t.Errorf("%q, want %q", v.Details[i+1], w)
		}
	}
}

// v1 is a node with PSI, or without, and cgroup v1: the refaults are of the container, per second.
func v1(mem string, psi bool) hosttest.Tree {
	const pod = "sys/fs/cgroup/memory/kubepods/burstable/pod" + uid + "/"
	tree := hosttest.Tree{
		"proc/meminfo":                                               mem,
		"proc/vmstat":                                                "nr_free_pages 1234\nworkingset_refault 1000\n",
		"sys/fs/cgroup/memory/cgroup.procs":                          "1\n",
		"sys/fs/cgroup/memory/memory.stat":                           "cache 4096\npgmajfault 5\ntotal_pgmajfault 9999\n",
		pod + "memory.stat":                                          "cache 0\npgmajfault 0\ntotal_cache 104857600\ntotal_pgmajfault 5000\n",
		pod + id + "/memory.stat":                                    "cache 104857600\npgmajfault 5000\ntotal_cache 104857600\ntotal_pgmajfault 5000\n",
		pod + id + "/memory.usage_in_bytes":                          "1048576000\n",
		pod + id + "/memory.limit_in_bytes":                          "9223372036854771712\n",
		"sys/fs/cgroup/memory/kubepods/pod" + other + "/memory.stat": "cache 0\nworkingset_refault_anon 1\nworkingset_refault_file 2\n",
	}
	if psi {
		tree["proc/pressure/memory"] = pressure(40, 34.2)
	}
	return tree
}

// thrashing opens the tree, and adds to its counters half-way through the pauses of a look.
func thrashing(t *testing.T, tree hosttest.Tree, pages int) *plugin.Look {
	t.Helper()
	dir := t.TempDir()
	tree.Write(t, dir)
	done, gone := make(chan bool), make(chan bool)
	t.Cleanup(func() { close(done); <-gone })
	go func() {
		defer close(gone)
		for i := 1; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			for file, content := range map[string]string{
				"proc/vmstat": fmt.Sprintf("workingset_refault %d\n", 1000+i*pages/20),
				"sys/fs/cgroup/memory/kubepods/burstable/pod" + uid + "/" + id + "/memory.stat": fmt.Sprintf("cache 1\npgmajfault %d\ntotal_cache 104857600\n", 5000+i*pages/20),
			} {
				// In one step, so that a reader sees one or the other.
				tmp := filepath.Join(dir, "new")
				if os.WriteFile(tmp, []byte(content), 0o600) == nil {
					os.Rename(tmp, filepath.Join(dir, file))
				}
			}
		}
	}()
	return plugintest.Look(t, hosttest.Open(t, dir))
}

func TestRefaults(t *testing.T) {
	ctx := context.Background()
	v := defaults.look(ctx, thrashing(t, v1(short, false), 4000))
	plugintest.Want(t, v, plugin.Problem, " pages per second are read again; 18 percent", "worst: pod "+uid, "pages/s, 10 percent of its 1000MiB are page cache")
	if m := v.Measurements[0]; m.Name != "memory_refaults" || m.Value < 2000 || m.Value > 8000 {
		t.Errorf("%+v, want some 4000 pages per second", m)
	}
	plugintest.Want(t, defaults.look(ctx, thrashing(t, v1(short, false), 100)), plugin.OK)
	// With memory left nobody waits for a rate.
	began := time.Now()
	plugintest.Want(t, look(t, v1(plenty, false)), plugin.OK, "0 pages per second are read again")
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// With the multi-generational LRU to wait for a dropped page is pressure of I/O.
func TestMultiGenerational(t *testing.T) {
	ctx := context.Background()
	tree := v1(short, true)
	tree["proc/pressure/memory"] = pressure(0.9, 0.4)
	tree["proc/pressure/io"] = pressure(70, 31)
	plugintest.Want(t, defaults.look(ctx, thrashing(t, tree, 4000)), plugin.OK, "all tasks wait for memory 0 percent")
	tree["sys/kernel/mm/lru_gen/enabled"] = "0x0007\n"
	plugintest.Want(t, defaults.look(ctx, thrashing(t, tree, 4000)), plugin.Problem, " pages per second are read again", "worst: pod "+uid)
	tree["proc/meminfo"] = plenty
	plugintest.Want(t, defaults.look(ctx, thrashing(t, tree, 4000)), plugin.OK, " pages per second are read again")
	tree["proc/meminfo"] = short
	tree["proc/pressure/io"] = pressure(9, 9)
	plugintest.Want(t, defaults.look(ctx, thrashing(t, tree, 4000)), plugin.OK, "all tasks wait for memory 0 percent")
	tree["proc/pressure/io"] = pressure(70, 31)
	tree["sys/kernel/mm/lru_gen/enabled"] = "0x0000\n"
	plugintest.Want(t, defaults.look(ctx, thrashing(t, tree, 4000)), plugin.OK, "all tasks wait for memory 0 percent")
}

// Without a file that says so a container is not found to be at its limit.
func TestRefaultsInsideLimit(t *testing.T) {
	tree := v1(short, false)
	const container = "sys/fs/cgroup/memory/kubepods/burstable/pod" + uid + "/" + id + "/"
	tree[container+"memory.limit_in_bytes"] = "1048576000\n"
	plugintest.Want(t, defaults.look(context.Background(), thrashing(t, tree, 4000)), plugin.OK)
}

// Pressure of the node, and a cgroup v1 that has none of its own.
func TestPressureWithV1(t *testing.T) {
	v := defaults.look(context.Background(), thrashing(t, v1(short, true), 4000))
	plugintest.Want(t, v, plugin.Problem, "all tasks wait for memory 34 percent", "worst: pod "+uid, "pages/s")
}

// The message does not depend on cgroups that can be read.
func TestWithoutCgroups(t *testing.T) {
	tree := v2(40, 34.2, short)
	for file := range tree {
		if strings.HasPrefix(file, "sys/") {
			delete(tree, file)
		}
	}
	plugintest.Want(t, look(t, tree), plugin.Problem, "all tasks wait for memory 34 percent")
}

func TestUnsafeNames(t *testing.T) {
	tree := v2(40, 34.2, short)
	tree["sys/fs/cgroup/evil\x1b[31m%s\n/memory.pressure"] = pressure(99, 99)
	plugintest.Want(t, look(t, tree), plugin.Problem, "worst: /evil?[31m?s  99 percent")
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
		{hosttest.Tree{}, "mount the host's /proc there"},
		{change(v2(0, 0, plenty), "proc/meminfo", ""), "mount the host's /proc there"},
		{change(v2(0, 0, plenty), "proc/meminfo", "MemTotal: 16384 kB\nMemFree: 5 kB\n"), "no MemAvailable: (Linux before 3.14"},
		{change(v2(0, 0, plenty), "proc/meminfo", meminfo(10, 20, 5)), "more memory is available than there is"},
		{change(v2(0, 0, plenty), "proc/pressure/memory", "some x\n"), "the pressure is not known: "},
		{change(v1(plenty, false), "proc/vmstat", "nr_free_pages 5\n"), "neither /proc/pressure/memory (Linux 4.20, psi=1) nor workingset_refault in /proc/vmstat (3.15)"},
		{change(v1(plenty, false), "proc/vmstat", ""), "neither pressure stall information nor refaults: "},
	} {
		plugintest.Want(t, look(t, tt.tree), plugin.Unknown, tt.want)
	}
}

func TestRefaultsOf(t *testing.T) {
	for file, want := range map[string]uint64{
		"workingset_refault 17\nworkingset_activate 3\n":               17,
		"workingset_refault_anon 5\nworkingset_refault_file 12\n":      17,
		"workingset_refault_file 12\nworkingset_restore_anon 999999\n": 12,
	} {
		if n, ok := refaults([]byte(file)); n != want || !ok {
			t.Errorf("%q: %d, %v", file, n, ok)
		}
	}
	if n, ok := refaults([]byte("pgmajfault 5\n")); n != 0 || ok {
		t.Errorf("%d, %v", n, ok)
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte(plenty))
	f.Add([]byte("MemTotal: 0 kB\nMemAvailable: 0 kB\nActive(file): 0 kB\n"))
	f.Add([]byte("MemTotal: 99999999999999999999 kB\n\x00\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMemory(b)
		if err != nil {
			if m != (memory{}) {
				t.Errorf("%+v beside the error %v", m, err)
			}
			return
		}
		if m.total == 0 || m.available > m.total || m.spare > m.available || m.percent() > 100 || m.total > math.MaxInt64 {
			t.Errorf("%+v", m)
		}
	})
}
