// Package journalrules tests the rule files beside it; it has no code of its own.
//
// testdata/<file>.txt holds lines for <file>.json, one journal MESSAGE each, in the form of npd.ParseSamples. The lines are
// written from the formats in the sources of the components, with neutral names; none is taken from a real cluster.
package journalrules

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
)

const (
	// minPositive is how many lines every rule must be shown to match.
	minPositive = 8
	// minNegative is how many look-alikes all files hold together.
	minNegative = 150
	// minPrefix is the shortest literal, in bytes, that may lead a pattern. Go's regexp looks for it with
	// strings.Index and runs the machine only behind a hit; without one a line costs microseconds instead of tens of
	// nanoseconds. It is why some patterns start behind a letter that comes in both cases ("ailed to ...").
	minPrefix = 4
)

// names returns the rule files without their .json.
func names(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rule files: %v", err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(path, ".json")
	}
	return paths
}

func load(t testing.TB, name string) *npd.LogMonitor {
	t.Helper()
	m, err := npd.LoadLogMonitor(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sample is a line of testdata and the reasons it must fire, sorted; none for a look-alike.
type sample struct {
	position string
	line     string
	reasons  []string
}

func samples(t testing.TB, name string) []sample {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := npd.ParseSamples(content)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var all []sample
	for _, s := range parsed {
		all = append(all, sample{path + ":" + strconv.Itoa(s.Line), s.Text, s.Reasons})
	}
	return all
}

// fired returns the reasons, sorted, that m reports when line comes in.
func fired(m *npd.LogMonitor, line string) []string {
	var reasons []string
	for _, match := range m.Match(line) {
		reasons = append(reasons, match.Rule.Reason)
	}
	slices.Sort(reasons)
	return reasons
}

func TestLines(t *testing.T) {
	lookAlikes := 0
	for _, name := range names(t) {
		t.Run(name, func(t *testing.T) {
			m := load(t, name)
			shown := map[string]int{}
			for _, s := range samples(t, name) {
				if got := fired(m, s.line); !slices.Equal(got, s.reasons) {
					t.Errorf("%s: fired %q, want %q\n%s", s.position, got, s.reasons, s.line)
				}
				if s.reasons == nil {
					lookAlikes++
				}
				for _, reason := range s.reasons {
					shown[reason]++
				}
			}
			for _, r := range m.Config.Rules {
				if shown[r.Reason] < minPositive {
					t.Errorf("%s: %d lines fire it, want at least %d", r.Reason, shown[r.Reason], minPositive)
				}
				delete(shown, r.Reason)
			}
			for reason := range shown {
				t.Errorf("lines for %s, which is no rule's reason", reason)
			}
		})
	}
	if lookAlikes < minNegative {
		t.Errorf("%d look-alikes in all, want at least %d", lookAlikes, minNegative)
	}
}

// TestOneEvent: a line that fires a rule fires none in another file of the same identifier. A line is one Event, unless one file
// says that it tells of two things.
func TestOneEvent(t *testing.T) {
	monitors := map[string]*npd.LogMonitor{}
	for _, name := range names(t) {
		monitors[name] = load(t, name)
	}
	for name, m := range monitors {
		for _, s := range samples(t, name) {
			for other, o := range monitors {
				if other == name || o.Identifier() != m.Identifier() || s.reasons == nil {
					continue
				}
				if got := fired(o, s.line); got != nil {
					t.Errorf("%s: fires %q, and in %s.json %q\n%s", s.position, s.reasons, other, got, s.line)
				}
			}
		}
	}
}

// oomReports are what kernels write for one kill each.
var oomReports = map[string][]string{
	"6.18, container with memory.oom.group": {
		"stress invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=996",
		"memory: usage 262144kB, limit 262144kB, failcnt 113",
		"Tasks state (memory values in pages):",
		"[  31007]     0 31007     1024      512      512        0         0    61440        0           996 stress",
		"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=cri-containerd-4f2d.scope,mems_allowed=0,oom_memcg=/kubepods.slice/kubepods-pod1.slice/cri-containerd-4f2d.scope,task_memcg=/kubepods.slice/kubepods-pod1.slice/cri-containerd-4f2d.scope,task=stress,pid=31007,uid=0",
		"Memory cgroup out of memory: Killed process 31007 (stress) total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1204kB oom_score_adj:996",
		"Tasks in /kubepods.slice/kubepods-pod1.slice/cri-containerd-4f2d.scope are going to be killed due to memory.oom.group set",
		"Memory cgroup out of memory: Killed process 31001 (sh) total-vm:2576kB, anon-rss:88kB, file-rss:860kB, shmem-rss:0kB, UID:0 pgtables:44kB oom_score_adj:996",
		"Memory cgroup out of memory: Killed process 31007 (stress) total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1204kB oom_score_adj:996",
		"oom_reaper: reaped process 31007 (stress), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
	},
	"6.18, node": {
		"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/system.slice/kubelet.service,task=kubelet,pid=945,uid=0",
		"Out of memory: Killed process 945 (kubelet) total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1204kB oom_score_adj:-999",
	},
	"4.18, container": {
		"stress invoked oom-killer: gfp_mask=0x6000c0(GFP_KERNEL), nodemask=(null), order=0, oom_score_adj=996",
		"Task in /kubepods/burstable/pod1/4f2d killed as a result of limit of /kubepods/burstable/pod1/4f2d",
		"Memory cgroup out of memory: Kill process 31007 (stress) score 1996 or sacrifice child",
		"Killed process 31007 (stress) total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB",
	},
	"3.10, node": {
		"Out of memory: Kill process 31007 (java) score 812 or sacrifice child",
		"Killed process 31007 (java), UID 1000, total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB",
	},
}

// TestOneEventPerKill: whatever a kernel writes for one kill by the OOM killer, it is one Event.
func TestOneEventPerKill(t *testing.T) {
	for kernel, report := range oomReports {
		var all []string
		for _, name := range names(t) {
			if m := load(t, name); m.Identifier() == "kernel" {
				for _, line := range report {
					all = append(all, fired(m, line)...)
				}
			}
		}
		if len(all) != 1 {
			t.Errorf("Linux %s: %q, want one", kernel, all)
		}
	}
}

// TestFollowingLines feeds every line of a file behind every kind of line: a rule must not look back at lines that have
// been counted, nor fire a second time on an empty line.
func TestFollowingLines(t *testing.T) {
	for _, name := range names(t) {
		m := load(t, name)
		for _, s := range samples(t, name) {
			fired(m, s.line)
			for range 3 {
				if got := fired(m, "an ordinary line"); got != nil {
					t.Errorf("%s: %q fired again on the next line", s.position, got)
				}
			}
		}
	}
}

var (
	camelCase = regexp.MustCompile(`^(?:[A-Z][a-z]*[0-9]*)+$`)
	heading   = regexp.MustCompile(`(?m)^### (\S+)$`)
)

func TestReasons(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	runbooks := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(string(readme), -1) {
		if runbooks[h[1]] {
			t.Errorf("README.md has two sections %s", h[1])
		}
		runbooks[h[1]] = true
	}
	file := map[string]string{}
	for _, name := range names(t) {
		for _, r := range load(t, name).Config.Rules {
			if other, ok := file[r.Reason]; ok {
				t.Errorf("%s: %s is a reason of %s already; NPD's metrics know nothing but the reason", name, r.Reason, other)
			}
			file[r.Reason] = name
			if !camelCase.MatchString(r.Reason) {
				t.Errorf("%s: %s is not CamelCase", name, r.Reason)
			}
			if want := "see npd-plugins journal-rules/README.md#" + strings.ToLower(r.Reason); r.Suffix != want {
				t.Errorf("%s: suffix %q, want %q", r.Reason, r.Suffix, want)
			}
			if !runbooks[r.Reason] {
				t.Errorf("README.md has no section %s", r.Reason)
			}
			delete(runbooks, r.Reason)
		}
	}
	for reason := range runbooks {
		t.Errorf("README.md has a section %s, which is no rule's reason", reason)
	}
}

func TestFiles(t *testing.T) {
	sources := map[string]bool{}
	for _, name := range names(t) {
		c := load(t, name).Config
		if sources[c.Source] || c.Source == "" {
			t.Errorf("%s: source %q is empty or another file's; NPD limits events per source", name, c.Source)
		}
		sources[c.Source] = true
		if c.Plugin == "journald" && c.PluginConfig["source"] == "" {
			t.Errorf("%s: no identifier", name)
		}
		if c.BufferSize != 1 {
			t.Errorf("%s: bufferSize %d, want 1: every rule looks at one line", name, c.BufferSize)
		}
		data, err := os.ReadFile(name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "%") {
			t.Errorf("%s: holds a %%, which corrupts the event", name)
		}
		var exact struct {
			Plugin       string            `json:"plugin"`
			PluginConfig map[string]string `json:"pluginConfig"`
			LogPath      string            `json:"logPath"`
			Lookback     string            `json:"lookback"`
			BufferSize   int               `json:"bufferSize"`
			Source       string            `json:"source"`
			Metrics      bool              `json:"metricsReporting"`
			Conditions   []any             `json:"conditions"`
			Rules        []npd.LogRule     `json:"rules"`
		}
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.DisallowUnknownFields()
		if err := d.Decode(&exact); err != nil {
			t.Errorf("%s: %v; NPD ignores what it does not know", name, err)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, name := range names(t) {
		for _, r := range load(t, name).Config.Rules {
			if r.Type != npd.Temporary {
				t.Errorf("%s: type %q; a condition that a log rule sets never clears", r.Reason, r.Type)
			}
			tree, err := syntax.Parse(r.Pattern, syntax.Perl)
			if err != nil {
				t.Fatal(err)
			}
			if crossesLines(tree) {
				t.Errorf("%s: ^, $ or something that accepts a newline: NPD then joins its buffer for every line\n%s", r.Reason, r.Pattern)
			}
			if !takesRest(tree) {
				t.Errorf("%s: does not reach the end of a line with a tail\n%s", r.Reason, r.Pattern)
			}
			if prefix, _ := regexp.MustCompile(r.Pattern).LiteralPrefix(); len(prefix) < minPrefix {
				t.Errorf("%s: starts with the literal %q, want %d bytes or more", r.Reason, prefix, minPrefix)
			}
		}
	}
}

// crossesLines reports whether the expression has an anchor or accepts a newline.
func crossesLines(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
		return true
	case syntax.OpLiteral:
		return slices.Contains(re.Rune, '\n')
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= '\n' && '\n' <= re.Rune[i+1] {
				return true
			}
		}
	}
	return slices.ContainsFunc(re.Sub, crossesLines)
}

// takesRest reports whether the expression can end in a repetition that takes the rest of a line.
func takesRest(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpStar:
		op := re.Sub[0].Op
		return op == syntax.OpAnyCharNotNL || op == syntax.OpCharClass
	case syntax.OpConcat:
		return takesRest(re.Sub[len(re.Sub)-1])
	case syntax.OpCapture, syntax.OpQuest:
		return takesRest(re.Sub[0])
	case syntax.OpAlternate:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !takesRest(sub) })
	}
	return false
}

