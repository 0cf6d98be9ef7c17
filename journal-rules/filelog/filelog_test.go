// Package filelog tests the rule files below it, made from the journal rules by generate; it has no code of its own.
package filelog

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/npd/lint"
	"npd-plugins/internal/rulefile"
	"npd-plugins/test/lab"
)

// line is a line of the journal rules' testdata and the reasons it makes fire there, by file: the kernel has several.
type line struct {
	identifier, message string
	reasons             map[string][]string
}

func lines(t *testing.T) []line {
	t.Helper()
	paths, err := filepath.Glob("../*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	monitors := map[string]*npd.LogMonitor{}
	for _, path := range paths {
		if monitors[filepath.Base(path)], err = npd.LoadLogMonitor(path); err != nil {
			t.Fatal(err)
		}
	}
	var all []line
	for name, m := range monitors {
		data, err := os.ReadFile(filepath.Join("../testdata", strings.TrimSuffix(name, ".json")+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		samples, err := npd.ParseSamples(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, sample := range samples {
			l := line{m.Identifier(), sample.Text, map[string][]string{}}
			for file, o := range monitors {
				if o.Identifier() == l.identifier {
					l.reasons[file] = reasons(o, l.message)
				}
			}
			all = append(all, l)
		}
	}
	return all
}

func reasons(m *npd.LogMonitor, message string) (fired []string) {
	for _, match := range m.Match(message) {
		fired = append(fired, match.Rule.Reason)
	}
	return fired
}

// write returns a line as rsyslog writes it to a file.
func (l line) write(style string, at time.Time) string {
	stamp := at.Format("2006-01-02T15:04:05.000000Z07:00")
	if style == "traditional" {
		stamp = at.Format("Jan _2 15:04:05")
	}
	tag := l.identifier + "[123]: "
	if l.identifier == "kernel" {
		tag = "kernel: [  123.456789] "
	}
	return stamp + " node-1 " + tag + l.message
}

// TestLines demands of each line in a file what the same line in the journal does, and nothing of the rules for others.
func TestLines(t *testing.T) {
	all := lines(t)
	for _, style := range rulefile.Styles {
		paths, err := filepath.Glob(style.Name + "/*.json")
		if err != nil || len(paths) == 0 {
			t.Fatalf("no rules: %v", err)
		}
		for _, path := range paths {
			m, err := npd.LoadLogMonitor(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range all {
				want := l.reasons[filepath.Base(path)]
				message, _, ok := m.Translate(l.write(style.Name, time.Now()))
				if got := reasons(m, message); !ok || !slices.Equal(got, want) {
					t.Errorf("%s: fired %q, want %q; parsed: %v\n%s", path, got, want, ok, l.message)
				}
			}
		}
	}
}

// TestLint looks at each style by itself: a node has one of them.
func TestLint(t *testing.T) {
	for _, style := range rulefile.Styles {
		paths, err := filepath.Glob(style.Name + "/*.json")
		if err != nil {
			t.Fatal(err)
		}
		var sources []lint.Source
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, lint.Source{Path: path, Data: data})
		}
		for _, finding := range lint.Lint(sources, "") {
			t.Error(finding)
		}
	}
}

// TestNPD feeds all lines to a real node-problem-detector, with a rotation in the middle, and compares its counters.
func TestNPD(t *testing.T) {
	lab.NeedDetector(t)
	all := lines(t)
	for _, style := range rulefile.Styles {
		t.Run(style.Name, func(t *testing.T) {
			dir := t.TempDir()
			log := filepath.Join(dir, "messages")
			want := map[string]int{}
			half := len(all) / 2
			old := time.Now().Add(-time.Hour)
			write(t, log, all, style.Name, old) // before the lookback
			write(t, log, all[:half], style.Name, time.Now())
			d := lab.StartDetector(t, "--config.system-log-monitor="+strings.Join(configs(t, dir, log, style.Name), ","))
			count(want, all[:half])
			wait(t, d, want)

			if err := os.Rename(log, log+".1"); err != nil {
				t.Fatal(err)
			}
			write(t, log, all[half:], style.Name, time.Now())
			count(want, all[half:])
			wait(t, d, want)
			if _, complaint, found := strings.Cut(d.Log(t), "Unable to parse line"); found {
				t.Errorf("NPD complains: %.300s", complaint)
			}
		})
	}
}

func write(t *testing.T, path string, all []line, style string, at time.Time) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, l := range all {
		fmt.Fprintln(f, l.write(style, at))
	}
	// NPD as a service writes to the same log; what it quotes must not count.
	fmt.Fprintln(f, line{identifier: "node-problem-detector", message: `Unable to parse line: "kernel: x"`}.write(style, at))
}

func count(counters map[string]int, all []line) {
	for _, l := range all {
		for _, reasons := range l.reasons {
			for _, reason := range reasons {
				counters[reason]++
			}
		}
	}
}

// configs writes the rule files of a style, for another log, and returns their paths.
func configs(t *testing.T, dir, log, style string) []string {
	t.Helper()
	paths, err := filepath.Glob(style + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var config map[string]any
		if err := json.Unmarshal(data, &config); err != nil {
			t.Fatal(err)
		}
		config["logPath"] = log
		if data, err = json.Marshal(config); err != nil {
			t.Fatal(err)
		}
		paths[i] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(paths[i], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// wait ends when the counters are as wanted, and still are a second later.
func wait(t *testing.T, d *lab.Detector, want map[string]int) {
	t.Helper()
	var got map[string]int
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got = d.Counters(); maps.Equal(got, want) {
			time.Sleep(time.Second)
			if got = d.Counters(); maps.Equal(got, want) {
				return
			}
			break
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(want)) {
		if got[reason] != want[reason] {
			t.Errorf("%s: problem_counter %d, want %d", reason, got[reason], want[reason])
		}
	}
	for reason := range got {
		if want[reason] == 0 {
			t.Errorf("%s: problem_counter %d, want 0", reason, got[reason])
		}
	}
	t.FailNow()
}
