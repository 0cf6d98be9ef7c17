// Package plugin turns a check into a custom plugin of node-problem-detector:
// flags, deadline, memory between runs, debounce, message and exit code.
//
// node-problem-detector (NPD) takes exit code 0 for healthy, 1 for a problem
// and everything else for unknown, and the first line of standard output for
// the message of the condition. It waits until both pipes are closed, so a
// check never leaves anything behind that holds them.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/host"
)

// version is set with -ldflags "-X npd-plugins/internal/plugin.version=...".
var version = "devel"

// Check is one look at a host.
type Check struct {
	Name      string // of the binary: zombies
	Condition string // of the node: ZombieProcesses

	// Named is for a check that is one of many conditions: its flags put the
	// name of the one there, "" for Condition. Each has a memory of its own.
	Named *string

	// The parts of --help.
	Purpose    string   // what is wrong when it says Problem, and how it tells
	Reads      []string // files and sockets of the host
	Needs      string   // mounts and privileges in a container
	LookAlikes string   // what it must not be mistaken for
	Example    string   // arguments of one call

	FailureThreshold int           // default of --failure-threshold, in looks
	Timeout          time.Duration // default of --timeout, below the timeout of the rule in config/

	Flags func(*flag.FlagSet) // defines the check's own flags; may be nil
	Look  func(context.Context, *Look) Verdict
}

// Look is what a check gets to look with.
type Look struct {
	Host *host.Root
	Now  time.Time
	Log  *logrus.Logger // to stderr, which NPD logs

	recalled   json.RawMessage
	remembered any
}

// Recall reads what Remember kept at the last look of this boot into v, and
// says whether there was anything.
func (l *Look) Recall(v any) bool {
	if len(l.recalled) == 0 {
		return false
	}
	if err := json.Unmarshal(l.recalled, v); err != nil {
		l.Log.Warnf("ignoring the memory of the last look: %v", err)
		return false
	}
	return true
}

// Remember keeps v for the next look. Without it the next look recalls nothing.
func (l *Look) Remember(v any) { l.remembered = v }

// Next is the look of the next run, which recalls what this one remembered. It
// is for tests of a check's Look; a run takes its memory from the state file.
func (l *Look) Next() *Look {
	next := &Look{Host: l.Host, Now: l.Now, Log: l.Log}
	if l.remembered != nil {
		next.recalled, _ = json.Marshal(l.remembered)
	}
	return next
}

