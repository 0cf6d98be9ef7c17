package plugin

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
)

// machine is a node with a check on it that says what the test wants it to.
type machine struct {
	t        *testing.T
	root     string
	stateDir string
	verdict  Verdict
	look     func(context.Context, *Look) Verdict // in place of the verdict
	args     []string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir(), stateDir: filepath.Join(t.TempDir(), "state")}
	m.boot("boot-1")
	return m
}

func (m *machine) boot(id string) {
	hosttest.Tree{"proc/sys/kernel/random/boot_id": id + "\n"}.Write(m.t, m.root)
}

type result struct {
	code           int
	stdout, stderr string
}

func (m *machine) run(args ...string) result {
	m.t.Helper()
	c := Check{Name: "toy", Condition: "ToyBroken", Purpose: "Toys break.", Reads: []string{"/toys"}, Needs: "hands",
		LookAlikes: "a toy that is put away", Example: "--toys=3", FailureThreshold: 1, Timeout: 20 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			var n, percent, most int
			var d time.Duration
			var b uint64
			CountVar(fs, &n, "toys", 3, "how many, a `number`")
			PercentVar(fs, &percent, "percent", 80, "a `share`")
			DurationVar(fs, &d, "age", 2*time.Minute, "a `duration`")
			BytesVar(fs, &b, "limit", 16<<20, "a `size`")
			OptionalCountVar(fs, &most, "most", "a `number`")
		},
		Look: func(ctx context.Context, l *Look) Verdict {
			if m.look != nil {
				return m.look(ctx, l)
			}
			return m.verdict
		}}
	var stdout, stderr bytes.Buffer
	all := append([]string{"--host-root", m.root, "--state-dir", m.stateDir}, m.args...)
	code := run(c, append(all, args...), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// tell runs the check with a verdict.
func (m *machine) tell(s Status, message string) result {
	m.t.Helper()
	m.verdict = Verdict{Status: s, Message: message}
	return m.run()
}

func (m *machine) want(r result, s Status, message string) {
	m.t.Helper()
	if r.code != int(s) || r.stdout != message+"\n" {
		m.t.Errorf("exit %d, %q; want %d, %q; stderr:\n%s", r.code, r.stdout, s, message, r.stderr)
	}
}

func TestVerdict(t *testing.T) {
	long := strings.Repeat("x", 300)
	tests := []struct {
		status        Status
		message, want string
	}{
		{OK, "all well", "all well"},
		{Problem, "3 toys broken", "3 toys broken"},
		{Unknown, "no hands", "no hands"},
		{Problem, "95% used, %s %!", "95? used, ?s ?!"},
		{Problem, "name \x1b[31mred\x1b[0m\x00\x7f", "name ?[31mred?[0m??"},
		{Problem, "two\nlines\tand\ra tab", "two lines and a tab"},
		{Problem, "invalid \xff\xfe, \u00fcber, \u2028", "invalid ??, ?ber, ?"},
		{Problem, long, long[:254] + ".."},
		{Problem, long[:256], long[:256]},
	}
	for _, tt := range tests {
		m := newMachine(t)
		m.want(m.tell(tt.status, tt.message), tt.status, tt.want)
	}
}

func TestSafe(t *testing.T) {
	tests := []struct {
		s    string
		max  int
		want string
	}{
		{"", 10, ""},
		{"nginx", 5, "nginx"},
		{"nginx1", 5, "ngi.."},
		{strings.Repeat("%", 4096), 8, "??????.."},
		{"\u00e4\u00e4\u00e4", 3, "???"},
	}
	for _, tt := range tests {
		if got := Safe(tt.s, tt.max); got != tt.want {
			t.Errorf("Safe(%.20q, %d) = %q, want %q", tt.s, tt.max, got, tt.want)
		}
	}
}

func TestCount(t *testing.T) {
	for want, got := range map[string]string{
		"0 tasks": Count(0, "task"), "1 task": Count(1, "task"), "2 tasks": Count(2, "task"),
		"1 process": Count(1, "process"), "2 processes": Count(2, "process"), "1 entry": Count(1, "entry"), "3 entries": Count(3, "entry"), "2 sandboxes": Count(2, "sandbox"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	m := newMachine(t)
	m.look = func(context.Context, *Look) Verdict {
		t.Error("looked although the call was wrong")
		return Verdict{}
	}
	tests := []struct {
		args string
		want string
	}{
		{"--colour=red", "toy: flag provided but not defined: -colour (see --help)"},
		{"--toys", "toy: flag needs an argument: -toys (see --help)"},
		{"--toys=0", `toy: invalid value "0" for flag -toys: want a whole number from 1 to 1073741824 (see --help)`},
		{"--toys=1.5", `toy: invalid value "1.5" for flag -toys: want a whole number from 1 to 1073741824 (see --help)`},
		{"--most=-1", `toy: invalid value "-1" for flag -most: want a whole number from 1 to 1073741824 (see --help)`},
		{"--percent=101", `toy: invalid value "101" for flag -percent: want a whole number from 1 to 100 (see --help)`},
		{"--percent=50%", `toy: invalid value "50?" for flag -percent: want a whole number from 1 to 100 (see --help)`},
		{"--age=0s", `toy: invalid value "0s" for flag -age: want a duration above zero, such as 30s or 2m (see --help)`},
		{"--age=5", `toy: invalid value "5" for flag -age: want a duration above zero, such as 30s or 2m (see --help)`},
		{"--timeout=-1s", `toy: invalid value "-1s" for flag -timeout: want a duration above zero, such as 30s or 2m (see --help)`},
		{"--limit=0", `toy: invalid value "0" for flag -limit: want a size above zero, such as 16MiB (see --help)`},
		{"--limit=MiB", `toy: invalid value "MiB" for flag -limit: want a size above zero, such as 16MiB (see --help)`},
		{"--limit=16iB", `toy: invalid value "16iB" for flag -limit: want a size above zero, such as 16MiB (see --help)`},
		{"--limit=-4K", `toy: invalid value "-4K" for flag -limit: want a size above zero, such as 16MiB (see --help)`},
		{"--failure-threshold=0", `toy: invalid value "0" for flag -failure-threshold: want a whole number from 1 to 1073741824 (see --help)`},
		{"--output=xml", `toy: invalid value "xml" for flag -output: want npd, table, json, nagios or textfile (see --help)`},
		{"--log-level=loud", `toy: invalid value "loud" for flag -log-level: want error, warning, info or debug (see --help)`},
		{"--version=maybe", `toy: invalid boolean value "maybe" for -version: parse error (see --help)`},
		{"now", `toy: unexpected argument "now" (see --help)`},
		{"--toys=\n\x1b[31m", `toy: invalid value "\n\x1b[31m" for flag -toys: want a whole number from 1 to 1073741824 (see --help)`},
	}
	for _, tt := range tests {
		m.want(m.run(tt.args), Unknown, tt.want)
	}
	if r := m.run("--toys=" + strings.Repeat("x", 5000)); r.code != 2 || len(r.stdout) > MaxMessage+1 || !strings.Contains(r.stdout, "toys") && !strings.Contains(r.stdout, "..") {
		t.Errorf("a long value: exit %d, %q", r.code, r.stdout)
	}
}

func TestFlagValues(t *testing.T) {
	var n, most int
	var d time.Duration
	var b uint64
	fs := flag.NewFlagSet("toy", flag.ContinueOnError)
	PercentVar(fs, &n, "percent", 80, "")
	OptionalCountVar(fs, &most, "most", "")
	DurationVar(fs, &d, "age", time.Minute, "")
	BytesVar(fs, &b, "limit", 4<<20, "")
	if n != 80 || most != 0 || d != time.Minute || b != 4<<20 {
		t.Errorf("defaults: %d, %d, %v, %d", n, most, d, b)
	}
	if err := fs.Parse([]string{"--percent=100", "--most=7", "--age=1h30m"}); err != nil || n != 100 || most != 7 || d != 90*time.Minute {
		t.Errorf("%d, %d, %v, %v", n, most, d, err)
	}
	for text, want := range map[string]uint64{
		"1": 1, "4194304": 4 << 20, "12B": 12, "2K": 2048, "2Ki": 2048, "2KiB": 2048, "16M": 16 << 20, "16Mi": 16 << 20, "16MiB": 16 << 20,
		"3G": 3 << 30, "3Gi": 3 << 30, "3GiB": 3 << 30,
	} {
		if err := fs.Parse([]string{"--limit=" + text}); err != nil || b != want {
			t.Errorf("--limit=%s: %d, %v; want %d", text, b, err, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[float64]string{0: "0B", 512: "512B", 1024: "1KiB", 1100: "1.1KiB", 7654321: "7.3MiB", 16 << 20: "16MiB", 3 << 40: "3TiB", 5 << 50: "5120TiB"} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%v) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{8 * time.Second: "8s", 2 * time.Minute: "2m", 90 * time.Minute: "1h30m", 2 * time.Hour: "2h", 61 * time.Second: "1m1s", 10 * time.Minute: "10m"} {
		if got := shortDuration(d); got != want {
			t.Errorf("shortDuration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestHelp(t *testing.T) {
	m := newMachine(t)
	for _, arg := range []string{"--help", "-h"} {
		r := m.run(arg)
		if r.code != 0 {
			t.Errorf("%s: exit %d", arg, r.code)
		}
		for _, want := range []string{
			"toy: node condition ToyBroken\n\nToys break.\n",
			"Reads:\n  /toys\n", "Needs:\n  hands\n", "Stays OK:\n  a toy that is put away\n",
			"--age duration                 a duration (default 2m)\n",
			"--limit size                   a size (default 16MiB)\n",
			"--most number                  a number\n",
			"--percent share                a share (default 80)\n",
			"--timeout duration             ", "(default 20s)\n",
			"--failure-threshold number     Problem after this number of consecutive failures; recovery is immediate (default 1)\n",
			"--state-dir directory          ", "(default /run/npd-plugins)\n",
			"--version                      print the version and exit\n",
			"0 OK, 1 Problem, 2 Unknown", "Example:\n  toy --toys=3\n",
		} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%s does not say %q:\n%s", arg, want, r.stdout)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	if r := newMachine(t).run("--version"); r.code != 0 || !strings.HasPrefix(r.stdout, "toy devel go1.") || strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("exit %d, %q", r.code, r.stdout)
	}
}

func TestDebounce(t *testing.T) {
	m := newMachine(t)
	m.args = []string{"--failure-threshold=3"}
	m.want(m.tell(Problem, "broken"), OK, "bad look 1 of 3: broken")
	m.want(m.tell(Problem, "broken"), OK, "bad look 2 of 3: broken")
	m.want(m.tell(OK, "well"), OK, "well") // and the count begins anew
	m.want(m.tell(Problem, "broken"), OK, "bad look 1 of 3: broken")
	m.want(m.tell(Problem, "broken"), OK, "bad look 2 of 3: broken")
	m.want(m.tell(Problem, "broken"), Problem, "broken")
	m.want(m.tell(Problem, "still broken"), Problem, "still broken")
	m.want(m.tell(OK, "well"), OK, "well") // recovery at once
}

func TestFailedLooksKeepTheVerdict(t *testing.T) {
	m := newMachine(t)
	m.want(m.tell(Unknown, "no hands"), Unknown, "no hands") // nothing to keep yet

	m.want(m.tell(Problem, "broken"), Problem, "broken")
	for i := 1; i <= 4; i++ {
		r := m.tell(Unknown, "no hands")
		m.want(r, Problem, "broken")
		if told := strings.Contains(r.stderr, "look 1 in a row failed, keeping the last verdict: no hands"); told != (i == 1) {
			t.Errorf("stderr after failed look %d: %q", i, r.stderr)
		}
	}
	m.want(m.tell(Unknown, "no hands"), Unknown, "no hands")
	m.want(m.tell(Unknown, "no hands"), Unknown, "no hands")

	m.want(m.tell(OK, "well"), OK, "well")
	m.want(m.tell(Unknown, "no hands"), OK, "was OK; cannot look now: no hands")
	m.want(m.tell(OK, "well"), OK, "well") // and four more may fail
	for range 4 {
		m.want(m.tell(Unknown, "no hands"), OK, "was OK; cannot look now: no hands")
	}
	m.want(m.tell(Unknown, "no hands"), Unknown, "no hands")
}

// A look that failed neither counts as a bad one nor as a good one.
func TestFailedLookDuringDebounce(t *testing.T) {
	m := newMachine(t)
	m.args = []string{"--failure-threshold=2"}
	m.want(m.tell(Problem, "broken"), OK, "bad look 1 of 2: broken")
	m.want(m.tell(Unknown, "no hands"), OK, "was OK; cannot look now: no hands")
	m.want(m.tell(Problem, "broken"), Problem, "broken")
}

// A warning that each look would repeat is written once, and again when it was gone for long or is another one.
func TestWarningsOnce(t *testing.T) {
	m := newMachine(t)
	warn := func(args []string, lines ...string) string {
		t.Helper()
		m.look = func(_ context.Context, l *Look) Verdict {
			for _, line := range lines {
				l.Log.Warn(line)
			}
			return Verdict{Message: "well"}
		}
		return m.run(args...).stderr
	}
	for i, step := range []struct {
		lines []string
		args  []string
		want  int // lines on stderr
	}{
		{lines: []string{"box 1 is open for 5 s", "no key"}, want: 2},
		{lines: []string{"box 1 is open for 35 s", "no key"}, want: 0},
		{lines: []string{"box 1 is open for 65 s", "no lock"}, want: 1},
		{lines: []string{"box 1 is open for 95 s", "no lock"}, args: []string{"--log-level=info"}, want: 2},
		{lines: nil, want: 0},
		{lines: []string{"no lock"}, want: 0},
		{lines: []string{"no lock"}, args: []string{"--state-dir=/proc/no"}, want: 2}, // with "no memory between runs"
	} {
		if got := warn(step.args, step.lines...); strings.Count(got, "\n") != step.want {
			t.Errorf("look %d: want %d lines: %q", i, step.want, got)
		}
	}
	// Half an hour later.
	file := filepath.Join(m.stateDir, "toy.state")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	step := time.Now().Unix() / int64(saidStep.Seconds())
	for _, now := range []int64{step, step - 1} { // the run before may have been in the step before
		text = bytes.ReplaceAll(text, fmt.Appendf(nil, "@%d", now), fmt.Appendf(nil, "@%d", step-3))
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := warn(nil, "no lock"); strings.Count(got, "\n") != 1 {
		t.Errorf("after half an hour: %q", got)
	}
	m.look = func(_ context.Context, l *Look) Verdict { panic("no box") }
	for range 2 {
		if r := m.run(); !strings.Contains(r.stderr, "panic: no box") {
			t.Errorf("a panic is silent: %q", r.stderr)
		}
	}
}

func TestDetailsAtOnset(t *testing.T) {
	m := newMachine(t)
	m.args = []string{"--failure-threshold=2"}
	m.verdict = Verdict{Status: Problem, Message: "broken", Details: []string{"the red ball", "the 7% duck\n\x1b[31m"}}
	for i, want := range []int{0, 1, 0} { // looks: bad, Problem, still Problem
		if r := m.run(); strings.Count(r.stderr, "the red ball") != want || strings.Count(r.stderr, "the 7? duck ?[31m") != want {
			t.Errorf("look %d: want the details %d times in %q", i+1, want, r.stderr)
		}
	}
	m.tell(OK, "well")
	m.verdict = Verdict{Status: Problem, Message: "broken", Details: []string{"the red ball"}}
	m.run()
	if r := m.run(); strings.Count(r.stderr, "the red ball") != 1 {
		t.Errorf("the next onset was not logged: %q", r.stderr)
	}
}

func TestRecall(t *testing.T) {
	type memory struct{ Toys []int }
	m := newMachine(t)
	var recalled memory
	var had bool
	remember := any(memory{[]int{1, 2, 3}})
	m.look = func(_ context.Context, l *Look) Verdict {
		recalled = memory{}
		had = l.Recall(&recalled)
		if remember != nil {
			l.Remember(remember)
		}
		return Verdict{Message: "well"}
	}
	m.run()
	if had {
		t.Error("the first look recalls something")
	}
	m.run()
	if !had || len(recalled.Toys) != 3 {
		t.Errorf("recalled %v, %+v", had, recalled)
	}
	remember = nil
	m.run()
	if m.run(); !had {
		t.Error("a look that remembers nothing makes the next forget")
	}
	m.boot("boot-2")
	if m.run(); had {
		t.Error("recalled what belongs to another boot")
	}

	remember = "a word"
	m.run()
	remember = nil
	if r := m.run(); had || r.code != 0 || !strings.Contains(r.stderr, "ignoring the memory of the last look") {
		t.Errorf("recalled a memory of another shape: %v, %+v", had, r)
	}
	remember = func() {} // JSON cannot hold it
	if r := m.run(); r.code != 0 || !strings.Contains(r.stderr, "cannot remember") {
		t.Errorf("%+v", r)
	}
}

func TestNext(t *testing.T) {
	l := &Look{Now: time.Unix(1, 0)}
	var n int
	if l.Recall(&n) || l.Next().Recall(&n) {
		t.Error("recalled what was never remembered")
	}
	l.Remember(7)
	if !l.Next().Recall(&n) || n != 7 || l.Recall(&n) {
		t.Errorf("recalled %d, want 7 in the next look and nothing in the same", n)
	}
}

func TestPanic(t *testing.T) {
	m := newMachine(t)
	m.look = func(context.Context, *Look) Verdict { panic(errors.New("100% wrong\nindex out of range")) }
	r := m.run()
	m.want(r, Unknown, "internal error: panic: 100? wrong index out of range; please report it")
	if !strings.Contains(r.stderr, "plugin_test.go") {
		t.Errorf("no stack trace on stderr: %q", r.stderr)
	}
}

// The deadline of the check's own calls comes first, and what does not heed it is left behind.
func TestDeadline(t *testing.T) {
	m := newMachine(t)
	var allowed time.Duration
	m.look = func(ctx context.Context, l *Look) Verdict {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("no deadline")
		}
		allowed = time.Until(deadline)
		return Verdict{Message: "well"}
	}
	m.run("--timeout=1000s")
	if allowed > 800*time.Second || allowed < 700*time.Second {
		t.Errorf("of a timeout of 1000 s the check is allowed %v, want 800 s", allowed)
	}

	m.look = func(ctx context.Context, l *Look) Verdict {
		<-ctx.Done()
		return Unknownf("the server does not answer")
	}
	m = &machine{t: t, root: m.root, stateDir: t.TempDir(), look: m.look}
	m.want(m.run("--timeout=500ms"), Unknown, "the server does not answer")

	hangs := make(chan struct{})
	defer close(hangs)
	m.look = func(context.Context, *Look) Verdict {
		<-hangs
		return Verdict{}
	}
	m = &machine{t: t, root: m.root, stateDir: t.TempDir(), look: m.look}
	start := time.Now()
	m.want(m.run("--timeout=500ms"), Unknown, "no verdict within --timeout 500ms: the node is short of CPU, or a call hangs")
	if took := time.Since(start); took < 450*time.Millisecond {
		t.Errorf("gave up after %v of 500 ms", took)
	}
}

func TestSignal(t *testing.T) {
	m := newMachine(t)
	hangs := make(chan struct{})
	defer close(hangs)
	m.look = func(context.Context, *Look) Verdict {
		time.Sleep(3 * quick) // before that it would just end
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-hangs
		return Verdict{}
	}
	m.want(m.run(), Unknown, `ended by signal "terminated" before the verdict`)
}

func TestHostRootMissing(t *testing.T) {
	m := newMachine(t)
	m.want(m.tell(Problem, "broken"), Problem, "broken")
	root := m.root
	m.root = filepath.Join(root, "absent")
	r := m.tell(OK, "well")
	if r.code != 2 || !strings.Contains(r.stdout, "host root: ") || !strings.Contains(r.stdout, "--host-root") {
		t.Errorf("exit %d, %q", r.code, r.stdout)
	}
	m.root = root
	m.want(m.tell(Unknown, "no hands"), Problem, "broken") // the memory is still there
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestClosedStdout(t *testing.T) {
	for output := range outputs {
		var stderr bytes.Buffer
		c := Check{Name: "toy", Condition: "ToyBroken", FailureThreshold: 1, Timeout: time.Minute,
			Look: func(context.Context, *Look) Verdict { return Verdict{Message: "well"} }}
		code := run(c, []string{"--output", output, "--state-dir", t.TempDir(), "--host-root", t.TempDir()}, closedPipe{}, &stderr)
		if code != unknownCode(output) || !strings.Contains(stderr.String(), "cannot tell the verdict") {
			t.Errorf("%s: exit %d, %q", output, code, stderr.String())
		}
	}
}

func TestLogLevel(t *testing.T) {
	m := newMachine(t)
	m.look = func(_ context.Context, l *Look) Verdict {
		l.Log.Info("three toys seen")
		return Verdict{Message: "well"}
	}
	if r := m.run(); r.stderr != "" {
		t.Errorf("a run without trouble says %q", r.stderr)
	}
	if r := m.run("--log-level=info"); !strings.Contains(r.stderr, "three toys seen") {
		t.Errorf("--log-level=info says %q", r.stderr)
	}
}

// The forecast comes out of the history in the state file, and leaves room for itself.
func TestForecastInMessage(t *testing.T) {
	m := newMachine(t)
	now := time.Now()
	history := []sample{}
	for i := 10; i > 0; i-- { // 1 a minute
		history = append(history, sample{float64(now.Add(-time.Duration(i) * time.Minute).Unix()), float64(100 - i)})
	}
	seed := func() {
		st := state{BootID: "boot-1", History: map[string][]sample{"toys": history}}
		hosttest.Tree{"toy.state": string(st.append(nil))}.Write(t, m.stateDir)
	}
	toys := []Measurement{{Name: "toys", Value: 100, Limit: 280, Unit: "toys", Forecast: true}}
	m.verdict = Verdict{Status: Problem, Message: "100 of 280 toys", Measurements: toys}
	seed()
	m.want(m.run(), Problem, "100 of 280 toys; full in about 3 h")
	m.verdict.Message = strings.Repeat("x", 300)
	seed()
	m.want(m.run(), Problem, strings.Repeat("x", 256-len("; full in about 3 h")-2)+".."+"; full in about 3 h")
	seed()
	m.want(m.tell(OK, "well"), OK, "well") // nothing measured, nothing foretold
}

// The last verdict stands in for a look that failed, not for one that saw that what it asks about is gone.
func TestLookThatSawSomethingElse(t *testing.T) {
	gone := func(v Verdict) func(context.Context, *Look) Verdict {
		return func(context.Context, *Look) Verdict { return v }
	}
	for name, v := range map[string]Verdict{
		"a socket that is gone":                Unknownf("cannot ask the toy: %v", fmt.Errorf("toy: %w", host.ErrGone)),
		"a socket at which nobody listens":     Unknownf("cannot ask the toy: %v", &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}),
		"a server that is another":             Unknownf("cannot ask toy %d: %v", 3, fmt.Errorf("no toy: %w", errors.ErrUnsupported)),
		"what the check alone can tell":        Undecidedf("the toy is a book"),
		"an error and what it is an error of ": Unknownf("%v: %v", errors.New("no hands"), host.ErrGone),
	} {
		t.Run(name, func(t *testing.T) {
			for _, before := range []Status{OK, Problem} {
				m := newMachine(t)
				m.tell(before, "seen")
				m.look = gone(v)
				m.want(m.run(), Unknown, v.Message)
				m.want(m.run(), Unknown, v.Message)
				m.look = nil
				m.want(m.tell(Unknown, "no hands"), Unknown, "no hands") // there is nothing to keep
			}
			m := newMachine(t)
			m.args = []string{"--failure-threshold=2"}
			m.want(m.tell(Problem, "broken"), OK, "bad look 1 of 2: broken")
			m.look = gone(v)
			m.run()
			m.look = nil
			m.want(m.tell(Problem, "broken"), Problem, "broken") // it counted as neither
		})
	}
	if v := Unknownf("cannot ask the toy: %v, %v, %s", os.ErrPermission, os.ErrNotExist, context.DeadlineExceeded); v.Looked {
		t.Error("a look that failed counts as one that saw something else")
	}
}
