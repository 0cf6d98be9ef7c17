package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/internal/procfs"
)

// captured is a tree of testdata: "-- path --" before each file's content.
func captured(t testing.TB, kernel string) hosttest.Tree {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", kernel+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	tree, name := hosttest.Tree{}, ""
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(path, " --\n")
			tree[name] = ""
			continue
		}
		tree[name] += line
	}
	return tree
}

func kernels(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".txt")
	}
	return files
}

// with is the same tree with other files; an empty content takes a file away.
func with(tree hosttest.Tree, files ...string) hosttest.Tree {
	tree = maps.Clone(tree)
	for i := 0; i < len(files); i += 2 {
		if tree[files[i]] = files[i+1]; files[i+1] == "" {
			delete(tree, files[i])
		}
	}
	return tree
}

// room is a probe that finds room for that many instances, and for watches.
func room(free int) inotifyProbe {
	return func(most int) (int, bool, error) { return min(free, most), true, nil }
}

func plenty(most int) (int, bool, error) { return most, true, nil }

// needRoot skips a test of a whole look, which is Unknown for other users.
func needRoot(t *testing.T) {
	t.Helper()
	if uid, err := procfs.HostUID(); err != nil || uid != 0 {
		t.Skip("needs root: inotify instances are looked at as uid 0 of the host")
	}
}

func lookAt(t *testing.T, tree hosttest.Tree, probe inotifyProbe) plugin.Verdict {
	t.Helper()
	return (&check{80, probe}).look(context.Background(), plugintest.Look(t, tree.Open(t)))
}

// numbered has the measurements by name.
func numbered(v plugin.Verdict) map[string]plugin.Measurement {
	m := map[string]plugin.Measurement{}
	for _, measurement := range v.Measurements {
		m[measurement.Name] = measurement
	}
	return m
}

func TestHealthyKernels(t *testing.T) {
	needRoot(t)
	for _, kernel := range kernels(t) {
		t.Run(kernel, func(t *testing.T) {
			tree := captured(t, kernel)
			v := lookAt(t, tree, plenty)
			plugintest.Want(t, v, plugin.OK, "all tables have room; fullest: ")
			got := slices.Sorted(maps.Keys(numbered(v)))
			want := []string{"aio_requests", "conntrack_entries", "inotify_instances_free_at_least", "key_bytes", "keys", "mounts",
				"neighbours_ipv4", "neighbours_ipv6", "open_files", "ptys"}
			if tree["proc/sys/fs/mount-max"] == "" {
				want = slices.DeleteFunc(want, func(name string) bool { return name == "mounts" })
			}
			if strings.Count(tree[keyUsers], "\n") > 1 {
				want = append(want, "key_bytes_fullest_user", "keys_fullest_user")
				slices.Sort(want)
			}
			if !slices.Equal(got, want) {
				t.Errorf("measured %q, want %q", got, want)
			}
			forecast := 0
			for _, m := range v.Measurements {
				if m.Forecast {
					forecast++
				}
			}
			if forecast != 1 {
				t.Errorf("%d forecasts, want one of the fullest table", forecast)
			}
		})
	}
}

const (
	fileNr    = "proc/sys/fs/file-nr"
	keyUsers  = "proc/key-users"
	conntrack = "proc/1/net/stat/nf_conntrack"
	arp       = "proc/1/net/stat/arp_cache"
	ndisc     = "proc/1/net/stat/ndisc_cache"
	mountinfo = "proc/1/mountinfo"
)

// statRows replaces the first column of all rows of a file of net/stat.
func statRows(file string, entries int) string {
	lines := strings.SplitAfter(file, "\n")
	for i, line := range lines[1:] {
		if line != "" {
			lines[i+1] = fmt.Sprintf("%08x", entries) + line[8:]
		}
	}
	return strings.Join(lines, "")
}

func mountLines(n int, point string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d 27 0:41 / %s/%d rw,relatime - tmpfs tmpfs rw\n", 100+i, point, i)
	}
	return b.String()
}