// BenchmarkNoMatch is what one rule costs NPD for one line that no rule matches: NPD's own matching, a plain regexp.
// It prints the average of the file's rules in ns/rule, and the slowest rule as a multiple of the median.
//
// The lines are the look-alikes of all files: a harder lot than ordinary lines.
func BenchmarkNoMatch(b *testing.B) {
	var lookAlikes []sample
	for _, name := range names(b) {
		for _, s := range samples(b, name) {
			if s.reasons == nil {
				lookAlikes = append(lookAlikes, s)
			}
		}
	}
	for _, name := range names(b) {
		b.Run(name, func(b *testing.B) {
			m := load(b, name)
			var lines []string
			for _, s := range lookAlikes {
				if fired(m, s.line) == nil {
					lines = append(lines, s.line)
				}
			}
			var patterns []*regexp.Regexp
			for _, r := range m.Config.Rules {
				patterns = append(patterns, regexp.MustCompile(r.Pattern+`\z`))
			}
			took := make([]time.Duration, len(patterns))
			for b.Loop() {
				for i, re := range patterns {
					began := time.Now()
					for _, line := range lines {
						re.MatchString(line)
					}
					if d := time.Since(began); took[i] == 0 || d < took[i] {
						took[i] = d // the best round: other work on the machine only adds
					}
				}
			}
			perLine := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(len(lines)) }
			var sum time.Duration
			for _, d := range took {
				sum += d
			}
			slices.Sort(took)
			b.ReportMetric(perLine(sum)/float64(len(took)), "ns/rule")
			b.ReportMetric(perLine(took[len(took)-1]), "ns/slowest")
			b.ReportMetric(float64(took[len(took)-1])/float64(took[len(took)/2]), "slowest/median")
		})
	}
}
