// Package faults makes real faults on a real kernel and container runtime and looks at them with the built checks,
// executed as node-problem-detector executes them: the fault turns a check to Problem and is named, healing turns it
// back, the harmless look-alike leaves it OK.
//
// The test binary runs on any machine as root, or as /init of an emulated one (see test/guest), where the machine's
// tables may really be exhausted. It carries all faults itself; of other programs it takes the checks, containerd,
// and runc.
package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

var binaries string

func TestMain(m *testing.M) {
	runPluginThatAsks()
	lab.RunCulprit()
	if os.Getpid() == 1 {
		runAsInit()
	}
	dir, remove, err := lab.Binaries()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := m.Run()
	remove()
	os.Exit(code)
}

// watcher looks with one check again and again, with the memory of its own that a check has between looks.
type watcher struct {
	check   string
	args    []string
	through []string // the command that runs the check, if any
}

// watch returns a watcher. Every single look counts (--failure-threshold 1); args come after that.
func watch(t *testing.T, check string, args ...string) *watcher {
	t.Helper()
	return &watcher{check: check, args: append([]string{"--state-dir", t.TempDir(), "--failure-threshold", "1"}, args...)}
}

// look runs the check once, under the limits NPD would give it, except for the time a slow machine needs.
func (w *watcher) look(t *testing.T) npd.PluginResult {
	t.Helper()
	command := append(slices.Clone(w.through), filepath.Join(binaries, w.check))
	command = append(command, w.args...)
	path, err := exec.LookPath(command[0])
	if err != nil {
		t.Fatal(err)
	}
	result := npd.RunPlugin(context.Background(), path, command[1:], 30*time.Second, 256)
	t.Logf("%s: %s in %v: %s", w.check, result.Status, result.Took.Round(time.Millisecond), result.Message)
	return result
}

// wantOK looks once and demands OK.
func (w *watcher) wantOK(t *testing.T) {
	t.Helper()
	if result := w.look(t); result.Status != npd.OK {
		t.Errorf("want OK; stderr:\n%s", result.Stderr)
	}
}

// wantProblem looks once and demands a Problem whose message holds all of these words.
func (w *watcher) wantProblem(t *testing.T, words ...string) {
	t.Helper()
	result := w.look(t)
	if result.Status != npd.NonOK {
		t.Errorf("want Problem; stderr:\n%s", result.Stderr)
		return
	}
	for _, word := range words {
		if !strings.Contains(result.Message, word) {
			t.Errorf("the message does not say %q", word)
		}
	}
}

// wantUnkept looks once and demands Unknown for a suspicion in these words, which a full disk lets nobody remember.
func (w *watcher) wantUnkept(t *testing.T, suspicion string) {
	t.Helper()
	result := w.look(t)
	if result.Status != npd.Unknown || !strings.HasPrefix(result.Message, suspicion) || !strings.Contains(result.Message, "no space left on device") {
		t.Errorf("want Unknown with %q; stderr:\n%s", suspicion, result.Stderr)
	}
}

// A pod and a container of it, as they appear in cgroup paths.
const (
	podUID      = "3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13"
	containerID = "9c1185a5c5e9fc54612808977ee8f548b2258d31c8b5b7a1e0f7a3d6e4c2b1a0"
	podCgroup   = "kubepods/burstable/pod" + podUID
)
