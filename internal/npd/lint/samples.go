package lint

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"npd-plugins/internal/npd"
)

// Samples are the lines that a log file is tried on, in the form that npd.ParseSamples reads.
type Samples struct {
	Path string
	Data []byte
}

// watcher is a log file whose rules can be tried on lines.
type watcher struct {
	*file
	monitor *npd.LogMonitor
	rules   []*value // as in monitor.Config.Rules
	samples []npd.Sample
	matched [][]place // by rule: the lines that must match some rule, and that this one matches
}

// trySamples tries log rules on their own lines, the look-alikes on all rules of the identifier, and compares the rules that watch the
// same lines.
func trySamples(files []*file) {
	var watchers []*watcher
	for _, f := range files {
		if w := newWatcher(f); w != nil {
			watchers = append(watchers, w)
		}
	}
	for _, w := range watchers {
		w.tryOwn()
		for _, other := range watchers {
			if other != w && other.watches(w) {
				other.tryForeign(w)
			}
		}
	}
	for i, w := range watchers {
		w.compare(w, false)
		for j, other := range watchers {
			if i != j && w.watches(other) {
				w.compare(other, j < i)
			}
		}
	}
}

// newWatcher returns nil for a file whose rules cannot be tried: for the reason there are findings already.
func newWatcher(f *file) *watcher {
	if f.top == nil || f.custom {
		return nil
	}
	monitor, err := npd.ParseLogMonitor(f.Data)
	if err != nil {
		return nil
	}
	rules := f.top.get("rules").list()
	if len(rules) != len(monitor.Config.Rules) {
		return nil
	}
	w := &watcher{file: f, monitor: monitor, rules: rules, matched: make([][]place, len(rules))}
	if f.Samples == nil {
		return w
	}
	w.samples, err = npd.ParseSamples(f.Samples.Data)
	var broken *npd.SampleError
	if errors.As(err, &broken) {
		w.reportSample(broken.Line, "sample-broken", "%s", broken.Text)
	}
	return w
}

// watches says whether two files watch the same lines. Which lines a filelog takes cannot be told from outside.
func (w *watcher) watches(other *watcher) bool {
	identifier := w.monitor.Identifier()
	return identifier != "" && identifier == other.monitor.Identifier()
}

func (w *watcher) reportSample(line int, id, detail string, args ...any) {
	w.findings = append(w.findings, Finding{Path: w.Samples.Path, Line: line, Column: 1, Trap: trap(id), Detail: fmt.Sprintf(detail, args...)})
}

// fires returns the indices of the rules that fire on a line that stands alone.
func (w *watcher) fires(text string) []int {
	w.monitor.Reset()
	var fired []int
	for _, m := range w.monitor.Match(text) {
		for i := range w.monitor.Config.Rules {
			if m.Rule == &w.monitor.Config.Rules[i] {
				fired = append(fired, i)
			}
		}
	}
	return fired
}

func (w *watcher) reasons(fired []int) []string {
	var all []string
	for _, i := range fired {
		all = append(all, w.monitor.Config.Rules[i].Reason)
	}
	return all
}

// tryOwn tries all rules of a file on all lines of its samples.
func (w *watcher) tryOwn() {
	if w.Samples == nil {
		return
	}
	shown := map[string]int{}
	for _, s := range w.samples {
		fired := w.fires(s.Text)
		reasons := w.reasons(fired)
		for _, want := range s.Reasons {
			if shown[want] == 0 {
				shown[want] = s.Line
			}
			if !slices.Contains(reasons, want) {
				w.reportSample(s.Line, "sample-unmatched", "%s", want)
			}
		}
		for i, got := range reasons {
			if !slices.Contains(s.Reasons, got) {
				w.reportSample(s.Line, "sample-false-alarm", "%s", got)
			} else {
				w.matched[fired[i]] = append(w.matched[fired[i]], place{w.Samples.Path, s.Line})
			}
		}
	}
	for i, r := range w.rules {
		reason := w.monitor.Config.Rules[i].Reason
		if reason != "" && shown[reason] == 0 {
			w.report("sample-missing", at(r.get("reason"), r), "%s", reason)
		}
		if len(w.matched[i]) > 0 {
			w.endShown(r)
		}
		delete(shown, reason)
	}
	for _, reason := range slices.Sorted(maps.Keys(shown)) {
		w.reportSample(shown[reason], "sample-reason", "%s", reason)
	}
}

// endShown drops what was said about the end of a rule's pattern: a sample shows that lines do end there.
func (w *watcher) endShown(rule *value) {
	line, column := w.position(at(rule.get("pattern"), rule))
	w.findings = slices.DeleteFunc(w.findings, func(f Finding) bool { return f.Trap.ID == "pattern-end" && f.Line == line && f.Column == column })
}

// tryForeign tries all rules of a file on the lines of another file of the same identifier. That a line for a rule of the other file
// is matched here too is no mistake, nor is a look-alike there that is a sample of the rule here.
func (w *watcher) tryForeign(of *watcher) {
	for _, s := range of.samples {
		fired := w.fires(s.Text)
		if s.Reasons != nil {
			for _, i := range fired {
				w.matched[i] = append(w.matched[i], place{of.Samples.Path, s.Line})
			}
			continue
		}
		for _, got := range w.reasons(fired) {
			if w.shows(got, s.Text) {
				continue
			}
			of.reportSample(s.Line, "sample-false-alarm", "%s of %s", got, w.Path)
		}
	}
}

// shows says whether a text is a sample of a reason.
func (w *watcher) shows(reason, text string) bool {
	return slices.ContainsFunc(w.samples, func(s npd.Sample) bool { return s.Text == text && slices.Contains(s.Reasons, reason) })
}

// compare reports the rules of w with the pattern of an earlier rule, and those that match nothing but what another one matches too.
func (w *watcher) compare(with *watcher, earlier bool) {
	for i := range w.rules {
		for j := range with.rules {
			switch {
			case with != w:
				w.comparePair(i, with, j, earlier)
			case i != j:
				w.comparePair(i, w, j, j < i)
			}
		}
	}
}

func (w *watcher) comparePair(i int, with *watcher, j int, first bool) {
	mine, other := w.monitor.Config.Rules[i], with.monitor.Config.Rules[j]
	where := place{with.Path, with.line(with.rules[j].offset)}
	position := at(w.rules[i].get("pattern"), w.rules[i])
	if mine.Pattern == "" || other.Pattern == "" {
		return
	}
	if mine.Pattern == other.Pattern {
		if first {
			w.report("pattern-twice", position, "%s and %s, %s", mine.Reason, other.Reason, where)
		}
		return
	}
	few, many := w.matched[i], with.matched[j]
	if covers(many, few) && (first || len(many) > len(few)) { // of two that match the same lines, the later one
		w.report("pattern-shadowed", position, "%s and %s, %s: all %d lines it matches", mine.Reason, other.Reason, where, len(few))
	}
}

// covers says whether all lines of few are among many.
func covers(many, few []place) bool {
	return len(few) > 0 && !slices.ContainsFunc(few, func(p place) bool { return !slices.Contains(many, p) })
}
