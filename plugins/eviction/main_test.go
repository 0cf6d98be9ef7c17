package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/kubelet/kubelettest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

func TestMain(m *testing.M) {
	apart.Serve()
	os.Exit(m.Run())
}

const (
	gib = 1 << 30
	mib = 1 << 20
	uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
)

// newCheck has the flags' defaults and asks no kubelet.
func newCheck() *check {
	return &check{percent: 20, kubeletDir: kubeletDir, config: kubeletDir + "/config.yaml"}
}

// disk is what statfs says of a disk.
func disk(size, available, inodes, free uint64) apart.FileSystem {
	return apart.FileSystem{Size: size, Free: available, Available: available, Inodes: inodes, InodesFree: free}
}

// roomy is a disk with room.
var roomy = disk(100*gib, 60*gib, 6_000_000, 5_000_000)

// judgeWith judges a host whose file systems say that.
func (c *check) judgeWith(t *testing.T, h *host.Root, disks map[string]apart.FileSystem, s settings, images *imageDirs) plugin.Verdict {
	t.Helper()
	l := plugintest.Look(t, h)
	d := &fileSystems{ctx: context.Background(), host: h, known: disks}
	return c.judge(context.Background(), l, d, &memory{Settings: &s, Images: images})
}

// node is a node of 16,000 MiB with cgroup v1, on which that much is used, of which cache is active and spare inactive page cache.
func node(used, cache, spare int) hosttest.Tree {
	const root = "sys/fs/cgroup/memory/"
	pod := root + "kubepods/burstable/pod" + uid + "/"
	group := func(tree hosttest.Tree, dir string, usage, active, inactive int) {
		tree[dir+"memory.usage_in_bytes"] = fmt.Sprintf("%d\n", usage*mib)
		tree[dir+"memory.limit_in_bytes"] = "9223372036854771712\n"
		tree[dir+"memory.stat"] = fmt.Sprintf("cache 1\ninactive_file 2\nactive_file 3\ntotal_inactive_file %d\ntotal_active_file %d\n", inactive*mib, active*mib)
	}
	tree := hosttest.Tree{
		"proc/meminfo":                          fmt.Sprintf("MemTotal:       %8d kB\nMemFree:           12345 kB\n", 16000<<10),
		"proc/loadavg":                          "0.10 0.20 0.30 1/200 4711\n",
		"proc/sys/kernel/pid_max":               "32768\n",
		"proc/sys/kernel/threads-max":           "192730\n",
		"proc/sys/kernel/osrelease":             "5.10.0\n",
		root + "cgroup.procs":                   "1\n",
		root + "release_agent":                  "\n",
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
	group(tree, root, used, cache, spare)
	group(tree, root+"kubepods/", used*3/4, 10, spare/2)
	group(tree, root+"kubepods/burstable/", used*3/4, 10, spare/2)
	group(tree, pod, used/2, 10, spare/2)
	group(tree, pod+strings.Repeat("ab", 32)+"/", used/2, 10, spare/2)
	group(tree, root+"kubepods/besteffort/pod11111111-2222-3333-4444-555555555555/", used/4, 0, 0)
	group(tree, root+"system.slice/", used/4, 0, 0)
	group(tree, root+"system.slice/kubelet.service/", used/8, 0, 0)
	return tree
}

// hard are kubelet's default thresholds.
func hard(t testing.TB) settings {
	t.Helper()
	s, err := readSettings(hosttest.Tree{}.Open(t), "/none", "")
	if err != nil {
		t.Fatal(err)
	}
	s.Source = fromKubelet
	return *s
}

func one(signal, value string) settings {
	t, _, err := parseThreshold(signal, value)
	if err != nil {
		panic(err)
	}
	return settings{Thresholds: []threshold{t}, Source: fromKubelet}
}

func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tree   hosttest.Tree
		status plugin.Status
		words  []string
	}{
		{"room", node(8000, 100, 500), plugin.OK, []string{"nearest to eviction: imagefs.available 60GiB, kubelet's threshold 15.0GiB"}},
		{"the page cache can give way", node(15990, 0, 5000), plugin.OK, nil},
		{"just above a fifth more", node(15880, 0, 0), plugin.OK, []string{"nearest to eviction: memory.available 120MiB, kubelet's threshold 100MiB"}},
		{"near", node(15881, 620, 0), plugin.Problem, []string{"memory.available 119MiB, kubelet evicts pods below 100MiB of 15.6GiB; most: pod shop/cart-0 7.8GiB, ",
			"; 620MiB counted as used is active page cache"}},
		{"past", node(16000, 0, 50), plugin.Problem, []string{"memory.available 50MiB, kubelet evicts pods: it is below 100MiB of 15.6GiB"}},
		{"nothing", node(16100, 0, 0), plugin.Problem, []string{"memory.available 0B, kubelet evicts pods: it is below 100MiB"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newCheck().judgeWith(t, tt.tree.Open(t), map[string]apart.FileSystem{kubeletDir: roomy, "/images": roomy}, hard(t), &imageDirs{Image: "/images"})
			plugintest.Want(t, v, tt.status, tt.words...)
			if len(v.Measurements) != 5 {
				t.Errorf("measurements: %+v", v.Measurements)
			}
		})
	}
}

