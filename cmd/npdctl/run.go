package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"npd-plugins/internal/npd"
)

const runUsage = `npdctl run [flags] [-- check flags]

Evaluates NPD custom plugin configurations on this machine once as NPD would (own process group, timeout of the rule,
4096 bytes of output, cut at max_output_length, conditions that move like NPD's) and prints the conditions as
"kubectl describe node" does. For a condition that is False NPD shows the text of the configuration and never what the check
said; here that follows in brackets. Below are the Events that the journal rules would have written in the last hour:
from the journal, from the kernel's own log (/dev/kmsg) and from log files, each read as NPD reads it. Nothing is taken away from NPD.

What is installed runs as it is, in the container of node-problem-detector, too:

  kubectl exec -n kube-system node-problem-detector-x7k2p -- /opt/npd-plugins/bin/npdctl run

The executable of a rule is its path, or, if there is none, the file of that name in --bin; with --bin given that one comes first.
Flags behind -- are added to the arguments of each check found in --bin, and so is --state-dir.

Exit codes: 0 no problem, 1 a condition is True (or a temporary rule fired), 2 none is True, but one is Unknown or something
cannot be evaluated. A usage error is 2.

Examples:
  npdctl run
  npdctl run --config config/zombies.json --watch
  npdctl run -o json -- --host-root /host
`

type runOptions struct {
	configs  paths
	rules    string
	bin      string
	binFirst bool
	watch    bool
	output   string
	stateDir string
	extra    []string // arguments for each check
}

// paths is a flag that can be given several times.
type paths []string

func (p *paths) String() string     { return strings.Join(*p, " ") }
func (p *paths) Set(s string) error { *p = append(*p, s); return nil }

func run(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("run", runUsage, stderr)
	var o runOptions
	flags.Var(&o.configs, "config", "configuration `file or directory`, may be repeated (default config beside the directory of npdctl)")
	flags.StringVar(&o.rules, "rules", "", "`directory` of journal rules (default journal-rules beside the directory of npdctl)")
	flags.StringVar(&o.bin, "bin", "", "directory of the checks (default that of npdctl)")
	flags.BoolVar(&o.watch, "watch", false, "go on, each configuration at its invoke_interval, and print when a condition changes")
	flags.StringVar(&o.output, "o", "table", "table, or json: one object per condition and line")
	flags.StringVar(&o.stateDir, "state-dir", "", "where the checks keep their state (default npd-plugins in the user's cache)")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	if o.output != "table" && o.output != "json" {
		fmt.Fprintf(stderr, "npdctl run: -o %s: table or json\n", o.output)
		return exitBroken
	}
	o.extra = flags.Args()
	if len(o.extra) > 0 && !slices.Contains(args, "--") {
		fmt.Fprintf(stderr, "npdctl run: unknown argument %q; flags for the checks come after --\n", o.extra[0])
		return exitBroken
	}
	cleanUp, err := o.complete()
	if err != nil {
		fmt.Fprintln(stderr, "npdctl run:", err)
		return exitBroken
	}
	defer cleanUp()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return o.evaluate(ctx, stdout, stderr)
}

// complete fills in what was not given. The function it returns removes what was made for this run alone.
func (o *runOptions) complete() (cleanUp func(), err error) {
	if len(o.configs) == 0 {
		o.configs = paths{shipped("config")}
	}
	if rules := shipped("journal-rules"); o.rules == "" && isDir(rules) {
		o.rules = rules
	}
	o.binFirst = o.bin != ""
	if o.bin == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("own path unknown, give --bin: %w", err)
		}
		o.bin = filepath.Dir(self)
	}
	cleanUp = func() {}
	if o.stateDir == "" {
		o.stateDir, cleanUp, err = ownStateDir()
	}
	o.extra = append([]string{"--state-dir", o.stateDir}, o.extra...)
	return cleanUp, err
}

// ownStateDir returns a directory in the user's cache, so that checks remember their last look, or one that is gone after this
// run. It is never that of the checks under a running NPD, whose bad looks in a row a run by hand would add to.
func ownStateDir() (dir string, cleanUp func(), err error) {
	if cache, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(cache, "npd-plugins")
		if os.MkdirAll(dir, 0o700) == nil {
			return dir, func() {}, nil
		}
	}
	dir, err = os.MkdirTemp("", "npd-plugins-")
	return dir, func() { os.RemoveAll(dir) }, err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (o *runOptions) evaluate(ctx context.Context, stdout, stderr io.Writer) int {
	files, err := configFiles(o.configs)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no *.json in %s", o.configs.String())
	}
	if err != nil {
		fmt.Fprintln(stderr, "npdctl run:", err)
		return exitBroken
	}
	r := &runner{options: o, stdout: stdout, stderr: stderr}
	for _, file := range files {
		r.load(file)
	}
	r.lookAtAll(ctx)
	if ctx.Err() != nil {
		return exitBroken
	}
	r.print(r.monitors)
	if o.output == "table" {
		r.journal(ctx)
	}
	if o.watch {
		r.watch(ctx)
	}
	return r.exitCode()
}

// runner holds the monitors of one invocation.
type runner struct {
	options        *runOptions
	monitors       []*monitor
	events         []npd.Event // of temporary rules, not printed yet
	broken         bool
	stdout, stderr io.Writer
}

