// Package contract tests on every built check what node-problem-detector relies on: the exit code, one line of ASCII
// without "%", at most 256 bytes, before --timeout, whatever the host, the runtime or the state directory are like.
//
// The checks are found in plugins/, and their flags in --help, so that a new check is tested without a line here.
package contract

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/plugin"
	"npd-plugins/test/lab"
)

// A check as its folder and --help tell it.
type check struct {
	name  string
	path  string // of the binary
	help  string
	flags []flagDoc
}

// flagDoc is a line of the flags in --help.
type flagDoc struct {
	name     string // "host-root"
	argument string // "directory", "" for a flag without one
	preset   string // the default
}

// readsNothing lists the checks that read no file of the host when all is well, so that an empty host is not Unknown.
var readsNothing = map[string]string{"clock": "asks the kernel for the state of the clock", "pipe-pages": "asks for the size of a pipe of its own"}

// modelled has the checks that must be OK on the healthy host of host_test.go and say Problem of the sick one of
// names_test.go. Of other checks only the contract is wanted there, as these hosts may lack what they read.
var modelled = map[string]bool{"cri-latency": true, "cri-list-size": true, "dying-cgroups": true, "eviction": true, "journal-count": true, "kernel-tables": true, "memory-stall": true, "readonly-fs": true, "runc-init": true, "service-restarts": true, "stuck-tasks": true, "systemd-units": true, "task-limit": true, "zombies": true}

// asks has what a check is told to look for, where it does nothing without, and what makes the first look at a machine that is not
// modelled count, whatever is wrong with it.
var asks = map[string][]string{"clock": {"--failure-threshold=1"}, "journal-count": {"--identifier=kubelet", "--pattern=PLEG is not healthy.*"}}

// extraArgs makes a check say Problem of the sick host.
var extraArgs = map[string][]string{
	"cri-latency":   {"--slow=1us"},   // no runtime is that fast
	"cri-list-size": {"--limit=1KiB"}, // the fake runtime's lists are short
	"stuck-tasks":   {"--age=1s"},     // time stands still on the sick host
	"task-limit":    {"--failure-threshold=1"},
}

// tellsSilence has the checks for which a runtime that does not answer is the finding and not a failed look, and the
// arguments with which one look within timeout is enough to say so.
var tellsSilence = map[string][]string{"cri-latency": {"--slow=2s", "--failure-threshold=1"}}

var checks []check

func TestMain(m *testing.M) {
	flag.Parse()
	// Most cases wait for a deadline, not for the CPU.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, remove, err := lab.Binaries()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	if checks, err = findChecks(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func findChecks(dir string) ([]check, error) {
	folders, err := filepath.Glob("../../plugins/*/main.go")
	if err != nil || len(folders) == 0 {
		return nil, fmt.Errorf("no plugins/*/main.go: %v", err)
	}
	var found []check
	for _, folder := range folders {
		name := filepath.Base(filepath.Dir(folder))
		c := check{name: name, path: filepath.Join(dir, name)}
		r := npd.RunPlugin(context.Background(), c.path, []string{"--help"}, 10*time.Second, npd.MaxPluginOutput)
		if r.ExitCode != 0 {
			return nil, fmt.Errorf("%s --help: exit code %d: %s%s", name, r.ExitCode, r.Message, r.Stderr)
		}
		c.help = r.Message
		for _, m := range flagLine.FindAllStringSubmatch(c.help, -1) {
			f := flagDoc{name: m[1], argument: m[2]}
			if d := presetNote.FindStringSubmatch(m[3]); d != nil {
				f.preset = d[1]
			}
			c.flags = append(c.flags, f)
		}
		found = append(found, c)
	}
	return found, nil
}

var (
	flagLine   = regexp.MustCompile(`(?m)^  --([a-z-]+) ?([a-z]*)  +(.*)$`)
	presetNote = regexp.MustCompile(`\(default ([^()]*)\)$`)
)

func (c check) has(flag string) bool {
	for _, f := range c.flags {
		if f.name == flag {
			return true
		}
	}
	return false
}

func (c check) usesCRI() bool { return c.has("cri-endpoint") }

// eachCheck runs the test on every check for which want says true, nil for all.
func eachCheck(t *testing.T, want func(check) bool, test func(*testing.T, check)) {
	t.Parallel()
	for _, c := range checks {
		if want == nil || want(c) {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				test(t, c)
			})
		}
	}
}

// timeout is the --timeout of all runs. A check has a tenth of it left for its verdict when something hangs, on a machine
// that is busy with other cases.
const timeout = 6 * time.Second

// run runs the check as NPD does, with a state directory of its own unless the arguments name one, and holds what it
// told against the contract.
func (c check) run(t *testing.T, args ...string) npd.PluginResult {
	t.Helper()
	base := []string{"--timeout=" + timeout.String(), "--state-dir=" + filepath.Join(t.TempDir(), "state")}
	args = append(base, args...)
	// The maximum is NPD's buffer and not our 256 bytes, to see a line that is too long.
	r := npd.RunPlugin(context.Background(), c.path, args, 2*timeout, npd.MaxPluginOutput)
	for _, breach := range breaches(r) {
		t.Errorf("%s %q: %s\nstdout: %q\nstderr: %s", c.name, args, breach, r.Message, r.Stderr)
	}
	return r
}

// breaches tells what of the contract a run did not keep.
func breaches(r npd.PluginResult) (found []string) {
	breach := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if r.ExitCode < 0 || r.ExitCode > 2 {
		breach("exit code %d, want 0, 1 or 2", r.ExitCode)
	}
	if r.Took >= timeout {
		breach("took %v, want less than --timeout=%v", r.Took, timeout)
	}
	if r.Message == "" || len(r.Message) > plugin.MaxMessage {
		breach("message of %d bytes, want 1 to %d", len(r.Message), plugin.MaxMessage)
	}
	if i := strings.IndexFunc(r.Message, func(c rune) bool { return c < ' ' || c > '~' || c == '%' }); i >= 0 {
		breach("message has %q at byte %d, want a line of printable ASCII without %%", r.Message[i], i)
	}
	if strings.Contains(r.Message, "panic") || strings.Contains(r.Stderr, "goroutine ") {
		breach("panicked")
	}
	return found
}

// wantUnknown runs the check and wants exit code 2 with a message in which each of the patterns is found.
func (c check) wantUnknown(t *testing.T, args []string, patterns ...string) npd.PluginResult {
	t.Helper()
	r := c.run(t, args...)
	if r.Status != npd.Unknown {
		t.Errorf("%s %q is %v, want Unknown: %s", c.name, args, r.Status, r.Message)
	}
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(r.Message) {
			t.Errorf("%s %q: message %q, want %q in it", c.name, args, r.Message, p)
		}
	}
	return r
}

// wantSilence runs the check on a host whose runtime does not answer, and wants a Problem of the checks that look for
// that, and of others Unknown, with a message in which the pattern is found.
func (c check) wantSilence(t *testing.T, root, pattern string) npd.PluginResult {
	t.Helper()
	args, isFinding := tellsSilence[c.name]
	if !isFinding {
		return c.wantUnknown(t, c.on(root), pattern)
	}
	r := c.run(t, c.on(root, args...)...)
	if r.Status != npd.NonOK || !regexp.MustCompile(pattern).MatchString(r.Message) {
		t.Errorf("%s %q is %v, want a Problem with %q: %s", c.name, args, r.Status, pattern, r.Message)
	}
	return r
}