// What each pod and each cgroup without children uses, the biggest first.
func TestMemoryConsumers(t *testing.T) {
	v := newCheck().judgeWith(t, node(15960, 0, 0).Open(t), nil, one("memory.available", "100Mi"), nil)
	want := []string{"memory.available 40MiB, kubelet evicts pods: it is below 100MiB of 15.6GiB",
		"pod shop/cart-0 7.8GiB", "pod 11111111-2222-3333-4444-555555555555 3.9GiB", "/system.slice/kubelet.service 1.9GiB"}
	if !slices.Equal(v.Details, want) {
		t.Errorf("details %q, want %q", v.Details, want)
	}
}

func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		s      settings
		nodefs apart.FileSystem
		status plugin.Status
		words  []string
	}{
		{"bytes, near", one("nodefs.available", "10%"), disk(100*gib, 11*gib, 100, 50), plugin.Problem, []string{"nodefs.available 11GiB, kubelet evicts pods below 10.0GiB of 100GiB (/var/lib/kubelet)"}},
		{"bytes, a quantity", one("nodefs.available", "10Gi"), disk(100*gib, 9*gib, 100, 50), plugin.Problem, []string{"nodefs.available 9GiB, kubelet evicts pods: it is below 10GiB of 100GiB"}},
		{"bytes, room", one("nodefs.available", "10%"), disk(100*gib, 13*gib, 100, 1), plugin.OK, nil},
		{"inodes, near", one("nodefs.inodesFree", "5%"), disk(100*gib, gib, 1000, 59), plugin.Problem, []string{"nodefs.inodesFree 59, kubelet evicts pods below 50 of 1000"}},
		{"inodes that the file system does not count", one("nodefs.inodesFree", "5%"), disk(100*gib, gib, 0, 0), plugin.OK, nil},
		{"PIDs, room", one("pid.available", "1000"), roomy, plugin.OK, []string{"pid.available 32568, kubelet's threshold 1000"}},
		{"PIDs, past", one("pid.available", "40k"), roomy, plugin.Problem, []string{"pid.available 32568, kubelet evicts pods: it is below 40000 of 32768"}},
		{"soft", settings{Thresholds: []threshold{{Signal: "nodefs.available", Share: 0.2, Soft: true, Grace: 90 * time.Second}}}, disk(100*gib, 15*gib, 1, 1), plugin.Problem,
			[]string{"nodefs.available 15GiB, kubelet evicts pods when it is for 1m30s below 20.0GiB of 100GiB"}},
		{"no threshold", settings{Source: fromKubelet}, disk(100*gib, 0, 1, 0), plugin.OK, []string{"kubelet has no eviction threshold (/configz)"}},
		{"defaults", func() settings { s := one("nodefs.available", "10%"); s.Source = fromDefaults; return s }(), disk(100*gib, 9*gib, 100, 50), plugin.Problem, []string{"(/var/lib/kubelet) (default)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newCheck().judgeWith(t, node(8000, 0, 0).Open(t), map[string]apart.FileSystem{kubeletDir: tt.nodefs}, tt.s, nil)
			plugintest.Want(t, v, tt.status, tt.words...)
		})
	}
}

