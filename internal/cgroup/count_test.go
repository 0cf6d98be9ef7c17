package cgroup

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
)

func TestNeedRoot(t *testing.T) {
	const v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
	ofContainer := hosttest.Tree{"sys/fs/cgroup/cgroup.controllers": "memory\n", "sys/fs/cgroup/cgroup.events": "populated 1\nfrozen 0\n"}
	with := func(namespace string) hosttest.Tree {
		tree := maps.Clone(ofContainer)
		tree["proc/1/ns/cgroup"] = "-> " + namespace
		return tree
	}
	for _, tt := range []struct {
		name  string
		tree  hosttest.Tree
		dir   string
		words []string // of the error, none for no error
	}{
		{"v1", hosttest.Tree{"sys/fs/cgroup/memory/cgroup.procs": "", "sys/fs/cgroup/memory/release_agent": "\n"}, v1, nil},
		{"v2", hosttest.Tree{"sys/fs/cgroup/cgroup.controllers": "memory\n"}, v2, nil},
		{"v1, of a container", hosttest.Tree{"sys/fs/cgroup/memory/cgroup.procs": ""}, v1, []string{"shows the cgroups of a container", "mount the host's /sys/fs/cgroup", "if the node itself"}},
		{"v2, of a container", ofContainer, v2, []string{"shows the cgroups of a container", "mount the host's /sys/fs/cgroup", "if the node itself"}},
		{"the node is none", with("cgroup:[4026531835]"), v2, []string{"shows the cgroups of a container", "mount the host's /sys/fs/cgroup"}},
		{"the node is one", with("cgroup:[4026532714]"), v2, []string{"the node itself is a container", "no mount helps", "--cgroupns=host"}},
		{"none", hosttest.Tree{}, v1, []string{"mount the host's /sys/fs/cgroup"}},
	} {
		err := NeedRoot(tt.tree.Open(t), tt.dir)
		if (err == nil) != (tt.words == nil) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, word := range tt.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: no %q in %v", tt.name, word, err)
			}
		}
	}
}

// nodeTree has the shape of a node: two parents in ten cgroups, the others are
// leaves. It returns how many cgroups there are, the root among them.
func nodeTree(t testing.TB, dir string, pods int) int {
	t.Helper()
	n := 1
	add := func(path string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
		n++
	}
	add("kubepods")
	for i := range pods {
		pod := fmt.Sprintf("kubepods/pod%d", i)
		add(pod)
		for c := range 4 {
			add(fmt.Sprintf("%s/%d", pod, c))
		}
	}
	add("kubepods/pod0/0/init.scope")
	return n
}

func TestCountTo(t *testing.T) {
	dir := t.TempDir()
	want := nodeTree(t, dir, 20)
	if err := os.WriteFile(filepath.Join(dir, "kubepods/cgroup.procs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pod1", filepath.Join(dir, "kubepods/link")); err != nil {
		t.Fatal(err)
	}
	h := hosttest.Open(t, dir)
	if n, err := CountTo(h, "/", 1000); n != want || err != nil {
		t.Errorf("%d, %v; want %d", n, err, want)
	}
	if n, err := CountTo(h, "/", 10); n < 10 || n >= want || err != nil {
		t.Errorf("to 10 of %d: %d, %v", want, n, err)
	}
	if n, err := CountTo(h, "/nowhere", 10); n != 0 || err == nil {
		t.Errorf("no hierarchy: %d, %v", n, err)
	}
}

// Another hierarchy has the same cgroups, fewer, or more: it only saves time.
func TestCountToWithOtherHierarchy(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"memory", "pids"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	memory, pids := filepath.Join(top, "memory"), filepath.Join(top, "pids")
	want := nodeTree(t, memory, 20)
	nodeTree(t, pids, 20)
	h := hosttest.Open(t, top)
	check := func(what string) {
		t.Helper()
		if n, err := CountTo(h, "/memory", 1000); n != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", what, n, err, want)
		}
	}
	check("the same")
	if err := os.RemoveAll(filepath.Join(pids, "kubepods/pod3")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(pids, "kubepods/pod4/2")); err != nil {
		t.Fatal(err)
	}
	check("fewer")
	if err := os.MkdirAll(filepath.Join(pids, "kubepods/pod5/more/of/it"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(pids, "kubepods/pod6/1"), filepath.Join(pids, "kubepods/pod6/renamed")); err != nil {
		t.Fatal(err)
	}
	check("others")
}

func TestCountToBounded(t *testing.T) {
	defer func(n int) { maxCgroups = n }(maxCgroups)
	maxCgroups = 50
	dir := t.TempDir()
	nodeTree(t, dir, 20)
	if n, err := CountTo(hosttest.Open(t, dir), "/", 1000); err == nil || !strings.Contains(err.Error(), "more than 50 cgroups") {
		t.Errorf("%d, %v", n, err)
	}
}

// What the link counts say is what a walk finds, on this kernel's cgroups.
func TestCountToOnKernel(t *testing.T) {
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/release_agent")
	if err != nil || len(hierarchies) == 0 {
		t.Skip("needs a hierarchy of cgroup v1 under /sys/fs/cgroup")
	}
	h := hosttest.Open(t, "/")
	for _, file := range hierarchies {
		dir := filepath.Dir(file)
		walked := 0
		err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				walked++
			}
			return nil
		})
		n, countErr := CountTo(h, dir, 1<<30)
		if err != nil || countErr != nil {
			t.Errorf("%s: %v, %v", dir, err, countErr)
		}
		if difference := n - walked; difference < -5 || difference > 5 { // others make and remove cgroups
			t.Errorf("%s: counted %d, walked %d", dir, n, walked)
		}
	}
}

func FuzzDirectories(f *testing.F) {
	entry := func(name string, kind byte, length int) []byte {
		b := make([]byte, length)
		binary.NativeEndian.PutUint16(b[16:], uint16(length))
		b[18] = kind
		copy(b[19:], name)
		return b
	}
	f.Add(append(entry("kubepods", unix.DT_DIR, 32), entry("tasks", unix.DT_REG, 32)...))
	f.Add(append(entry(".", unix.DT_DIR, 24), entry("x", unix.DT_UNKNOWN, 24)...))
	f.Add(entry("", unix.DT_DIR, 20)[:19])
	f.Fuzz(func(t *testing.T, entries []byte) {
		names := appendDirectories(nil, entries)
		if len(names) > len(entries)/20 {
			t.Errorf("%d names in %d bytes", len(names), len(entries))
		}
		for _, name := range names {
			if name == "." || name == ".." || strings.Contains(name, "\x00") {
				t.Errorf("name %q", name)
			}
		}
	})
}