// monitor is one configuration file with its conditions and the last result of each rule.
type monitor struct {
	*npd.CustomMonitor
	file    string
	config  *npd.CustomConfig
	results map[*npd.CustomRule]npd.PluginResult
}

func (r *runner) load(file string) {
	config, err := npd.LoadCustom(file)
	if err == nil && config.PluginConfig.Concurrency == 0 {
		err = fmt.Errorf("%s: concurrency 0, NPD never runs a rule", file)
	}
	if err != nil {
		r.complain("%v: NPD does not come up with this file", err)
		return
	}
	r.monitors = append(r.monitors, &monitor{
		CustomMonitor: npd.NewCustomMonitor(config, time.Now()),
		file:          file,
		config:        config,
		results:       map[*npd.CustomRule]npd.PluginResult{},
	})
}

// complain says what cannot be evaluated.
func (r *runner) complain(format string, args ...any) {
	r.broken = true
	fmt.Fprintln(r.stderr, "npdctl run:", printable(fmt.Sprintf(format, args...)))
}

// lookAtAll runs every rule of every file, the files side by side as in NPD.
func (r *runner) lookAtAll(ctx context.Context) {
	looks := make([][]npd.PluginResult, len(r.monitors))
	var all sync.WaitGroup
	for i, m := range r.monitors {
		all.Go(func() { looks[i] = r.options.look(ctx, m.config, m.config.Rules) })
	}
	all.Wait()
	for i, m := range r.monitors {
		r.apply(m, m.config.Rules, looks[i])
	}
}

// look runs rules of one file, as many at a time as the file allows.
func (o *runOptions) look(ctx context.Context, config *npd.CustomConfig, rules []*npd.CustomRule) []npd.PluginResult {
	results := make([]npd.PluginResult, len(rules))
	slots := make(chan struct{}, config.PluginConfig.Concurrency)
	var all sync.WaitGroup
	for i, rule := range rules {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			path, args := o.command(rule)
			results[i] = npd.RunPlugin(ctx, path, args, config.RuleTimeout(rule), config.PluginConfig.MaxOutputLength)
		})
	}
	all.Wait()
	return results
}

// command returns what to execute for a rule.
func (o *runOptions) command(rule *npd.CustomRule) (path string, args []string) {
	inBin := filepath.Join(o.bin, filepath.Base(rule.Path))
	if !exists(inBin) {
		return rule.Path, rule.Args
	}
	path = rule.Path
	if o.binFirst || !exists(path) {
		path = inBin
	}
	// Of a flag that comes twice, the checks take the last.
	return path, slices.Concat(rule.Args, o.extra)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// apply takes in the results of rules, in the order of the file; NPD takes them as they come. It says whether NPD writes an
// event for any of them. Those of conditions say no more than the conditions do, the others are kept.
func (r *runner) apply(m *monitor, rules []*npd.CustomRule, results []npd.PluginResult) (changed bool) {
	for i, rule := range rules {
		result := results[i]
		m.results[rule] = result
		events := m.Apply(rule, result.Status, result.Message, time.Now())
		changed = changed || len(events) > 0
		if rule.Type == npd.Temporary {
			r.events = append(r.events, events...)
		}
		if result.Status == npd.OK {
			continue
		}
		for line := range strings.Lines(result.Stderr) {
			fmt.Fprintf(r.stderr, "%s: %s\n", filepath.Base(rule.Path), printable(strings.TrimSpace(line)))
		}
	}
	return changed
}

// looked is what one tick of one file brought.
type looked struct {
	monitor *monitor
	rules   []*npd.CustomRule
	results []npd.PluginResult
}

// watch goes on until ctx ends. Rules of one file with the same interval run together, as in NPD.
func (r *runner) watch(ctx context.Context) {
	ticks := make(chan looked)
	var all sync.WaitGroup
	for _, m := range r.monitors {
		groups := map[time.Duration][]*npd.CustomRule{}
		for _, rule := range m.config.Rules {
			every := m.config.RuleInterval(rule)
			groups[every] = append(groups[every], rule)
		}
		for every, rules := range groups {
			all.Go(func() { r.options.tick(ctx, every, m, rules, ticks) })
		}
	}
	go func() { all.Wait(); close(ticks) }()
	for t := range ticks {
		if !r.apply(t.monitor, t.rules, t.results) {
			continue
		}
		if r.options.output == "table" {
			fmt.Fprintf(r.stdout, "\n%s\n", time.Now().Format(time.TimeOnly))
			r.print(r.monitors)
			continue
		}
		r.print([]*monitor{t.monitor})
	}
}

func (o *runOptions) tick(ctx context.Context, every time.Duration, m *monitor, rules []*npd.CustomRule, out chan<- looked) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		results := o.look(ctx, m.config, rules)
		if ctx.Err() != nil {
			return
		}
		out <- looked{m, rules, results}
	}
}

// exitCode is that of the present state: a problem outweighs what is unknown.
func (r *runner) exitCode() int {
	code := exitFine
	if r.broken {
		code = exitBroken
	}
	for _, m := range r.monitors {
		for _, c := range m.Conditions() {
			switch c.Status {
			case npd.ConditionTrue:
				return exitProblem
			case npd.ConditionUnknown:
				code = exitBroken
			}
		}
		for rule, result := range m.results {
			switch {
			case rule.Type == npd.Temporary && result.Status == npd.NonOK:
				return exitProblem
			case result.Status == npd.Unknown:
				code = exitBroken
			}
		}
	}
	return code
}