// Main runs the check once and exits as NPD expects.
func Main(c Check) {
	apart.Serve()
	signal.Ignore(syscall.SIGPIPE) // a closed stdout shall be an error, not a death
	os.Exit(run(c, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags that every check has.
type options struct {
	hostRoot string
	stateDir string
	timeout  time.Duration
	inARow   int
	output   string
	logLevel string
	version  bool
}

func (o *options) define(fs *flag.FlagSet, c Check) {
	fs.StringVar(&o.hostRoot, "host-root", "/", "`directory` where the node's file system is mounted")
	fs.StringVar(&o.stateDir, "state-dir", "/run/npd-plugins", "`directory` for the memory between two runs")
	DurationVar(fs, &o.timeout, "timeout", c.Timeout, "the verdict is given within this `duration`; keep it below the timeout of NPD's rule")
	CountVar(fs, &o.inARow, "failure-threshold", c.FailureThreshold, "Problem after this `number` of consecutive failures; recovery is immediate")
	fs.StringVar(&o.output, "output", "npd", "`format`: "+outputNames)
	fs.StringVar(&o.logLevel, "log-level", "warning", "`level` of the log on stderr: error, warning, info or debug; as warning, what each look repeats is written once")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
}

// run is Main without the process: it returns the exit code.
func run(c Check, args []string, stdout, stderr io.Writer) int {
	start := time.Now()
	var o options
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	o.define(fs, c)
	if c.Flags != nil {
		c.Flags(fs)
	}
	warned := newSaid(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true}, start)
	log := &logrus.Logger{Out: stderr, Level: logrus.WarnLevel, Hooks: logrus.LevelHooks{}, Formatter: warned}

	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		writeHelp(stdout, c, fs)
		return int(OK)
	}
	if err == nil {
		err = o.check(fs, log)
	}
	if err != nil {
		fmt.Fprintln(stdout, Safe(c.Name+": "+shorten(err.Error())+" (see --help)", MaxMessage))
		return unknownCode(o.output)
	}
	if o.version {
		fmt.Fprintf(stdout, "%s %s %s %s/%s\n", c.Name, version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return int(OK)
	}

	memory := c.Name
	if c.Named != nil && *c.Named != "" {
		c.Condition = *c.Named
		memory += "-" + c.Condition
	}
	st, stateErr := openStore(o.stateDir, memory)
	if stateErr != nil {
		log.Warnf("no memory between runs: %v", stateErr)
	}
	look := &Look{Now: start, Log: log}
	var r report
	if look.Host, err = host.Open(o.hostRoot); err != nil {
		v := Unknownf("%v: mount the node's file system there, or set --host-root", err)
		r = tell(c, &state{}, v, o.inARow, look) // the memory of another boot, for all we know: left alone
	} else {
		r = lookAndKeep(c, look, st, stateErr, o, warned)
	}
	code, err := outputs[o.output](stdout, r)
	if err != nil {
		log.Errorf("cannot tell the verdict %q: %v", r.Message, err)
		return unknownCode(o.output)
	}
	return code
}

// quick is how long a look lasts at most on a healthy node. Until then a check
// has neither thread nor handler for signals, which would cost more than the
// look itself.
const quick = 100 * time.Millisecond

// outcome is what came of a look.
type outcome struct {
	verdict    Verdict
	remembered any
}

// lookAndKeep looks with the memory of the last run and keeps it for the next.
// It leaves behind what hangs; a tenth of the timeout is left for telling the
// verdict on a node that is short of CPU. stateErr says why nothing can be kept,
// nil when it can.
func lookAndKeep(c Check, look *Look, st store, stateErr error, o options, warned *said) report {
	recalled := make(chan loaded, 1)
	done := make(chan outcome, 1)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				look.Log.Errorf("panic: %v\n%s", cause, debug.Stack())
				done <- outcome{verdict: Unknownf("internal error: panic: %v; please report it", cause)}
			}
		}()
		mem, err := st.load(look.Host.BootID(), look.Now)
		warned.recall(mem.Said, !look.Log.IsLevelEnabled(logrus.InfoLevel)) // who asks for more wants all of it
		if err != nil {
			look.Log.Warnf("starting with an empty memory: %v", err)
		}
		look.recalled = mem.Check
		recalled <- loaded{mem, err}
		ctx, cancel := context.WithTimeout(context.Background(), o.timeout/10*8)
		defer cancel()
		v := c.Look(ctx, look)
		done <- outcome{v, look.remembered}
	}()
	end := await(done, o.timeout)

	var mem state
	select {
	case l := <-recalled:
		mem = l.state
		if errors.Is(l.err, errNoBoot) {
			stateErr = l.err
		}
	default: // the host root hangs: the memory is of another boot, for all we know
		return tell(c, &state{}, end.verdict, o.inARow, &Look{Now: look.Now, Log: look.Log})
	}
	last := mem.Last
	mem.keep(end.remembered, look.Log)
	r := tell(c, &mem, end.verdict, o.inARow, look)
	mem.Said = warned.keep()
	if stateErr == nil {
		if stateErr = st.save(mem); stateErr != nil {
			look.Log.Warnf("cannot keep the memory for the next run: %v", stateErr)
		}
	}
	if stateErr != nil {
		// Nobody would count: the first bad look is a Problem, and the first that failed is Unknown.
		r = tell(c, &state{}, end.verdict.unkept(stateErr), 1, look)
	}
	if r.Status == Problem && (last == nil || last.Status != Problem) {
		for _, line := range end.verdict.Details {
			look.Log.WithContext(evidence).Warn(Safe(line, 2*MaxMessage))
		}
	}
	return r
}

// loaded is what the state file gave.
type loaded struct {
	state state
	err   error
}

