package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/host"
	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// Ways for a plugin to ask for the file system at a path and give up after a second. Only the first one can.
const (
	asksApart       = "statfs-apart"
	asksInGoroutine = "statfs-in-goroutine" // and exits while the call hangs
	asksInChild     = "statfs-in-child"     // which inherits stdout and stderr
)

const askTime = time.Second

// runPluginThatAsks turns this process into such a plugin when it was started as one, and does not return then.
func runPluginThatAsks() {
	apart.Serve()
	if len(os.Args) != 3 {
		return
	}
	ways := map[string]func(context.Context, string) error{asksApart: askApart, asksInGoroutine: askInGoroutine, asksInChild: askInChild}
	ask := ways[os.Args[1]]
	if ask == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	if err := ask(ctx, os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("answered")
	os.Exit(0)
}

func askApart(ctx context.Context, path string) error {
	h, err := host.Open("/")
	if err != nil {
		return err
	}
	answers, err := apart.Statfs(ctx, h, []string{path})
	if err != nil {
		return err
	}
	if answers[0].Err == nil && answers[0].Available != lab.FuseBlocksAvailable*lab.FuseBlockSize {
		return fmt.Errorf("statfs: %+v", answers[0])
	}
	return answers[0].Err
}

func askInGoroutine(ctx context.Context, path string) error {
	answer := make(chan error, 1)
	go func() { answer <- unix.Statfs(path, new(unix.Statfs_t)) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return apart.ErrHangs
	}
}

func askInChild(ctx context.Context, path string) error {
	child := exec.Command("/proc/self/exe", asksInGoroutine, path)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	answer := make(chan error, 1)
	go func() { answer <- child.Wait() }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		child.Process.Kill()
		return apart.ErrHangs
	}
}

// runAsking runs a plugin that asks as node-problem-detector would, with time enough for a slow machine.
func runAsking(t *testing.T, how, path string) npd.PluginResult {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	result := npd.RunPlugin(t.Context(), executable, []string{how, path}, 5*time.Second, 256)
	t.Logf("%s: %s in %v, hung %v: %s", how, result.Status, result.Took.Round(time.Millisecond), result.Hung, result.Message)
	return result
}

// asking returns the processes that a plugin left apart and that are not zombies.
func asking(t *testing.T) (pids []string) {
	t.Helper()
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range comms {
		comm, _ := os.ReadFile(path)
		threads, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "task/*/stat"))
		if string(comm) == "npd-statfs\n" && anyAlive(threads) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

func anyAlive(threads []string) bool {
	for _, path := range threads {
		if stat, err := os.ReadFile(path); err == nil && !strings.Contains(string(stat), ") Z ") {
			return true
		}
	}
	return false
}

// A question to a file system that does not answer: the plugin that asks in a process apart has its answer in time in each of ten
// runs, and leaves one process behind that goes with the fault. node-problem-detector would hang for ever with the
// plugins that ask in other ways.
func TestStatfsApart(t *testing.T) {
	lab.NeedRoot(t)
	fuse := lab.StartFuse(t)
	for _, how := range []string{asksApart, asksInGoroutine, asksInChild} {
		if result := runAsking(t, how, fuse.Dir); result.Status != npd.OK {
			t.Errorf("%s of a healthy file system: want OK", how)
		}
	}
	if left := asking(t); len(left) != 0 {
		t.Fatalf("processes left by an answered question: %v", left)
	}

	fuse.Silence(t)
	for run := range 10 {
		result := runAsking(t, asksApart, fuse.Dir)
		want := apart.ErrHangs
		if run > 0 {
			want = apart.ErrStuck
		}
		if result.Status != npd.NonOK || result.Hung || result.Message != want.Error() {
			t.Errorf("run %d: want %q", run, want)
		}
		if left := asking(t); len(left) != 1 {
			t.Errorf("run %d left %d processes, want the first one's: %v", run, len(left), left)
		}
	}
	other := lab.StartFuse(t)
	if result := runAsking(t, asksApart, other.Dir); result.Message != apart.ErrStuck.Error() {
		t.Errorf("another file system, while a process is stuck: want %q", apart.ErrStuck)
	}
	var others sync.WaitGroup
	for _, how := range []string{asksInGoroutine, asksInChild} {
		others.Go(func() {
			if result := runAsking(t, how, fuse.Dir); !result.Hung {
				t.Errorf("%s does not hang: this test would not notice a plugin that does", how)
			}
		})
	}
	others.Wait()

	fuse.Stop(t)
	lab.Eventually(t, 10*time.Second, "the process apart has ended", func() bool { return len(asking(t)) == 0 })
	if result := runAsking(t, asksApart, other.Dir); result.Status != npd.OK {
		t.Error("after the fault: want OK")
	}
	if result := runAsking(t, asksApart, filepath.Join(other.Dir, "absent")); result.Status != npd.NonOK || !strings.HasSuffix(result.Message, unix.ENOENT.Error()) {
		t.Error("a path that does not exist: want the error")
	}
}