// On every kernel each table that is full is told, with what to raise.
func TestFullTables(t *testing.T) {
	needRoot(t)
	for _, kernel := range kernels(t) {
		base := with(captured(t, kernel), "proc/sys/net/netfilter/nf_conntrack_max", "262144\n",
			"proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n", "proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024\n",
			"proc/sys/fs/aio-max-nr", "65536\n", "proc/sys/kernel/pty/max", "4096\n", "proc/sys/kernel/pty/reserve", "1024\n")
		tests := []struct {
			name   string
			status plugin.Status
			words  string
			files  []string
		}{
			{"files", plugin.Problem, "open files: 80 of 100, 80 percent; raise fs.file-max to 200", []string{fileNr, "80\t0\t100\n"}},
			{"files, just below", plugin.OK, "fullest: open files: 7999 of 10000, 79 percent", []string{fileNr, "7999\t0\t10000\n"}},
			{"files beyond the limit", plugin.Problem, "open files: 1433 of 831, 172 percent; raise fs.file-max to 2866", []string{fileNr, "1433\t0\t831\n"}},
			{"files without a limit", plugin.OK, "", []string{fileNr, "1000000\t0\t9223372036854775807\n"}},
			{"AIO", plugin.Problem, "AIO requests: 65536 of 65536, 100 percent; raise fs.aio-max-nr to 131072", []string{"proc/sys/fs/aio-nr", "65536\n"}},
			{"no AIO at all", plugin.OK, "", []string{"proc/sys/fs/aio-max-nr", "0\n"}},
			{"terminals", plugin.Problem, "pseudo-terminals: 2458 of 3072, 80 percent; raise kernel.pty.max to 8192", []string{"proc/sys/kernel/pty/nr", "2458\n"}},
			{"terminals, just below", plugin.OK, "", []string{"proc/sys/kernel/pty/nr", "2457\n"}},
			{"more terminals reserved than there are", plugin.OK, "", []string{"proc/sys/kernel/pty/reserve", "5000\n"}},
			{"keys of root", plugin.Problem, "keys of uid 0: 900000 of 1000000, 90 percent; raise kernel.keys.root_maxkeys to 2000000",
				[]string{keyUsers, "    0: 900001 900000/900000 900000/1000000 40/25000000\n"}},
			{"key bytes of root", plugin.Problem, "key bytes of uid 0: 24999990 of 25000000, 99 percent; raise kernel.keys.root_maxbytes to 50000000",
				[]string{keyUsers, "    0: 41 40/40 40/1000000 24999990/25000000\n"}},
			{"keys of others", plugin.Problem, "keys of uid 100000: 200 of 200, 100 percent; raise kernel.keys.maxkeys to 400; also near: key bytes of uid 100000",
				[]string{keyUsers, "    0: 9 8/8 3/1000000 40/25000000\n 1000: 170 170/170 170/200 1700/20000\n100000: 201 200/200 200/200 16000/20000\n"}},
			{"conntrack", plugin.Problem, "conntrack entries: 249036 of 262144, 94 percent; raise net.netfilter.nf_conntrack_max to 524288",
				[]string{conntrack, statRows(base[conntrack], 249036)}},
			{"conntrack without a limit", plugin.OK, "", []string{conntrack, statRows(base[conntrack], 249036), "proc/sys/net/netfilter/nf_conntrack_max", "0\n"}},
			{"IPv4 neighbours", plugin.Problem, "IPv4 neighbours: 1024 of 1024, 100 percent; raise net.ipv4.neigh.default.gc_thresh3 to 2048", []string{arp, statRows(base[arp], 1024)}},
			{"IPv6 neighbours", plugin.Problem, "IPv6 neighbours: 820 of 1024, 80 percent; raise net.ipv6.neigh.default.gc_thresh3 to 2048", []string{ndisc, statRows(base[ndisc], 820)}},
			{"mounts", plugin.Problem, "mounts of PID 1: 850 of 1000, 85 percent; raise fs.mount-max to 2000; most: pod shop/cart-0 600, below /run/netns 250",
				[]string{"proc/sys/fs/mount-max", "1000\n", mountinfo, mountLines(600, "/var/lib/kubelet/pods/"+uid+"/volumes/kubernetes.io~secret") + mountLines(250, "/run/netns"),
					"var/log/pods/shop_cart-0_" + uid + "/", "x"}},
		}
		for _, tt := range tests {
			t.Run(kernel+" "+tt.name, func(t *testing.T) {
				plugintest.Want(t, lookAt(t, with(base, tt.files...), plenty), tt.status, tt.words)
			})
		}
	}
}

const uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"

func TestInotify(t *testing.T) {
	needRoot(t)
	const max, user = "proc/sys/fs/inotify/max_user_instances", "proc/sys/user/max_inotify_instances"
	tests := []struct {
		name   string
		free   int
		status plugin.Status
		words  string
		files  []string
	}{
		{"room", 1000, plugin.OK, "", nil},
		{"just below", 26, plugin.OK, "", nil}, // 102 of 128
		{"near", 25, plugin.Problem, "inotify instances of uid 0: 103 of 128, 80 percent; raise fs.inotify.max_user_instances to 256", nil},
		{"full", 0, plugin.Problem, "inotify instances of uid 0: 128 of 128, 100 percent; raise fs.inotify.max_user_instances to 256", nil},
		{"no more than 256 are tried", 256, plugin.OK, "", []string{max, "8192\n", user, "8192\n"}},
		{"fewer than 256 left", 255, plugin.Problem, "inotify instances of uid 0: 7937 of 8192, 96 percent", []string{max, "8192\n", user, "8192\n"}},
		{"a user namespace of its own", 0, plugin.Problem, "20 of 20, 100 percent; raise user.max_inotify_instances to 40", []string{user, "20\n"}},
		{"a kernel without limits of user namespaces", 0, plugin.Problem, "128 of 128", []string{user, ""}},
		{"none at all", 0, plugin.OK, "", []string{max, "0\n", user, "0\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plugintest.Want(t, lookAt(t, with(captured(t, "6.18"), tt.files...), room(tt.free)), tt.status, tt.words)
		})
	}

	t.Run("watches", func(t *testing.T) {
		v := lookAt(t, captured(t, "6.18"), func(most int) (int, bool, error) { return most, false, nil })
		plugintest.Want(t, v, plugin.Problem, "inotify watches of uid 0: 192536 of 192536, 100 percent; raise fs.inotify.max_user_watches to 385072")
	})
	t.Run("failed", func(t *testing.T) {
		v := lookAt(t, captured(t, "6.18"), func(int) (int, bool, error) { return 0, false, errors.New("inotify_init: no memory: raise /proc/x") })
		plugintest.Want(t, v, plugin.Unknown, "inotify instances of uid 0 are not known: inotify_init: no memory")
	})
}

// Who holds files, and inotify instances, is named.
func TestHolders(t *testing.T) {
	needRoot(t)
	tree := with(captured(t, "6.18"), "proc/sys/kernel/osrelease", "6.1.0\n", "var/log/pods/shop_cart-0_"+uid+"/", "x",
		"proc/100/stat", stat(100, "hog"), "proc/100/status", "Name:\thog\nUid:\t0\t0\t0\t0\nFDSize:\t65536\n", "proc/100/cgroup", "0::/kubepods/pod"+uid+"\n",
		"proc/200/stat", stat(200, "busy"), "proc/200/status", "Name:\tbusy\nUid:\t1000\t1000\t1000\t1000\nFDSize:\t256\n",
		"proc/100/fd/3", "-> anon_inode:inotify", "proc/100/fd/4", "-> anon_inode:inotify", "proc/100/fd/5", "-> pipe:[1]", "proc/200/fd/3", "-> anon_inode:inotify",
		"proc/200/cgroup", "0::/system.slice/agent.service\n")
	v := lookAt(t, with(tree, fileNr, "90\t0\t100\n"), room(0))
	plugintest.Want(t, v, plugin.Problem, "inotify instances of uid 0: 128 of 128, 100 percent; raise fs.inotify.max_user_instances to 256; also near: open files") // with 2 of 128 nobody is to blame
	if details := strings.Join(v.Details, "\n"); !strings.Contains(details, "open files: 90 of 100, 90 percent; raise fs.file-max to 200\n") {
		t.Errorf("the details do not tell of the second table:\n%s", details)
	}
	v = lookAt(t, with(tree, fileNr, "9\t0\t10\n"), plenty)
	plugintest.Want(t, v, plugin.Problem, "open files: 9 of 10, 90 percent; raise fs.file-max to 20; most: hog (pid 100) of pod shop/cart-0 3, busy (pid 200) of agent.service 1")
}

func stat(pid int, comm string) string {
	return fmt.Sprintf("%d (%s) S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0 18446744073709551615 0 0\n", pid, comm)
}