// Of several signals the one nearest to its threshold is told first.
func TestWorstFirst(t *testing.T) {
	disks := map[string]apart.FileSystem{kubeletDir: disk(100*gib, 11*gib, 1000, 51), "/images": disk(50*gib, gib, 1000, 900)}
	v := newCheck().judgeWith(t, node(8000, 0, 0).Open(t), disks, hard(t), &imageDirs{Image: "/images"})
	plugintest.Want(t, v, plugin.Problem, "imagefs.available 1GiB, kubelet evicts pods: it is below 7.5GiB of 50GiB (/images)", "; also nodefs.inodesFree, nodefs.available", "who uses most is not known (see the log)")
	if !slices.ContainsFunc(v.Details, func(s string) bool { return strings.Contains(s, "no address of kubelet") }) {
		t.Errorf("the details do not say why: %q", v.Details)
	}
}

// A runtime that has images and containers' layers on two file systems: the latter have the thresholds of nodefs.
func TestSplitImages(t *testing.T) {
	split := &imageDirs{"/images", "/layers"}
	tree := node(8000, 0, 0)
	for name, tt := range map[string]struct {
		layers apart.FileSystem
		status plugin.Status
		words  []string
	}{
		"full":                         {disk(20*gib, gib, 100, 50), plugin.Problem, []string{"containerfs.available 1GiB, kubelet evicts pods: it is below 2.0GiB of 20GiB (/layers)"}},
		"room":                         {disk(20*gib, 10*gib, 100, 50), plugin.OK, nil},
		"the same, while it is in use": {disk(100*gib, 60*gib-4096, 6_000_000, 4_999_999), plugin.OK, nil},
		"unknown":                      {apart.FileSystem{Err: apart.ErrHangs}, plugin.Unknown, []string{"containerfs.available is not known: statfs of /layers: the kernel does not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newCheck().judgeWith(t, tree.Open(t), map[string]apart.FileSystem{kubeletDir: roomy, "/images": roomy, "/layers": tt.layers}, hard(t), split)
			plugintest.Want(t, v, tt.status, tt.words...)
			if same := name == "the same, while it is in use"; same && len(v.Measurements) != 5 {
				t.Errorf("measured twice: %+v", v.Measurements)
			}
		})
	}
}

// The limit of all pods' memory, where node allocatable is enforced.
func TestAllocatable(t *testing.T) {
	tree := node(8000, 0, 1000)
	tree["sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes"] = fmt.Sprintln(5600 * mib) // uses 6000, of which 500 are inactive
	s := one("memory.available", "100Mi")
	plugintest.Want(t, newCheck().judgeWith(t, tree.Open(t), nil, s, nil), plugin.OK)
	s.Pods = true
	// What runs outside of pods uses none of it, however much it is.
	tree["sys/fs/cgroup/memory/system.slice/kubelet.service/memory.usage_in_bytes"] = fmt.Sprintln(9000 * mib)
	v := newCheck().judgeWith(t, tree.Open(t), nil, s, nil)
	plugintest.Want(t, v, plugin.Problem, "allocatableMemory.available 100MiB, kubelet evicts pods below 100MiB of 5.5GiB (/kubepods)", "most: pod shop/cart-0")
	if want := []string{"pod shop/cart-0 3.4GiB", "pod 11111111-2222-3333-4444-555555555555 2.0GiB"}; !slices.Equal(v.Details[1:], want) {
		t.Errorf("details %q, want %q", v.Details[1:], want)
	}
	s.Thresholds[0].Soft = true
	plugintest.Want(t, newCheck().judgeWith(t, tree.Open(t), nil, s, nil), plugin.OK)
	s.Thresholds[0].Soft, s.CgroupRoot = false, "/other"
	plugintest.Want(t, newCheck().judgeWith(t, tree.Open(t), nil, s, nil), plugin.OK)
}

