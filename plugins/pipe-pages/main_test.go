package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/internal/procfs"
)

const uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"

var full = defaultPages * os.Getpagesize()

func stat(pid int, comm string, state byte) string {
	return fmt.Sprintf("%d (%s) %c 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 500 0 0 18446744073709551615 0 0\n", pid, comm, state)
}

// holds adds a process with an end of that many pipes.
func holds(tree hosttest.Tree, pid int, comm string, state byte, user string, pipes int) {
	dir := fmt.Sprintf("proc/%d/", pid)
	tree[dir+"stat"] = stat(pid, comm, state)
	tree[dir+"status"] = "Name:\t" + comm + "\nUid:\t" + user + "\t" + user + "\t" + user + "\t" + user + "\n"
	tree[dir+"cgroup"] = "0::/kubepods/burstable/pod" + uid + "\n"
	tree[dir+"fd/0"] = "-> /dev/null"
	for i := range pipes {
		tree[fmt.Sprintf("%sfd/%d", dir, 10+i)] = fmt.Sprintf("-> pipe:[%d]", pid*10000+i)
	}
}

// node has a process of root with that many pipes, and one of another user with
// more.
func node(pipes int) hosttest.Tree {
	tree := hosttest.Tree{
		"proc/sys/fs/pipe-user-pages-soft":      "16384\n",
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
	holds(tree, 1, "systemd", 'S', "0", 1)
	holds(tree, 100, "hog", 'S', "0", pipes)
	holds(tree, 200, "busy", 'S', "1000", pipes+10)
	holds(tree, 300, "gone", 'Z', "0", 0)
	return tree
}

func TestJudge(t *testing.T) {
	tests := []struct {
		size   int
		status plugin.Status
		words  string
	}{
		{full, plugin.OK, fmt.Sprintf("a new pipe of uid 0 has its full %d bytes", full)},
		{16 * full, plugin.OK, fmt.Sprintf("a new pipe of uid 0 has its full %d bytes", 16*full)},
		{full / 8, plugin.Problem, fmt.Sprintf("new pipes of uid 0 get %d of %d bytes: fs.pipe-user-pages-soft (16384) is exceeded; "+
			"hog (pid 100) of pod shop/cart-0 holds 1100 pipes; runc before 1.0.0 hangs: raise the sysctl", full/8, full)},
		{full / 16, plugin.Problem, "is exceeded; hog (pid 100) of pod shop/cart-0 holds 1100 pipes"},
	}
	h := node(1100).Open(t)
	for _, tt := range tests {
		v := judge(t.Context(), plugintest.Look(t, h), tt.size)
		plugintest.Want(t, v, tt.status, tt.words)
		if v.Measurements[0].Value != float64(tt.size) {
			t.Errorf("%+v", v.Measurements)
		}
		if tt.status == plugin.Problem && (len(v.Details) != 2 || !strings.HasPrefix(v.Details[1], "systemd (pid 1)")) {
			t.Errorf("want the two processes of uid 0 that hold pipes: %q", v.Details)
		}
	}
}

func TestTenHolders(t *testing.T) {
	tree := node(40)
	for pid := 1000; pid < 1015; pid++ {
		holds(tree, pid, "w", 'S', "0", 2)
	}
	if v := judge(t.Context(), plugintest.Look(t, tree.Open(t)), 8192); len(v.Details) != 10 {
		t.Errorf("%d details, want ten: %q", len(v.Details), v.Details)
	}
}

// Without the host's /proc the fact stays, the culprit is missing.
func TestWithoutProc(t *testing.T) {
	v := judge(t.Context(), plugintest.Look(t, hosttest.Tree{}.Open(t)), full/8)
	if v.Status != plugin.Problem || !strings.Contains(v.Message, "fs.pipe-user-pages-soft is exceeded; runc before 1.0.0 hangs") {
		t.Errorf("%s: %s", v.Status, v.Message)
	}
}

// The probe itself: whoever runs the test, a pipe is a power of two of pages.
func TestPipeSize(t *testing.T) {
	size, err := pipeSize()
	if err != nil {
		t.Fatal(err)
	}
	if size < os.Getpagesize() || size&(size-1) != 0 {
		t.Errorf("a pipe of %d bytes", size)
	}
}

// The probe gives up capabilities on its own thread only.
func TestPipeSizeKeepsCapabilities(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	capabilities := func() string {
		b, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			t.Skip(err)
		}
		_, rest, _ := strings.Cut(string(b), "CapEff:")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	before := capabilities()
	if _, err := pipeSize(); err != nil {
		t.Fatal(err)
	}
	if after := capabilities(); after != before {
		t.Errorf("capabilities %s, before %s", after, before)
	}
}

func TestLook(t *testing.T) {
	v := look(context.Background(), plugintest.Look(t, node(40).Open(t)))
	outside, err := procfs.HostUID()
	if err != nil {
		t.Fatal(err)
	}
	if outside != 0 {
		plugintest.Want(t, v, plugin.Unknown, fmt.Sprintf("runs as uid %d of the host", outside), "run as root without a user namespace")
		return
	}
	if v.Status == plugin.Unknown || !strings.Contains(v.Message, "uid 0") {
		t.Errorf("%s: %s", v.Status, v.Message)
	}
}