// Permanent neighbours fill the table by the numbers, but never make the kernel
// collect garbage.
func TestExemptNeighbours(t *testing.T) {
	needRoot(t)
	base := captured(t, "6.18")
	full := statRows(base[arp], 1000)
	collected := strings.Replace(full, "00000000       00000000            00000000\n", "00000001       00000000            00000000\n", 1)
	look := func(l *plugin.Look, files ...string) (plugin.Verdict, *plugin.Look) {
		tree := with(base, files...)
		l.Host = tree.Open(t)
		v := (&check{80, plenty}).look(context.Background(), l)
		return v, l.Next()
	}
	v, next := look(plugintest.Look(t, base.Open(t)), arp, full)
	plugintest.Want(t, v, plugin.Problem, "IPv4 neighbours: 1000 of 1024") // nothing is remembered yet
	plugintest.WantSuspicion(t, v, "IPv4 neighbours: 1000 of 1024")
	v, next = look(next, arp, full)
	plugintest.Want(t, v, plugin.OK, "all tables have room")
	if m := numbered(v)["neighbours_ipv4"]; m.Value != 1000 || m.Limit != 1024 {
		t.Errorf("%+v", m)
	}
	v, next = look(next, arp, collected)
	plugintest.Want(t, v, plugin.Problem, "IPv4 neighbours: 1000 of 1024")
	v, next = look(next, arp, collected, "proc/sys/net/ipv4/neigh/default/gc_thresh2", "1000\n")
	plugintest.Want(t, v, plugin.Problem, "IPv4 neighbours: 1000 of 1024") // it would not have to collect yet
	v, _ = look(next)
	plugintest.Want(t, v, plugin.OK)
}

// What a kernel does not have is left out.
func TestMissingTables(t *testing.T) {
	needRoot(t)
	base := captured(t, "6.18")
	for _, group := range [][]string{
		{fileNr},
		{"proc/sys/fs/aio-nr", "proc/sys/fs/aio-max-nr"},
		{"proc/sys/kernel/pty/nr", "proc/sys/kernel/pty/max", "proc/sys/kernel/pty/reserve"},
		{"proc/sys/kernel/pty/reserve"},
		{keyUsers},
		{"proc/sys/fs/mount-max"},
		{conntrack, "proc/sys/net/netfilter/nf_conntrack_max"},
		{ndisc, "proc/sys/net/ipv6/neigh/default/gc_thresh3"},
		{"proc/sys/fs/inotify/max_user_instances", "proc/sys/fs/inotify/max_user_watches"},
	} {
		tree := base
		for _, file := range group {
			tree = with(tree, file, "")
		}
		plugintest.Want(t, lookAt(t, tree, plenty), plugin.OK, "all tables have room")
	}
}

// A table that is there and cannot be read is Unknown, with what mends it,
// unless another one is full.
func TestUnknown(t *testing.T) {
	needRoot(t)
	base := captured(t, "6.18")
	tests := []struct {
		want  string
		files []string
	}{
		{"open files are not known: read ", []string{fileNr, "many\n"}},
		{`"1 2" is not three numbers`, []string{fileNr, "1 2\n"}},
		{"fs.aio-nr is not known: read ", []string{"proc/sys/fs/aio-nr", "\xff%s\n"}},
		{"kernel.pty.max is not known: ", []string{"proc/sys/kernel/pty/max", "-1\n"}},
		{"keys are not known: read ", []string{keyUsers, "0: 1 2 3\n"}},
		{"keys are not known: read ", []string{keyUsers, "root: 9 8/8 3/1000000 40/25000000\n"}},
		{"mounts are not known: open ", []string{mountinfo, ""}},
		{"conntrack entries are not known: no row", []string{conntrack, "entries found\n"}},
		{"conntrack entries are not known: no column", []string{conntrack, "\n"}},
		{`conntrack entries are not known: "zz" is no number`, []string{conntrack, "entries found\nzz 0\n"}},
		{"conntrack entries are not known: this kernel counts them only in the host's network namespace: run with hostNetwork: true", []string{conntrack, ""}},
		{"net.netfilter.nf_conntrack_max is not in this network namespace: run with hostNetwork: true", []string{"proc/sys/net/netfilter/nf_conntrack_max", ""}},
		{"IPv4 neighbours are not known: net.ipv4.neigh.default.gc_thresh3 is only in the host's network namespace (open ", []string{"proc/sys/net/ipv4/neigh/default/gc_thresh3", ""}},
		{"IPv6 neighbours are not known: read ", []string{"proc/sys/net/ipv6/neigh/default/gc_thresh3", "x\n"}},
		{`"zz" is no number`, []string{ndisc, "entries x forced_gc_runs\n0 0 zz\n"}},
	}
	for _, tt := range tests {
		tree := with(base, tt.files...)
		plugintest.Want(t, lookAt(t, tree, plenty), plugin.Unknown, tt.want)
		plugintest.Want(t, lookAt(t, with(tree, "proc/sys/fs/aio-max-nr", "10\n", "proc/sys/fs/aio-nr", "9\n"), room(0)), plugin.Problem, "inotify instances")
	}
	plugintest.Want(t, lookAt(t, hosttest.Tree{}, plenty), plugin.Unknown, "none of the kernel's tables is in ", "mount the host's /proc there, or set --host-root")
}