// Captured trees: of guests with cgroup v2, and of a machine with cgroup v1.
func TestCaptured(t *testing.T) {
	for kernel, want := range map[string]struct{ capacity, available, active uint64 }{
		"5.10": {1002464 << 10, 1002464<<10 - (111419392 + 144359424 - 37515264), 17436672},
		"6.1":  {996616 << 10, 996616<<10 - (110632960 + 148824064 - 41406464), 17502208},
		"6.12": {991168 << 10, 991168<<10 - (112771072 + 148926464 - 59363328), 0},
		"6.18": {24684092 << 10, 24684092<<10 - 99684352, 67108864},
	} {
		t.Run(kernel, func(t *testing.T) {
			tree := hosttest.Captured(t, "testdata/"+kernel+".txt")
			h := tree.Open(t)
			r := readMemory(h, nil)
			if r.err != nil || r.capacity != want.capacity || r.available != want.available || r.activeFile != want.active {
				t.Errorf("%+v, want %+v", r, want)
			}
			pods := "sys/fs/cgroup/kubepods.slice/memory.max"
			if kernel == "6.18" {
				pods = "sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes"
			}
			tree[pods] = "104857600\n"
			if r, ok := readPods(tree.Open(t), ""); !ok || r.err != nil || r.capacity != 100*mib || r.available == 0 || r.available == r.capacity {
				t.Errorf("the pods: %+v, %t", r, ok)
			}
			s := one("memory.available", fmt.Sprint(want.available+1))
			v := newCheck().judgeWith(t, h, nil, s, nil)
			plugintest.Want(t, v, plugin.Problem, "kubelet evicts pods: it is below", "most: pod 3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13 ")
			plugintest.Want(t, newCheck().judgeWith(t, h, nil, one("pid.available", "10"), nil), plugin.OK, "pid.available ")
		})
	}
}

// Huge pages are taken off what is available, where kubelet does that.
func TestHugePages(t *testing.T) {
	tree := node(8000, 0, 0) // of 16000
	tree["proc/meminfo"] += fmt.Sprintf("HugePages_Total: 1\nHugepagesize: 2048 kB\nHugetlb: %d kB\n", 7900<<10)
	on, off := true, false
	for name, tt := range map[string]struct {
		subtracts *bool
		threshold string
		status    plugin.Status
		words     []string
	}{
		"since 1.37":               {&on, "100Mi", plugin.Problem, []string{"memory.available 100MiB, kubelet evicts pods below 100MiB of 7.9GiB", "; 7.7GiB more are huge pages"}},
		"1.37, a share":            {&on, "1%", plugin.OK, []string{"memory.available 100MiB, kubelet's threshold 81.0MiB"}},
		"before":                   {&off, "100Mi", plugin.OK, []string{"memory.available 7.8GiB, kubelet's threshold 100MiB"}},
		"not known, and different": {nil, "100Mi", plugin.Unknown, []string{"memory.available is not known: 7.8GiB or, if kubelet takes off huge pages as since 1.37, 100MiB", "nodes/metrics"}},
		"not known, all the same":  {nil, "10Mi", plugin.OK, nil},
		"not known, near":          {nil, "8Gi", plugin.Problem, []string{"memory.available 7.8GiB, kubelet evicts pods: it is below 8GiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := plugintest.Look(t, tree.Open(t))
			s := one("memory.available", tt.threshold)
			v := newCheck().judge(t.Context(), l, &fileSystems{ctx: t.Context(), host: l.Host}, &memory{Settings: &s, Huge: tt.subtracts})
			plugintest.Want(t, v, tt.status, tt.words...)
		})
	}
}

