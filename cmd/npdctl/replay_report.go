package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// replayed is the whole report, as -o json prints it.
type replayed struct {
	Lines     int            `json:"lines"`     // read
	Seconds   float64        `json:"seconds"`   // that took
	Nameless  int            `json:"nameless"`  // lines without an identifier
	Cut       int            `json:"cut"`       // lines longer than 1 MiB, of which the rest was not looked at
	Skipped   int            `json:"skipped"`   // lines of a JSON stream that are no entry
	Files     []replayedFile `json:"files"`     // in the order they were given
	Rules     []replayedRule `json:"rules"`     // that matched, the most frequent first
	Unmatched []shape        `json:"unmatched"` // with --unmatched; the most frequent first
}

type replayedFile struct {
	File       string `json:"file"`
	Identifier string `json:"identifier"` // "" for a filelog
	Lines      int    `json:"lines"`      // that its rules were tried on; of a filelog those it understood and could match
}

type replayedRule struct {
	Reason         string     `json:"reason"`
	File           string     `json:"file"`
	Source         string     `json:"source"` // of the Events
	Count          int        `json:"count"`
	First          *time.Time `json:"first"` // null if the log has no times
	Last           *time.Time `json:"last"`
	ProblemCounter int        `json:"problemCounter"` // what NPD's metric problem_counter{reason} goes up
	Events         eventCount `json:"events"`
	Sample         string     `json:"sample"` // of the first match
}

// eventCount says what became of the events.
type eventCount struct {
	Written  int `json:"written"`  // created and counted
	Created  int `json:"created"`  // new Event objects
	Counted  int `json:"counted"`  // a higher count of one that is there
	Combined int `json:"combined"` // of the written ones, those under "(combined from similar events)"
	Dropped  int `json:"dropped"`  // over the limit of the source
}

func (p *past) result() replayed {
	all := replayed{
		Lines: p.lines, Seconds: float64(p.took.Milliseconds()) / 1000, Nameless: p.nameless, Cut: p.cut, Skipped: p.skipped,
		Files: []replayedFile{}, Rules: []replayedRule{}, Unmatched: []shape{},
	}
	for _, f := range p.files {
		all.Files = append(all.Files, replayedFile{f.path, f.Identifier(), f.lines})
		for i := range f.Config.Rules {
			rule := &f.Config.Rules[i]
			r := f.rules[rule]
			if r == nil {
				continue
			}
			all.Rules = append(all.Rules, replayedRule{
				Reason: rule.Reason, File: f.path, Source: f.Config.Source,
				Count: r.count, First: known(r.first), Last: known(r.last), ProblemCounter: r.counter,
				Events: eventCount{r.created + r.counted, r.created, r.counted, r.combined, r.dropped},
				Sample: r.sample,
			})
		}
	}
	slices.SortStableFunc(all.Rules, func(a, b replayedRule) int { return cmp.Compare(b.Count, a.Count) })
	if p.shapes != nil {
		all.Unmatched = p.shapes.top(topShapes)
	}
	return all
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (p *past) report(o replayOptions, stdout io.Writer) error {
	all := p.result()
	if o.output == "json" {
		out := json.NewEncoder(stdout)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		return out.Encode(all)
	}
	all.printRules(stdout)
	if o.unmatched {
		all.printUnmatched(stdout)
	}
	all.printLines(stdout)
	return nil
}

func (all *replayed) printRules(stdout io.Writer) {
	fmt.Fprintln(stdout, "Rules that matched:")
	if len(all.Rules) == 0 {
		fmt.Fprintln(stdout, "  none")
		return
	}
	t := newTable(stdout, "Count", "Events", "First", "Last", "Reason", "File", "Sample")
	for _, r := range all.Rules {
		t.row(strconv.Itoa(r.Count), strconv.Itoa(r.Events.Written), clock(r.First), clock(r.Last), r.Reason, filepath.Base(r.File), r.Sample)
	}
	t.Flush()
}

func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.DateTime)
}

func (all *replayed) printUnmatched(stdout io.Writer) {
	fmt.Fprintln(stdout, "Look like errors and match no rule:")
	if len(all.Unmatched) == 0 {
		fmt.Fprintln(stdout, "  none")
		return
	}
	t := newTable(stdout, "Count", "Identifier", "Shape", "Sample")
	for _, s := range all.Unmatched {
		count := strconv.Itoa(s.Count)
		if s.Over > 0 {
			count = "at most " + count
		}
		t.row(count, s.Identifier, s.Shape, s.Sample)
	}
	t.Flush()
}

func (all *replayed) printLines(stdout io.Writer) {
	var watched []string
	for _, f := range all.Files {
		if f.Lines > 0 {
			watched = append(watched, fmt.Sprintf("%s %d", filepath.Base(f.File), f.Lines))
		}
	}
	if watched == nil {
		watched = []string{"no rule file"}
	}
	fmt.Fprintf(stdout, "%d lines in %.1f s; for %s\n", all.Lines, all.Seconds, printable(strings.Join(watched, ", ")))
	if all.Cut > 0 {
		fmt.Fprintf(stdout, "%d lines are longer than 1 MiB, the rest of them was not looked at\n", all.Cut)
	}
	if all.Skipped > 0 {
		fmt.Fprintf(stdout, "%d lines are no journal entry or longer than 5 MiB, and were left out\n", all.Skipped)
	}
}
