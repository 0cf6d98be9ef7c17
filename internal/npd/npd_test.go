package npd

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const customFile = `{
  "plugin": "custom",
  "pluginConfig": {%s},
  "source": "disk",
  "conditions": [
    {"type": "Other", "reason": "OtherIsFine", "message": "other is fine"},
    {"type": "DiskSlow", "reason": "DiskIsFine", "message": "disk is fine"}
  ],
  "rules": [
    {"type": "permanent", "condition": "DiskSlow", "reason": "DiskIsSlow", "path": "/x"%s},
    {"type": "permanent", "condition": "DiskSlow", "reason": "DiskIsDead", "path": "/y"},
    {"type": "temporary", "reason": "DiskHiccup", "path": "/z"}
  ]
}`

func mustParse(t *testing.T, global, rule string) *CustomConfig {
	t.Helper()
	c, err := ParseCustom(fmt.Appendf(nil, customFile, global, rule))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseCustomDefaults(t *testing.T) {
	c := mustParse(t, `"timeout": null`, "")
	want := PluginConfig{
		InvokeInterval:  Duration(30 * time.Second),
		Timeout:         Duration(5 * time.Second),
		MaxOutputLength: 80,
		Concurrency:     3,
	}
	if diff := cmp.Diff(want, c.PluginConfig); diff != "" {
		t.Error(diff)
	}
	if got := c.RuleTimeout(c.Rules[0]); got != 5*time.Second {
		t.Errorf("timeout %v", got)
	}
	if got := c.RuleInterval(c.Rules[0]); got != 30*time.Second {
		t.Errorf("interval %v", got)
	}
}

func TestParseCustomValues(t *testing.T) {
	c := mustParse(t, `"invoke_interval": "1m", "timeout": "20s", "max_output_length": 0, "concurrency": 1,
		"enable_message_change_based_condition_update": true, "skip_initial_status": true`,
		`, "timeout": "3s", "invoke_interval": "10m"`)
	want := PluginConfig{
		InvokeInterval:        Duration(time.Minute),
		Timeout:               Duration(20 * time.Second),
		Concurrency:           1,
		UpdateOnMessageChange: true,
		SkipInitialStatus:     true,
	}
	if diff := cmp.Diff(want, c.PluginConfig); diff != "" {
		t.Error(diff)
	}
	if got := c.RuleTimeout(c.Rules[0]); got != 3*time.Second {
		t.Errorf("timeout %v", got)
	}
	if got := c.RuleInterval(c.Rules[0]); got != 10*time.Minute {
		t.Errorf("interval %v", got)
	}
	if got := c.RuleTimeout(c.Rules[1]); got != 20*time.Second {
		t.Errorf("timeout %v", got)
	}
}

func TestParseCustomFatal(t *testing.T) {
	for name, data := range map[string]string{
		"empty":                 ``,
		"byte order mark":       "\ufeff{}",
		"trailing comma":        `{"plugin": "custom",}`,
		"two values":            `{"plugin": "custom"} {}`,
		"other plugin":          `{"plugin": "kmsg"}`,
		"no plugin":             `{}`,
		"duration as number":    `{"plugin": "custom", "pluginConfig": {"timeout": 5}}`,
		"duration without unit": `{"plugin": "custom", "pluginConfig": {"timeout": "5"}}`,
		"interval zero":         `{"plugin": "custom", "pluginConfig": {"invoke_interval": "0s"}}`,
		"concurrency negative":  `{"plugin": "custom", "pluginConfig": {"concurrency": -1}}`,
		"rule interval":         `{"plugin": "custom", "rules": [{"invoke_interval": "-1s"}]}`,
		"rule timeout":          `{"plugin": "custom", "rules": [{"timeout": "6s"}]}`,
		"rule is null":          `{"plugin": "custom", "rules": [null]}`,
		"undeclared condition":  `{"plugin": "custom", "rules": [{"type": "permanent", "condition": "C"}]}`,
	} {
		if _, err := ParseCustom([]byte(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A type that is neither of the two words is not checked.
	if _, err := ParseCustom([]byte(`{"plugin": "custom", "rules": [{"type": "Permanent", "condition": "C"}]}`)); err != nil {
		t.Error(err)
	}
}

func TestCustomMonitor(t *testing.T) {
	const (
		healthy = "DiskIsFine|disk is fine"
		slow    = "DiskIsSlow|"
	)
	type step struct {
		rule   int
		status Status
		says   string
		want   string // status|reason|message of DiskSlow
		event  string // type|reason|message, or none
	}
	condition := func(status, rest string) string { return status + "|" + rest }
	event := func(kind, status, reason, message string) string {
		return fmt.Sprintf("%s|%s|Node condition DiskSlow is now: %s, reason: %s, message: %q", kind, reason, status, reason, message)
	}
	for name, c := range map[string]struct {
		global string
		steps  []step
	}{
		"stays healthy": {"", []step{
			{0, OK, "all well", condition("False", healthy), ""},
			{0, OK, "very well", condition("False", healthy), ""},
		}},
		"onset, new message ignored, recovery": {"", []step{
			{0, NonOK, "9 ms", condition("True", slow+"9 ms"), event("Warning", "True", "DiskIsSlow", "9 ms")},
			{0, NonOK, "12 ms", condition("True", slow+"9 ms"), ""},
			{0, OK, "1 ms", condition("False", healthy), event("Normal", "False", "DiskIsFine", "disk is fine")},
		}},
		"message change": {`"enable_message_change_based_condition_update": true`, []step{
			{0, NonOK, "9 ms", condition("True", slow+"9 ms"), event("Warning", "True", "DiskIsSlow", "9 ms")},
			{0, NonOK, "9 ms", condition("True", slow+"9 ms"), ""},
			{0, NonOK, "12 ms", condition("True", slow+"12 ms"), event("Warning", "True", "DiskIsSlow", "12 ms")},
		}},
		"reason change": {"", []step{
			{0, NonOK, "9 ms", condition("True", slow+"9 ms"), event("Warning", "True", "DiskIsSlow", "9 ms")},
			{1, NonOK, "gone", condition("True", "DiskIsDead|gone"), event("Warning", "True", "DiskIsDead", "gone")},
		}},
		"unknown has the healthy reason": {"", []step{
			{0, Unknown, "no socket", condition("Unknown", "DiskIsFine|no socket"), event("Normal", "Unknown", "DiskIsFine", "no socket")},
			{0, Unknown, "no file", condition("Unknown", "DiskIsFine|no socket"), ""},
			{0, OK, "", condition("False", healthy), event("Normal", "False", "DiskIsFine", "disk is fine")},
		}},
		"problem, unknown, problem": {"", []step{
			{0, NonOK, "9 ms", condition("True", slow+"9 ms"), event("Warning", "True", "DiskIsSlow", "9 ms")},
			{0, Unknown, "late", condition("Unknown", "DiskIsFine|late"), event("Normal", "Unknown", "DiskIsFine", "late")},
			{0, NonOK, "8 ms", condition("True", slow+"8 ms"), event("Warning", "True", "DiskIsSlow", "8 ms")},
		}},
		"two rules flip-flop": {"", []step{
			{0, NonOK, "9 ms", condition("True", slow+"9 ms"), event("Warning", "True", "DiskIsSlow", "9 ms")},
			{1, OK, "", condition("False", healthy), event("Normal", "False", "DiskIsFine", "disk is fine")},
		}},
		"temporary": {"", []step{
			{2, OK, "fine", condition("False", healthy), ""},
			{2, NonOK, "95% used", condition("False", healthy), "Warning|DiskHiccup|95%!u(MISSING)sed"},
			{2, Unknown, "what", condition("False", healthy), "Warning|DiskHiccup|what"},
			{2, Unknown, "what", condition("False", healthy), "Warning|DiskHiccup|what"},
		}},
		"percent spoils the event alone": {"", []step{
			{0, NonOK, "100%", condition("True", slow+"100%"),
				`Warning|DiskIsSlow|Node condition DiskSlow is now: True, reason: DiskIsSlow, message: "100%!"(MISSING)`},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			config := mustParse(t, c.global, "")
			m := NewCustomMonitor(config, time.Unix(0, 0))
			for i, s := range c.steps {
				at := time.Unix(int64(i+1), 0)
				before := m.Conditions()[1]
				events := m.Apply(config.Rules[s.rule], s.status, s.says, at)
				after := m.Conditions()[1]
				if got := after.Status + "|" + after.Reason + "|" + after.Message; got != s.want {
					t.Errorf("step %d: condition %s, want %s", i, got, s.want)
				}
				var got string
				for _, e := range events {
					got += e.Type + "|" + e.Reason + "|" + e.Message
					if e.Source != "disk" || !e.Time.Equal(at) {
						t.Errorf("step %d: event %+v", i, e)
					}
				}
				if got != s.event {
					t.Errorf("step %d: event %s, want %s", i, got, s.event)
				}
				moved := strings.Contains(s.event, "Node condition")
				if after.Transition.Equal(before.Transition) == moved {
					t.Errorf("step %d: transition %v after %v", i, after.Transition, before.Transition)
				}
			}
		})
	}
}

func TestInitialStatus(t *testing.T) {
	now := time.Unix(7, 0)
	if got := NewCustomMonitor(mustParse(t, "", ""), now).Initial(); len(got) != 2 || got[0].Status != "False" || !got[1].Transition.Equal(now) {
		t.Errorf("got %+v", got)
	}
	skipping := NewCustomMonitor(mustParse(t, `"skip_initial_status": true`, ""), now)
	if got := skipping.Initial(); got != nil {
		t.Errorf("skipping: got %+v", got)
	}
	if got := skipping.Conditions(); len(got) != 2 {
		t.Errorf("skipping: holds %+v", got)
	}
}

func TestApplyUndeclaredCondition(t *testing.T) {
	c := mustParse(t, "", "")
	c.Rules[0].Condition = "Nowhere"
	if events := NewCustomMonitor(c, time.Now()).Apply(c.Rules[0], NonOK, "x", time.Now()); events != nil {
		t.Errorf("got %+v", events)
	}
}

func logMonitor(t *testing.T, extra, rules string) *LogMonitor {
	t.Helper()
	m, err := ParseLogMonitor(fmt.Appendf(nil, `{"plugin": "journald", "source": "log", %s "rules": [%s]}`, extra, rules))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func temporary(reason, pattern string) string {
	return fmt.Sprintf(`{"type": "temporary", "reason": %q, "pattern": %q}`, reason, pattern)
}

func reasons(matches []Match) (all []string) {
	for _, m := range matches {
		all = append(all, m.Rule.Reason)
	}
	return all
}

func TestLogMonitorMatchesToTheEnd(t *testing.T) {
	m := logMonitor(t, "", temporary("Whole", "oom.*")+","+temporary("Part", "oom"))
	if got := reasons(m.Match("  oom killer  ")); !slices.Equal(got, []string{"Whole"}) {
		t.Errorf("got %v", got)
	}
	if got := reasons(m.Match("an oom")); !slices.Equal(got, []string{"Whole", "Part"}) {
		t.Errorf("got %v", got)
	}
	if got := m.Match("quiet"); got != nil {
		t.Errorf("got %v", got)
	}
}

// An alternation that is not grouped matches one line again for as long as it is in the buffer.
func TestLogMonitorUngroupedAlternation(t *testing.T) {
	count := func(pattern string) (n int) {
		m := logMonitor(t, "", temporary("R", pattern))
		n += len(m.Match("A happened"))
		for range 30 {
			n += len(m.Match("quiet"))
		}
		return n
	}
	if got := count("A|B"); got != 10 {
		t.Errorf("ungrouped: %d times, want 10", got)
	}
	if got := count("(?:A|B).*"); got != 1 {
		t.Errorf("grouped: %d times, want 1", got)
	}
}

func TestLogMonitorSeveralLines(t *testing.T) {
	m := logMonitor(t, `"bufferSize": 3,`, `{"type": "temporary", "reason": "R", "pattern": "first.*\nsecond.*", "patternGeneratedMessageSuffix": "see 50% off"}`)
	m.Match("first of two")
	got := m.Match("second of two")
	if len(got) != 1 || got[0].Message != "first of two\nsecond of two; see 50% off" {
		t.Fatalf("got %+v", got)
	}
	if e := got[0].Event; e.Type != "Warning" || e.Source != "log" || !strings.HasSuffix(e.Message, "; see 50%!o(MISSING)ff") {
		t.Errorf("event %+v", e)
	}
	m.Match("first again")
	m.Reset()
	if got := m.Match("second again"); got != nil {
		t.Errorf("after reset: %+v", got)
	}
}

func TestLogMonitorPermanent(t *testing.T) {
	conditions := `"conditions": [{"type": "Dead", "reason": "Alive", "message": "lives"}],`
	rule := `{"type": "permanent", "condition": %q, "reason": %q, "pattern": %q}`
	m := logMonitor(t, conditions, fmt.Sprintf(rule, "Dead", "Stuck", "stuck.*")+","+fmt.Sprintf(rule, "Dead", "Gone", "gone.*")+","+fmt.Sprintf(rule, "Nowhere", "Lost", "lost.*"))
	for i, s := range []struct {
		line, reason string
		event        bool
	}{
		{"stuck 1", "Stuck", true},
		{"stuck 2", "Stuck", false},
		{"gone 1", "Gone", true},
		{"lost", "Lost", false},
	} {
		got := m.Match(s.line)
		if len(got) != 1 || got[0].Rule.Reason != s.reason || (got[0].Event != nil) != s.event {
			t.Fatalf("step %d: %+v", i, got)
		}
	}
	if c := m.Conditions()[0]; c.Status != "True" || c.Reason != "Gone" || c.Message != "gone 1" {
		t.Errorf("got %+v", c)
	}
}

func TestParseLogMonitorFatal(t *testing.T) {
	for name, data := range map[string]string{
		"no plugin":           `{}`,
		"custom":              `{"plugin": "custom"}`,
		"not a string":        `{"plugin": "kmsg", "pluginConfig": {"x": 1}}`,
		"lookback":            `{"plugin": "kmsg", "lookback": "1"}`,
		"delay":               `{"plugin": "kmsg", "delay": "1 m"}`,
		"buffer":              `{"plugin": "kmsg", "bufferSize": -1}`,
		"buffer of terabytes": `{"plugin": "kmsg", "bufferSize": 1000000000000}`,
		"pattern":             `{"plugin": "kmsg", "rules": [{"pattern": "("}]}`,
		"open quote":          `{"plugin": "kmsg", "rules": [{"pattern": "a\\"}]}`,
		"filelog timestamp":   `{"plugin": "filelog", "pluginConfig": {"timestamp": "("}}`,
		"not JSON whatsoever": `plugin: kmsg`,
	} {
		if _, err := ParseLogMonitor([]byte(data)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := LoadCustom("/does/not/exist"); err == nil {
		t.Error("LoadCustom: no error")
	}
	if _, err := LoadLogMonitor("/does/not/exist"); err == nil {
		t.Error("LoadLogMonitor: no error")
	}
}

// referenceMatch is the plain way to say what matches: join all lines, search, and count back.
func referenceMatch(expr string, buffer []string, size int) []string {
	joined := strings.Join(append(make([]string, max(0, size-len(buffer))), buffer...), "\n")
	at := regexp.MustCompile(expr + `\z`).FindStringIndex(joined)
	if at == nil {
		return nil
	}
	for n := 1; n <= len(buffer); n++ {
		tail := buffer[len(buffer)-n:]
		if n == len(buffer) || len(strings.Join(tail, "\n"))+1 >= len(joined)-at[0] {
			return tail
		}
	}
	return nil
}

var equivalent = []string{
	`foo`, `foo.*`, `(?:foo|bar).*`, `foo|bar`, `foo|bar.*`, `^foo.*`, `foo$`, `(?m)^foo$`, `(?m)foo$`, `(?s)foo.*`, `foo[^x]*`, `foo\s.*`,
	`\bfoo\b.*`, `foo.*\nbar.*`, `(?i)FOO.*`, `(?:a|b)*foo{2,}.*`, `(?:foo)?bar.*`, `(foo|ba[rz]).*`, ``, `.*`, `x*`, `[[:^alpha:]]foo.*`,
	`fo+.*`, `(?:foo){0,2}`, `\x{FFFD}.*`, `\Qfoo.`, `foo\z`, `\Afoo.*`, `(?:fox|foo)bar`, `a\.b.*`, `\B.*o`,
}

func checkEquivalence(t *testing.T, expr string, size int, lines []string) {
	t.Helper()
	if _, err := regexp.Compile(expr + `\z`); err != nil {
		return
	}
	if _, err := compilePattern(expr); err != nil {
		return
	}
	rule, _ := json.Marshal(LogRule{Type: Temporary, Reason: "R", Pattern: expr})
	// Not JSON's replacement of what is no UTF-8, but the expression itself, is what counts.
	var back LogRule
	if json.Unmarshal(rule, &back) != nil || back.Pattern != expr {
		return
	}
	m, err := ParseLogMonitor(fmt.Appendf(nil, `{"plugin": "filelog", "bufferSize": %d, "rules": [%s]}`, size, rule))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range lines {
		var got []string
		if matches := m.Match(line); matches != nil {
			got = []string{matches[0].Message}
		}
		var want []string
		if tail := referenceMatch(expr, lines[max(0, i+1-size):i+1], size); tail != nil {
			want = []string{strings.Join(tail, "\n")}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, buffer %d, lines %q: got %q, want %q", expr, size, lines[:i+1], got, want)
		}
	}
}

func TestMatchEqualsTheSearchInJoinedLines(t *testing.T) {
	words := []string{"foo", "bar", "a foo b", "", "barfoo", "foo x", "FOO", "foobar", "foo\nbar", "\xff", "a.b", "x", "foo ", " foo"}
	for _, expr := range equivalent {
		for _, size := range []int{1, 2, 3, 10} {
			for i := range words {
				checkEquivalence(t, expr, size, append(slices.Clone(words[i:]), words[:i]...))
			}
		}
	}
}

func FuzzMatch(f *testing.F) {
	for _, expr := range equivalent {
		f.Add(expr, "foo\x00bar\x00a foo b\x00foo\nbar", uint8(3))
	}
	f.Fuzz(func(t *testing.T, expr, lines string, size uint8) {
		if len(expr) > 60 || len(lines) > 300 {
			return
		}
		checkEquivalence(t, expr, int(size%12)+1, strings.Split(lines, "\x00"))
	})
}

func TestLastLineOnly(t *testing.T) {
	for expr, want := range map[string]bool{
		`foo.*`: true, `(?:foo|bar).*`: true, `foo$`: true, `\bfoo\S+`: true, `[^"\n]*`: true, `(?i)foo.*`: true,
		`foo|bar`: false, `^foo.*`: false, `(?m)foo$`: false, `(?s)foo.*`: false, `[^"]*`: false, `foo\s.*`: false, "a\nb": false, `\W`: false,
	} {
		p, err := compilePattern(expr)
		if err != nil {
			t.Fatal(err)
		}
		if p.lastLine != want {
			t.Errorf("%q: %v, want %v", expr, p.lastLine, want)
		}
	}
}

func TestNeeds(t *testing.T) {
	for expr, want := range map[string][][]string{
		`foo.*`:                      {{"foo"}},
		`(?:PLEG is|runc init).*`:    {{"PLEG is", "runc init"}},
		`a.*longer.*b`:               {{"a"}, {"longer"}, {"b"}},
		`(?i)foo.*`:                  nil,
		`(?:foo)?.*`:                 nil,
		`(?:foo|.*)`:                 nil,
		`(?:(?:long|longer).*a|b).*`: {{"long", "b"}},
		`(?:a.*longer|b) c.*`:        {{"longer", "b"}, {" c"}},
		`(?:foo){2,3}`:               {{"foo"}},
		`\x{FFFD}`:                   nil,
	} {
		p, err := compilePattern(expr)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, p.needs); diff != "" {
			t.Errorf("%q: %s", expr, diff)
		}
	}
}

func FuzzLoadCustom(f *testing.F) {
	f.Add(fmt.Appendf(nil, customFile, "", ""))
	f.Add(fmt.Appendf(nil, customFile, `"skip_initial_status": true, "timeout": "1h"`, `, "timeout": "1s"`))
	f.Add([]byte(`{"plugin":"custom","rules":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCustom(data)
		if err != nil {
			return
		}
		m := NewCustomMonitor(c, time.Now())
		for _, r := range c.Rules {
			if c.RuleTimeout(r) > time.Duration(c.PluginConfig.Timeout) || c.RuleInterval(r) <= 0 {
				t.Errorf("rule %+v: timeout %v, interval %v", r, c.RuleTimeout(r), c.RuleInterval(r))
			}
			for _, s := range []Status{NonOK, Unknown, OK} {
				m.Apply(r, s, "text 5%", time.Now())
			}
		}
		if len(m.Conditions()) != len(c.Conditions) {
			t.Error("conditions lost")
		}
	})
}

func FuzzLoadLog(f *testing.F) {
	f.Add([]byte(`{"plugin":"journald","pluginConfig":{"source":"kubelet"},"bufferSize":2,"rules":[{"type":"temporary","reason":"R","pattern":"a.*"}]}`))
	f.Add([]byte(`{"plugin":"filelog","conditions":[{"type":"C"}],"rules":[{"type":"permanent","condition":"C","pattern":"^a|b"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseLogMonitor(data)
		if err != nil {
			return
		}
		for _, line := range []string{"a", "b", "a\nb", "\xff%s"} {
			m.Match(line)
		}
	})
}

// kubeletLine is of the length and form most lines of a kubelet have.
const kubeletLine = `I1021 10:11:12.131415    1234 reconciler_common.go:245] "operationExecutor.VerifyControllerAttachedVolume started for volume \"kube-api-access-abcde\" (UniqueName: \"kubernetes.io/projected/0f1e2d3c\") pod \"web-7d4b9c\""`

func BenchmarkLogMonitor(b *testing.B) {
	var rules []string
	for i, p := range []string{
		`.*grpc: received message larger than max.*`, `PLEG is not healthy: pleg was last seen active.*`,
		`(?:pthread_create failed: (?:Resource temporarily unavailable|No space left on device)|fork/exec .*: resource temporarily unavailable).*`,
		`runc did not terminate suc?cessfully.*`, `name "[^"\n]+" is reserved for "[^"\n]+".*`, `failed to create new OS thread \(have \d+ already; errno=11\).*`,
		`cgroup: fork rejected by pids controller in .*`, `task [\S ]+:\w+ blocked for more than \w+ seconds\.`,
	} {
		rules = append(rules, temporary(fmt.Sprint("R", i), p))
	}
	m, err := ParseLogMonitor([]byte(`{"plugin": "journald", "rules": [` + strings.Join(rules, ",") + `]}`))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Match(kubeletLine)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}