// kubelet's metrics tell whether it takes huge pages off, and its configuration before those. It is asked only where there are some.
func TestAskHugePages(t *testing.T) {
	const withGate = "kubernetes_feature_enabled{name=\"EventedPLEG\",stage=\"ALPHA\"} 0\nkubernetes_feature_enabled{name=\"HugepageAwareEviction\",stage=\"BETA\"} "
	build := func(version string) string {
		return "kubernetes_build_info{git_version=\"" + version + "\",major=\"1\"} 1\n"
	}
	yes, no := true, false
	for name, tt := range map[string]struct {
		config, page string
		want         *bool
	}{
		"on":                {"", kubelettest.Page(t, "1.37"), &yes},
		"off":               {"", build("v1.37.2") + withGate + "0\n", &no},
		"1.36":              {"", build("v1.36.3"), &no},
		"1.42":              {"", build("v1.42.0-gke.7"), &yes},
		"refused":           {"", "", nil},
		"in the settings":   {`,"featureGates":{"HugepageAwareEviction":false}`, "", &no},
		"other gates there": {`,"featureGates":{"EventedPLEG":true}`, build("v1.37.2") + withGate + "1\n", &yes},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/configz":
					fmt.Fprintf(w, `{"kubeletconfig":{"evictionHard":{"memory.available":"100Mi"}%s}}`, tt.config)
				case tt.page == "":
					w.WriteHeader(http.StatusForbidden)
				default:
					asked++
					fmt.Fprint(w, tt.page)
				}
			})
			c := newCheck()
			c.access = *kubelettest.Access(t, server.Flags()...)
			tree := node(8000, 0, 0)
			l := plugintest.Look(t, tree.Open(t))
			refresh := func() (m memory) {
				t.Helper()
				l.Recall(&m)
				if err := c.refresh(t.Context(), l, &fileSystems{ctx: t.Context(), host: l.Host, known: map[string]apart.FileSystem{kubeletDir: roomy}}, &m); err != nil {
					t.Fatal(err)
				}
				l.Remember(m)
				l = l.Next()
				return m
			}
			if m := refresh(); asked != 0 || tt.config == "" && m.Huge != nil {
				t.Errorf("without huge pages it was asked %d times: %v", asked, m.Huge)
			}
			hosttest.Tree{"proc/meminfo": tree["proc/meminfo"] + "Hugetlb: 4096 kB\n"}.Write(t, l.Host.Path("/"))
			for range 2 {
				m := refresh()
				if (m.Huge == nil) != (tt.want == nil) || m.Huge != nil && *m.Huge != *tt.want || asked > 1 {
					t.Errorf("%v after %d questions", m.Huge, asked)
				}
			}
		})
	}
}