func TestOtherUser(t *testing.T) {
	if uid, err := procfs.HostUID(); err != nil || uid == 0 {
		t.Skip("needs another user than root")
	}
	plugintest.Want(t, lookAt(t, captured(t, "6.18"), plenty), plugin.Unknown, "run as root without a user namespace")
}

// A kernel without statistics of conntrack has the count in the host's network
// namespace.
func TestConntrackWithoutStatistics(t *testing.T) {
	needRoot(t)
	tree := with(captured(t, "6.18"), conntrack, "", "proc/sys/net/nf_conntrack_max", "262144\n", "proc/sys/net/netfilter/nf_conntrack_count", "250000\n")
	plugintest.Want(t, lookAt(t, tree, plenty), plugin.Problem, "conntrack entries: 250000 of 262144")
}

// A link that leads elsewhere than to a namespace is not opened.
func TestNamespaceLink(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	h := with(captured(t, "6.18"), "proc/1/ns/net", "-> "+fifo).Open(t)
	if err := inNetworkOfHost(h, func() error { t.Error("called"); return nil }); err == nil || !strings.HasSuffix(err.Error(), "/proc/1/ns/net is no namespace") {
		t.Errorf("got %v", err)
	}
}

func TestMountDir(t *testing.T) {
	for point, want := range map[string]string{
		"/": "/", "/proc": "/", "/run/netns/cni-1": "/run/netns", "/a/b/c/d/e": "/a/b/c", "/var/lib/kubelet/pods/" + uid + "/volumes/x": "/var/lib/kubelet/pods/" + uid,
	} {
		if got := mountDir(point); got != want {
			t.Errorf("%q: %q, want %q", point, got, want)
		}
	}
}

func TestCountLines(t *testing.T) {
	lines := mountLines(5000, "/mnt")
	if n, err := countLines(t.Context(), strings.NewReader(lines)); n != 5000 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if n, err := countLines(ended, strings.NewReader(lines)); n == 0 || n == 5000 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d lines, %v; want the first ones when the time is over", n, err)
	}
	if n, err := countLines(t.Context(), io.MultiReader(strings.NewReader("a\nb"), brokenReader{})); n != 1 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

// The probe itself, whoever runs the test.
func TestProbe(t *testing.T) {
	fit, _, err := probeInotify(3)
	if err != nil || fit < 0 || fit > 3 {
		t.Errorf("%d, %v", fit, err)
	}
	inside, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	if again, _, err := probeInotify(fit); err != nil || again != fit {
		t.Errorf("%d fit at first, then %d, %v", fit, again, err)
	}
	if after, err := os.ReadDir("/proc/self/fd"); err != nil || len(after) > len(inside)+1 {
		t.Errorf("%d descriptors, before the probe %d; want one more at most", len(after), len(inside))
	}
}

// Descriptors that run out are not taken for instances that run out.
func TestProbeWithoutDescriptors(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 40
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	fit, _, err := probeInotify(60)
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); restored != nil {
		t.Fatal(restored)
	}
	if err == nil || !strings.Contains(err.Error(), "raise its limit (ulimit -n)") {
		t.Errorf("%d, %v", fit, err)
	}
}
