package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/logread"
)

const replayUsage = `npdctl replay [flags] SOURCE

Runs NPD rule files over the past and prints which rule would have fired how often: the first and last time, a line, and
how many Events NPD would have written.

SOURCE is a journal directory, a *.journal file, another file, or - for stdin. Of a directory the files in it and in the
directories of machines in it are read as one journal, as by journalctl -D, but without it. What is damaged in them is left out.
Another file, or stdin, holds
  journalctl -o export
  journalctl -o json --all     without --all journalctl leaves out messages longer than 4096 bytes
  journalctl -o verbose --all
  a text log                   /var/log/messages, /var/log/syslog: "Jan  2 15:04:05 host kubelet[1]: message" or
                               "2026-01-02T15:04:05+00:00 host kubelet[1]: message"; the kernel's "[  12.3] " is taken off
  journalctl                   in any of its short forms; -o with-unit shows units: kubelet.service counts as kubelet
  dmesg, dmesg -T              and its other forms with a time; also what was read from /dev/kmsg
and is told apart by how it begins. gzip is unpacked. Lines without a syslog identifier (journalctl -o cat, dmesg -t, the log
file of one service) need --identifier.

Each line goes to the rule files that watch its identifier (pluginConfig.source for journald, kernel for kmsg). A filelog
file gets each line of a text log and picks what it takes itself. Rules match as NPD matches them. A message is cut at
1 MiB, which NPD does not do, and all is read in constant memory.

Events are what reaches the API server, a new Event or a higher count of one that is there: a source can write 25 at once
and one in 5 minutes after that, and ten events of one reason with different messages within 10 minutes become one text
"(combined from similar events)". It is taken that NPD ran all the time and saw each line when it was logged: no restart,
no Event that the API server forgot in between (after an hour), no queue of more than 1000. Without times in a log all of it
is one moment.

--unmatched adds the lines that look like errors and match no rule, whatever their identifier: klog's E and F, level=error or
"level":"error" and worse, priority err and worse, words like error, failed, panic, fatal, timed out. Numbers, ids and quoted
texts are replaced, and the most frequent 20 of what is then the same are shown. With more than 1000 kinds a count is "at
most" that many.

Exit codes: 0 no rule matched, 1 some did, 2 no rule was tried on any line, the source, or a file of a journal, cannot be
read (to its end), or a usage error.

Examples:
  npdctl replay /var/log/journal
  npdctl replay --unmatched /var/log/messages
  npdctl replay --identifier kubelet kubelet.log
  journalctl --since=-7d -o export | npdctl replay --rules journal-rules/kubelet.json -o json -
`

type replayOptions struct {
	rules      paths
	identifier string
	output     string
	unmatched  bool
	source     string
}

func replay(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("replay", replayUsage, stderr)
	var o replayOptions
	flags.Var(&o.rules, "rules", "rule `file or directory` (its *.json), may be repeated (default journal-rules beside the directory of npdctl)")
	flags.StringVar(&o.identifier, "identifier", "", "`name` for the lines of a text log that name none")
	flags.StringVar(&o.output, "o", "table", "table, or json")
	flags.BoolVar(&o.unmatched, "unmatched", false, "also show what looks like errors and matches no rule")
	if code, done := parse(flags, args, stdout); done {
		return code
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "npdctl replay:", printable(err.Error()))
		return exitBroken
	}
	switch {
	case o.output != "table" && o.output != "json":
		return fail(fmt.Errorf("-o %s: table or json", o.output))
	case flags.NArg() != 1:
		return fail(fmt.Errorf("%d sources given, flags go before the one source; --help says more", flags.NArg()))
	}
	o.source = flags.Arg(0)
	if len(o.rules) == 0 {
		o.rules = paths{shipped("journal-rules")}
	}
	p, err := newPast(o.rules)
	if err != nil {
		return fail(err)
	}
	if o.unmatched {
		p.shapes = newShapes()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	broken := o.read(ctx, p, stderr)
	if broken == nil {
		broken = p.untried(&o)
	}
	if broken == nil || p.lines > 0 {
		if err := p.report(o, stdout); err != nil {
			return fail(err)
		}
	}
	for _, note := range p.notes {
		fmt.Fprintln(stderr, "npdctl replay:", note)
	}
	switch {
	case broken != nil && (p.lines == 0 || !p.tried):
		return fail(broken)
	case broken != nil:
		return fail(fmt.Errorf("not read to the end: %w", broken))
	case p.matched():
		return exitProblem
	}
	return exitFine
}