// What fills a disk and is no pod's is found in its directories.
func TestOutsideOfPods(t *testing.T) {
	var held uint64
	server := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"node":{"fs":{"capacityBytes":1,"inodes":1},"runtime":{"imageFs":{"capacityBytes":1,"inodes":1}}},
			"pods":[{"podRef":{"namespace":"shop","name":"cart-0"},"ephemeral-storage":{"usedBytes":%d,"inodesUsed":7}}]}`, held)
	})
	c := newCheck()
	c.access = *kubelettest.Access(t, server.Flags()...)
	tree := hosttest.Tree{"var/lib/kubelet/pods/": "", "var/lib/dump/core": strings.Repeat("x", 1<<20)}
	l := plugintest.Look(t, tree.Open(t))
	var st unix.Stat_t
	if err := unix.Stat(l.Host.Path("/"), &st); err != nil {
		t.Fatal(err)
	}
	full := disk(2*mib, 1, 1000, 500)
	full.Device = st.Dev
	disks := &fileSystems{ctx: t.Context(), host: l.Host, known: map[string]apart.FileSystem{kubeletDir: full}}
	m := &memory{}
	message := func(signal string) string {
		t.Helper()
		s := one(signal, "90%")
		m.Settings = &s
		v := c.judge(t.Context(), l, disks, m)
		if v.Status != plugin.Problem {
			t.Errorf("%+v", v)
		}
		return v.Message
	}
	held = 8192
	if m := message("nodefs.available"); !strings.Contains(m, "most: /var/lib/dump 1MiB or more, outside of pods, pod shop/cart-0 8KiB") {
		t.Error(m)
	}
	// It is not looked for again at once.
	hosttest.Tree{"var/lib/dump/core": strings.Repeat("x", 2<<20)}.Write(t, l.Host.Path("/"))
	if m := message("nodefs.available"); !strings.Contains(m, "most: /var/lib/dump 1MiB or more") {
		t.Error(m)
	}
	l.Now = l.Now.Add(freshFor)
	if m := message("nodefs.available"); !strings.Contains(m, "most: /var/lib/dump 2MiB or more") {
		t.Error(m)
	}
	if m := message("nodefs.inodesFree"); !strings.Contains(m, "most: neither pods nor images, which hold 7 inodes") {
		t.Error(m)
	}
	held = 1 << 20
	if m := message("nodefs.available"); !strings.Contains(m, "most: pod shop/cart-0 1MiB") {
		t.Error(m)
	}
}

func TestUnknown(t *testing.T) {
	without := func(file string) hosttest.Tree {
		tree := node(8000, 0, 0)
		delete(tree, file)
		return tree
	}
	for name, tt := range map[string]struct {
		tree hosttest.Tree
		s    settings
		disk error
		word string
	}{
		"no meminfo":            {without("proc/meminfo"), one("memory.available", "1"), nil, "mount the host's /proc"},
		"no cgroups":            {hosttest.Tree{"proc/meminfo": "MemTotal: 1 kB\n"}, one("memory.available", "1"), nil, "mount the host's /sys/fs/cgroup"},
		"a container's cgroups": {without("sys/fs/cgroup/memory/release_agent"), one("memory.available", "1"), nil, "shows the cgroups of a container only"},
		"no usage":              {without("sys/fs/cgroup/memory/memory.usage_in_bytes"), one("memory.available", "1"), nil, "memory.usage_in_bytes"},
		"no stat":               {without("sys/fs/cgroup/memory/memory.stat"), one("memory.available", "1"), nil, "memory.stat"},
		"v2 without numbers":    {hosttest.Tree{"proc/meminfo": "MemTotal: 1 kB\n", "sys/fs/cgroup/cgroup.controllers": "memory", "sys/fs/cgroup/memory.stat": ""}, one("memory.available", "1"), nil, "no anon and file"},
		"meminfo of nothing":    {hosttest.Tree{"proc/meminfo": "MemTotal: 0 kB\n", "sys/fs/cgroup/cgroup.controllers": "memory"}, one("memory.available", "1"), nil, "no MemTotal"},
		"no loadavg":            {without("proc/loadavg"), one("pid.available", "1"), nil, "loadavg"},
		"no pid_max":            {without("proc/sys/kernel/pid_max"), one("pid.available", "1"), nil, "pid_max"},
		"disk not there":        {node(1, 0, 0), one("nodefs.available", "1"), &os.PathError{Op: "statfs", Path: kubeletDir, Err: unix.ENOENT}, "mount it, or set --kubelet-dir"},
		"disk hangs":            {node(1, 0, 0), one("nodefs.inodesFree", "1"), apart.ErrHangs, "nodefs.inodesFree is not known: statfs of /var/lib/kubelet: the kernel does not answer"},
		"disk hung before":      {node(1, 0, 0), one("nodefs.available", "1"), apart.ErrStuck, "not answered an earlier look yet"},
		"nobody has images":     {node(1, 0, 0), one("imagefs.available", "1"), nil, "set --image-dir"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newCheck().judgeWith(t, tt.tree.Open(t), map[string]apart.FileSystem{kubeletDir: {Err: tt.disk}}, tt.s, nil)
			plugintest.Want(t, v, plugin.Unknown, tt.word)
		})
	}
}

// One signal that is not known does not hide another that is near.
func TestProblemBesideUnknown(t *testing.T) {
	disks := map[string]apart.FileSystem{kubeletDir: {Err: apart.ErrHangs}, "/images": roomy}
	v := newCheck().judgeWith(t, node(15990, 0, 0).Open(t), disks, hard(t), &imageDirs{Image: "/images"})
	plugintest.Want(t, v, plugin.Problem, "memory.available 10MiB")
	if !strings.Contains(v.Details[0], "nodefs.available is not known") {
		t.Errorf("details: %q", v.Details)
	}
}

// A whole look: file systems of this machine, thresholds from kubelet's file, remembered for ten minutes.
func TestLook(t *testing.T) {
	tree := node(8000, 0, 0)
	tree["var/lib/kubelet/config.yaml"] = "kind: KubeletConfiguration\nevictionHard: {memory.available: 100Mi, nodefs.available: 1, imagefs.inodesFree: 0%}\n"
	tree["var/lib/containerd/"] = ""
	h := tree.Open(t)
	c := newCheck()
	l := plugintest.Look(t, h)
	var log bytes.Buffer
	l.Log.Out = &log
	plugintest.Want(t, c.look(context.Background(), l), plugin.Unknown, "evictionHard: the value of", "is no text")

	const text = "kind: KubeletConfiguration\nevictionHard: {memory.available: 100Mi, nodefs.available: \"1\", imagefs.available: \"1\", imagefs.inodesFree: 0%}\n"
	write := func(text string) { hosttest.Tree{"var/lib/kubelet/config.yaml": text}.Write(t, h.Path("/")) }
	write(text)
	v := c.look(context.Background(), l)
	plugintest.Want(t, v, plugin.OK, "nearest to eviction: memory.available 7.8GiB, kubelet's threshold 100MiB")
	if len(v.Measurements) != 3 || !strings.Contains(log.String(), "without what its command line says: no address of kubelet") {
		t.Errorf("measurements %+v, log:\n%s", v.Measurements, log.String())
	}

	write(strings.Replace(text, "100Mi", "10Gi", 1))
	next := l.Next()
	next.Now = next.Now.Add(freshFor - time.Second)
	plugintest.Want(t, c.look(context.Background(), next), plugin.OK, "threshold 100MiB")
	next = next.Next()
	next.Now = next.Now.Add(time.Second)
	plugintest.Want(t, c.look(context.Background(), next), plugin.Problem, "memory.available 7.8GiB, kubelet evicts pods: it is below 10GiB")
}

// Kubelet's own configuration has the last word, and stands while kubelet is away.
func TestAskKubelet(t *testing.T) {
	answer := `{"kubeletconfig":{"evictionHard":{"memory.available":"8Gi"},"enforceNodeAllocatable":["pods"]}}`
	server := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/configz" || answer == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, answer)
	})
	tree := node(8000, 0, 0)
	tree["var/lib/kubelet/config.yaml"] = "kind: KubeletConfiguration\nevictionHard: {memory.available: 1Mi}\n"
	h := tree.Open(t)
	c := newCheck()
	c.access = *kubelettest.Access(t, server.Flags()...)
	l := plugintest.Look(t, h)
	plugintest.Want(t, c.look(context.Background(), l), plugin.Problem, "below 8GiB")

	answer = ""
	l = l.Next()
	l.Now = l.Now.Add(time.Hour)
	var log bytes.Buffer
	l.Log.Out = &log
	plugintest.Want(t, c.look(context.Background(), l), plugin.Problem, "below 8GiB")
	if !strings.Contains(log.String(), "keeping the thresholds that kubelet told before: kubelet forbids the service account to read /configz (403): it needs the RBAC rule get nodes/configz") {
		t.Errorf("log: %s", log.String())
	}
	plugintest.Want(t, c.look(context.Background(), plugintest.Look(t, h)), plugin.OK, "threshold 1MiB")
}

// Who fills a disk is what kubelet says.
func TestDiskConsumers(t *testing.T) {
	page, err := os.ReadFile("testdata/summary.json")
	if err != nil {
		t.Fatal(err)
	}
	server := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stats/summary" {
			w.Write(page)
		}
	})
	c := newCheck()
	c.access = *kubelettest.Access(t, server.Flags()...)
	tree := node(8000, 0, 0)
	tree["var/lib/kubelet/"] = ""
	full := map[string]apart.FileSystem{kubeletDir: disk(100*gib, gib, 1000, 10)}
	v := c.judgeWith(t, tree.Open(t), full, one("nodefs.available", "10%"), nil)
	plugintest.Want(t, v, plugin.Problem, "; most: images and containers' layers 9GiB, pod shop/cart-0 7GiB")
	v = c.judgeWith(t, tree.Open(t), full, one("nodefs.inodesFree", "10%"), nil)
	plugintest.Want(t, v, plugin.Problem, "; most: pod shop/cart-0 700 inodes, images and containers' layers 90 inodes")

	// With an image file system of its own the layers do not count for nodefs, and nothing else for imagefs.
	page = bytes.Replace(page, []byte(`"imageFs": {"capacityBytes": 107374182400`), []byte(`"imageFs": {"capacityBytes": 53687091200`), 1)
	v = c.judgeWith(t, tree.Open(t), full, one("nodefs.available", "10%"), nil)
	plugintest.Want(t, v, plugin.Problem, "; most: pod shop/cart-0 4GiB, pod shop/db-0 2GiB")
	full["/images"] = disk(50*gib, gib, 1000, 10)
	v = c.judgeWith(t, tree.Open(t), full, one("imagefs.available", "10%"), &imageDirs{Image: "/images"})
	plugintest.Want(t, v, plugin.Problem, "; most: images and containers' layers 9GiB, pod shop/cart-0 3GiB")

	page = []byte("{")
	plugintest.Want(t, c.judgeWith(t, tree.Open(t), full, one("nodefs.available", "10%"), nil), plugin.Problem, "who uses most is not known (see the log)")
}

func TestFindImages(t *testing.T) {
	const before = "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:40 / /cow rw - overlay overlay rw,lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work\n"
	for name, tt := range map[string]struct {
		mounts string
		want   *imageDirs
	}{
		"containerd": {before + "99 22 0:50 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/3f8a/rootfs rw - overlay overlay rw,lowerdir=/data/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/9/fs:/data/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/8/fs,upperdir=/data/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/12/fs,workdir=/data/w\n",
			&imageDirs{"/data/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots", "/data/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"}},
		"containerd 1.4, Linux 6.8": {before + "99 22 0:50 / /run/containerd/io.containerd.runtime.v1.linux/k8s.io/3f8a/rootfs rw - overlay overlay rw,lowerdir+=/c/snapshots/9/fs,lowerdir+=/c/snapshots/8/fs,upperdir=/c/snapshots/12/fs\n",
			&imageDirs{"/c/snapshots", "/c/snapshots"}},
		"CRI-O with an image store": {before + "99 22 0:50 / /var/lib/containers/storage/overlay/5d/merged rw - overlay overlay rw,lowerdir=/images/overlay/l/ABC:/images/overlay/l/DEF,upperdir=/var/lib/containers/storage/overlay/5d/diff\n",
			&imageDirs{"/images/overlay", "/var/lib/containers/storage/overlay"}},
		"the first has short paths": {before +
			"98 22 0:49 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/3f/rootfs rw - overlay overlay rw,lowerdir=9/fs:8/fs,upperdir=/c/snapshots/12/fs\n" +
			"99 22 0:50 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/4a/rootfs rw - overlay overlay rw,lowerdir=/c/snapshots/9/fs,upperdir=/c/snapshots/13/fs\n",
			&imageDirs{"/c/snapshots", "/c/snapshots"}},
		"no pod's": {before + "99 22 0:50 / /run/containerd/io.containerd.runtime.v2.task/moby/3f8a/rootfs rw - overlay overlay rw,lowerdir=/c/snapshots/9/fs,upperdir=/c/snapshots/12/fs\n", nil},
		"none":     {before, nil},
		"garbage":  {"garbage\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := findImages(hosttest.Tree{"proc/1/mountinfo": tt.mounts}.Open(t))
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want || (err == nil) == (got == nil) {
				t.Errorf("%+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzLayers(f *testing.F) {
	f.Add("rw,lowerdir=/a/b/c:/d/e/f,upperdir=/g/h/i,workdir=/j")
	f.Add("lowerdir+=/a,upperdir=/")
	f.Fuzz(func(t *testing.T, options string) {
		if d := layersOf(options); d != nil && (!strings.HasPrefix(d.Image, "/") || !strings.HasPrefix(d.Container, "/")) {
			t.Errorf("%q: %+v", options, d)
		}
	})
}

// A directory is asked for once in a look.
func TestStatfsOnce(t *testing.T) {
	tree := hosttest.Tree{"a/": "", "b/": ""}
	h := tree.Open(t)
	d := &fileSystems{ctx: context.Background(), host: h, known: map[string]apart.FileSystem{}}
	d.ask("/a", "", "/b", "/a", "/none")
	if len(d.known) != 3 || d.known["/a"].Size == 0 || d.known["/none"].Err == nil {
		t.Errorf("%+v", d.known)
	}
	if d.hangs("/none") != nil {
		t.Error("what is not there does not hang")
	}
}

func TestRemembered(t *testing.T) {
	s := settings{Thresholds: []threshold{{Signal: "memory.available", Quantity: 1}, {Signal: "nodefs.available", Share: 0.1, Soft: true, Grace: time.Minute}}, Pods: true, CgroupRoot: "/x", Source: "y"}
	b, err := json.Marshal(memory{Settings: &s, SettingsAt: 5, Images: &imageDirs{"/a", "/b"}})
	var m memory
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || !slices.Equal(m.Settings.Thresholds, s.Thresholds) || m.Settings.CgroupRoot != "/x" || *m.Images != (imageDirs{"/a", "/b"}) {
		t.Errorf("%s: %+v, %v", b, m, err)
	}
	if now := time.Unix(100, 0); fresh(now, 101) || !fresh(now, 100) || fresh(now.Add(freshFor), 100) {
		t.Error("fresh")
	}
}