// await waits for the end of a look, but not beyond 9 tenths of the timeout. The
// check's own calls end before, when its context does.
func await(done <-chan outcome, timeout time.Duration) outcome {
	limit := timeout / 10 * 9
	deadline := time.NewTimer(min(quick, limit))
	select {
	case end := <-done:
		return end
	case <-deadline.C:
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(terminated)
	deadline.Reset(limit - min(quick, limit))
	select {
	case end := <-done:
		return end
	case s := <-terminated:
		return outcome{verdict: Unknownf("ended by signal %q before the verdict", s)}
	case <-deadline.C:
		return outcome{verdict: Unknownf("no verdict within --timeout %s: the node is short of CPU, or a call hangs", shortDuration(timeout))}
	}
}

// unknownCode is the exit code of a run that came to no verdict.
func unknownCode(output string) int {
	if output == "nagios" {
		return nagiosUnknown
	}
	return int(Unknown)
}

// shorten leaves out the middle of an error that quotes a long value, so that
// the flag behind it can still be read.
func shorten(s string) string {
	if len(s) <= 200 {
		return s
	}
	return s[:60] + "..." + s[len(s)-130:]
}

// logLevels are the values of --log-level.
var logLevels = map[string]logrus.Level{"error": logrus.ErrorLevel, "warning": logrus.WarnLevel, "info": logrus.InfoLevel, "debug": logrus.DebugLevel}

// check completes what package flag cannot know.
func (o *options) check(fs *flag.FlagSet, log *logrus.Logger) error {
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if outputs[o.output] == nil {
		return fmt.Errorf("invalid value %q for flag -output: want %s", o.output, outputNames)
	}
	level, ok := logLevels[o.logLevel]
	if !ok {
		return fmt.Errorf("invalid value %q for flag -log-level: want error, warning, info or debug", o.logLevel)
	}
	log.SetLevel(level)
	return nil
}

// keptFailures is how many looks in a row may fail before the last verdict is
// given up for Unknown.
const keptFailures = 4

// tell applies debounce and forecast to the verdict of this look, and keeps in
// mem what the next run must know. The last verdict stands in for a look that
// failed, not for one that saw something else.
func tell(c Check, mem *state, v Verdict, inARow int, look *Look) report {
	r := report{Check: c.Name, Condition: c.Condition, Measurements: v.Measurements, now: look.Now}
	r.Status, r.Message = v.Status, v.Message
	switch {
	case v.Status == Unknown && v.Looked:
		mem.Failed = 0
	case v.Status == Unknown:
		mem.Failed++
		if last := mem.Last; last != nil && last.Status != Unknown && mem.Failed <= keptFailures {
			look.Log.Warnf("look %d in a row failed, keeping the last verdict: %s", mem.Failed, Safe(v.Message, MaxMessage))
			r.Status, r.Message = last.Status, last.Message
			if last.Status == OK {
				r.Message = "was OK; cannot look now: " + v.Message
			}
			r.Message = Safe(r.Message, MaxMessage)
			return r
		}
	default:
		var eta string
		mem.History, eta = forecast(mem.History, look.Now, v.Measurements)
		r.Message = withForecast(v.Message, eta)
		mem.Failed = 0
	}
	switch {
	case v.Status == OK:
		mem.Bad = 0
	case v.Status == Problem:
		mem.Bad++
		if mem.Bad < inARow {
			r.Status = OK
			r.Message = fmt.Sprintf("bad look %d of %d: %s", mem.Bad, inARow, r.Message)
		}
	}
	r.Message = Safe(r.Message, MaxMessage)
	mem.Last = &told{r.Status, r.Message}
	return r
}

// withForecast appends the forecast and leaves room for it.
func withForecast(message, eta string) string {
	if eta == "" {
		return message
	}
	eta = "; " + eta
	return Safe(message, MaxMessage-len(eta)) + eta
}

// writeHelp prints what --help says.
func writeHelp(w io.Writer, c Check, fs *flag.FlagSet) {
	fmt.Fprintf(w, "%s: node condition %s\n\n%s\n\nReads:\n", c.Name, c.Condition, c.Purpose)
	for _, path := range c.Reads {
		fmt.Fprintf(w, "  %s\n", path)
	}
	fmt.Fprintf(w, "\nNeeds:\n  %s\n\nStays OK:\n  %s\n\nFlags:\n", c.Needs, c.LookAlikes)
	fs.VisitAll(func(f *flag.Flag) {
		argument, usage := flag.UnquoteUsage(f)
		if argument == "value" {
			argument = "number"
		}
		head := strings.TrimSpace("--" + f.Name + " " + argument)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-30s %s\n", head, usage)
	})
	fmt.Fprintf(w, `
Exit codes:
  0 OK, 1 Problem, 2 Unknown (could not look) or wrong usage;
  with --output nagios 0 OK, 2 CRITICAL, 3 UNKNOWN

Example:
  %s %s
`, c.Name, c.Example)
}