// past is what rule files make of a log.
type past struct {
	files     []*pastFile
	watched   map[string][]*pastFile // by identifier
	filelogs  []*pastFile
	recorders map[string]*npd.Recorder // by source of events
	shapes    *shapes                  // nil if not asked for
	lines     int                      // read
	nameless  int                      // without identifier
	cut       int                      // longer than is kept
	skipped   int                      // that are no entry
	blobs     int                      // of which journalctl shows only how long the message is
	units     int                      // that name a unit in place of the identifier
	tried     bool                     // a rule was tried on some line
	unwatched map[string]int           // lines by identifier, while none was tried; not of more than maxUnwatched
	took      time.Duration
	notes     []string
	clock     time.Time // of the last line that had a time
}

// pastFile is a rule file and what it saw.
type pastFile struct {
	*npd.LogMonitor
	path  string
	lines int // of its identifier; those that it understood, of a filelog
	rules map[*npd.LogRule]*fired
}

// fired is how often a rule fired, and what came of it.
type fired struct {
	count       int
	first, last time.Time // zero if unknown
	sample      string    // the first message
	counter     int       // what problem_counter went up
	created     int       // Events
	counted     int       // Events whose count went up
	dropped     int       // events over the limit of the source
	combined    int       // of the created and counted, those with the common text
}

func newPast(paths []string) (*past, error) {
	files, err := configFiles(paths)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no *.json in %s", strings.Join(paths, " "))
	}
	if err != nil {
		return nil, err
	}
	p := &past{watched: map[string][]*pastFile{}, recorders: map[string]*npd.Recorder{}, unwatched: map[string]int{}}
	for _, path := range files {
		monitor, err := npd.LoadLogMonitor(path)
		if err != nil {
			return nil, fmt.Errorf("%w: NPD does not come up with this file", err)
		}
		f := &pastFile{LogMonitor: monitor, path: path, rules: map[*npd.LogRule]*fired{}}
		p.files = append(p.files, f)
		identifier := monitor.Identifier()
		switch {
		case monitor.Config.Plugin == "filelog":
			p.filelogs = append(p.filelogs, f)
		case identifier == "":
			return nil, fmt.Errorf("%s: no source in pluginConfig, NPD would not start this monitor", path)
		default:
			p.watched[identifier] = append(p.watched[identifier], f)
		}
		if p.recorders[monitor.Config.Source] == nil {
			p.recorders[monitor.Config.Source] = npd.NewRecorder()
		}
	}
	return p, nil
}

func (p *past) matched() bool {
	return slices.ContainsFunc(p.files, func(f *pastFile) bool { return len(f.rules) > 0 })
}

// readAll takes in all entries. What was read before an error counts.
func (p *past) readAll(ctx context.Context, from *logread.Reader, shown *progress) error {
	var e logread.Entry
	defer func() {
		p.cut, p.skipped, p.blobs, p.units = p.cut+from.Cut, p.skipped+from.Skipped, p.blobs+from.Blobs, p.units+from.Units
	}()
	for {
		err := from.Next(&e)
		switch {
		case err == io.EOF && p.lines == 0 && from.Skipped > 0:
			return errors.New("no line of it is an entry of a journal")
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		p.take(&e)
		if p.lines%4096 == 0 {
			if err := interrupted(ctx); err != nil {
				return err
			}
			shown.update(p.lines, e.Time())
		}
	}
}

func interrupted(ctx context.Context) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return nil
}

// take puts one entry through the rules.
func (p *past) take(e *logread.Entry) {
	p.lines++
	matched := false
	if len(e.Identifiers) == 0 {
		p.nameless++
	}
	for i, identifier := range e.Identifiers {
		if slices.ContainsFunc(e.Identifiers[:i], func(earlier []byte) bool { return string(earlier) == string(identifier) }) {
			continue
		}
		for _, f := range p.watched[string(identifier)] {
			if f.Config.Plugin == "kmsg" && len(e.Message) == 0 {
				continue // as NPD does
			}
			f.lines++
			p.tried = true
			matched = p.match(f, e, string(e.Message), e.Time) || matched
		}
	}
	if !p.tried {
		p.countUnwatched(e)
	}
	if e.Line != nil {
		for _, f := range p.filelogs {
			matched = p.matchLine(f, e) || matched
		}
	}
	if p.shapes != nil && !matched {
		p.shapes.take(e)
	}
}

// matchLine gives a line of a text log to a filelog.
func (p *past) matchLine(f *pastFile, e *logread.Entry) bool {
	line := string(e.Line)
	if p.tried && !f.CanMatch(line) {
		return false
	}
	message, at, ok := f.Translate(line)
	if !ok {
		return false
	}
	p.tried = true
	f.lines++
	return p.match(f, e, message, func() time.Time { return at })
}

func (p *past) match(f *pastFile, e *logread.Entry, message string, clock func() time.Time) bool {
	matches := f.MatchAt(message, clock)
	for _, m := range matches {
		p.count(f, &m, clock())
	}
	return len(matches) > 0
}

func (p *past) count(f *pastFile, m *npd.Match, at time.Time) {
	r := f.rules[m.Rule]
	if r == nil {
		lines := m.Message
		if m.Rule.Suffix != "" {
			lines = strings.TrimSuffix(lines, "; "+m.Rule.Suffix)
		}
		r = &fired{first: at, sample: sample(lines)}
		f.rules[m.Rule] = r
	}
	r.count++
	if !at.IsZero() {
		r.last, p.clock = at, at
		if r.first.IsZero() {
			r.first = at
		}
	}
	if m.Event == nil {
		return
	}
	if metrics := f.Config.MetricsReporting; metrics == nil || *metrics {
		r.counter++
	}
	event := *m.Event
	if event.Time.IsZero() {
		event.Time = p.clock
	}
	fate, combined := p.recorders[f.Config.Source].Record(&event)
	switch fate {
	case npd.Dropped:
		r.dropped++
		return
	case npd.Created:
		r.created++
	case npd.Counted:
		r.counted++
	}
	if combined {
		r.combined++
	}
}

// maxUnwatched is of how many identifiers lines are counted.
const maxUnwatched = 1000

func (p *past) countUnwatched(e *logread.Entry) {
	for _, identifier := range e.Identifiers {
		if _, known := p.unwatched[string(identifier)]; known || len(p.unwatched) < maxUnwatched {
			p.unwatched[string(identifier)]++
		}
	}
}

// untried says why no rule was tried on any line, and what would help; nil if some was.
func (p *past) untried(o *replayOptions) error {
	if p.tried {
		return nil
	}
	watched := strings.Join(slices.Sorted(maps.Keys(p.watched)), ", ")
	switch {
	case p.lines == 0 && len(p.unwatched) == 0:
		return fmt.Errorf("no rule was tried: %s is empty", o.source)
	case watched == "":
		return errors.New("no rule was tried: the filelog rules cannot parse any line; each file names the log format it expects")
	case len(p.unwatched) > 0:
		most := slices.SortedFunc(maps.Keys(p.unwatched), func(a, b string) int {
			return cmp.Or(p.unwatched[b]-p.unwatched[a], strings.Compare(a, b))
		})
		var named []string
		for _, identifier := range most[:min(len(most), 5)] {
			named = append(named, fmt.Sprintf("%s (%d)", identifier, p.unwatched[identifier]))
		}
		return fmt.Errorf("no rule was tried: the rules watch %s, but the lines are from %s; npdctl install writes rules for the identifiers of other distributions",
			watched, strings.Join(named, ", "))
	}
	return fmt.Errorf("no rule was tried: no line has a syslog identifier, and the rules watch %s; use --identifier kubelet if all lines are from kubelet, or journalctl -o export", watched)
}

// maxSample is how many bytes of a line are shown.
const maxSample = 200

// sample makes a line safe to print and short.
func sample(line string) string {
	short := line[:min(len(line), maxSample)]
	short = printable(strings.ToValidUTF8(short, "?"))
	if len(line) > maxSample {
		short += "..."
	}
	return short
}
