package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/npd"
)

func read(t testing.TB, paths ...string) []Source {
	t.Helper()
	var all []Source
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		source := Source{Path: filepath.Base(path), Data: data}
		samples := strings.TrimSuffix(path, ".json") + ".txt"
		if data, err := os.ReadFile(samples); err == nil {
			source.Samples = &Samples{filepath.Base(samples), data}
		}
		all = append(all, source)
	}
	return all
}

// root is a file system with one plugin and one file that is none.
func root(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "opt/checks"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"disk": 0o755, "disk-dead": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, "opt/checks", name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// positions are the findings of each file (or pair of files) in testdata, as trap line:column.
var positions = map[string]string{
	"buffer-size":           "buffer-size 8:17",
	"check-timeout":         "check-timeout 14:116",
	"check-timeout-apart":   "check-timeout 14:85",
	"clean-custom":          "",
	"clean-filelog":         "",
	"clean-journald":        "",
	"clean-kmsg":            "",
	"clean-samples":         "",
	"buffer-large":          "buffer-large 8:17",
	"concurrency":           "concurrency 6:20",
	"concurrency-zero":      "concurrency-zero 6:20",
	"condition-unknown":     "type-unknown 12:14, condition-unknown 12:40",
	"duration-overridden":   "duplicate-key 1:26",
	"label":                 "label 7:37",
	"label-no-metrics":      "",
	"list":                  "wrong-type 1:1",
	"metric-twice-files":    "metric-twice 1:61",
	"null":                  "wrong-type 1:1",
	"other-stackdriver":     "",
	"output-negative":       "output-negative 6:26",
	"output-zero":           "output-zero 6:26",
	"rule-empty":            "rule-empty 7:5",
	"stackdriver":           "duration 2:19, duration 3:27, interval-not-positive 4:28, wrong-type 5:34, unknown-key 6:3",
	"stats-metrics":         "metric-twice 5:38, metric-name 6:39, metric-unknown 9:7, net-incomplete 13:23, metric-twice 13:56, pattern-invalid 14:31, lsblk-timeout 16:28, unknown-key 18:3",
	"stats-short-interval":  "lsblk-timeout 3:21",
	"stats-values":          "wrong-type 2:10, lsblk-timeout 3:28, wrong-type 3:52, duration 4:21",
	"condition-ignored":     "condition-ignored 10:40",
	"condition-incomplete":  "condition-incomplete 11:5",
	"condition-of-kubelet":  "condition-of-kubelet 11:14",
	"condition-of-others":   "condition-of-others 11:14",
	"condition-ready":       "condition-ready 11:14",
	"condition-twice":       "condition-twice 12:14",
	"condition-two-files":   "condition-two-files 11:14",
	"condition-two-rules":   "condition-two-rules 15:40",
	"condition-undeclared":  "condition-undeclared 12:40",
	"condition-unused":      "condition-unused 12:14",
	"duplicate-key":         "duplicate-key 6:5",
	"duration":              "duration 4:24",
	"filelog-config":        "filelog-config 3:19",
	"filelog-path":          "filelog-path 1:1",
	"filelog-regexp":        "filelog-regexp 5:16",
	"initial-status":        "initial-status 7:28",
	"initial-status-absent": "initial-status 3:19",
	"interval-not-positive": "interval-not-positive 4:24",
	"journald-path":         "journald-path 1:1",
	"journald-source":       "journald-source 3:19",
	"journald-source-case":  "journald-source 3:19, unknown-key 4:5",
	"json":                  "json 15:3",
	"key-case":              "key-case 5:5",
	"log-permanent":         "log-permanent 10:14",
	"message-change":        "message-change 6:53",
	"no-rules":              "no-rules 9:12",
	"other-list":            "",
	"other-system-stats":    "",
	"other-turned-off":      "",
	"output-default":        "output-default 3:19",
	"output-over-4096":      "output-over-4096 6:26",
	"path-missing":          "path-missing 14:84",
	"path-missing-root":     "path-missing 14:84",
	"path-not-executable":   "path-not-executable 14:84",
	"path-relative":         "path-relative 14:84",
	"pattern-alternation":   "pattern-alternation 10:64",
	"pattern-empty":         "pattern-empty 10:5",
	"pattern-end":           "pattern-end 10:64",
	"pattern-end-shown":     "",
	"pattern-invalid":       "pattern-invalid 10:64",
	"pattern-slow":          "pattern-slow 10:64",
	"pattern-slow-class":    "pattern-slow 10:64",
	"pattern-shadowed":      "pattern-shadowed 11:68",
	"pattern-twice":         "pattern-twice 11:64",
	"pattern-twice-files":   "pattern-twice 11:64",
	"percent":               "percent 11:61",
	"percent-suffix":        "percent 10:116",
	"plugin-unknown":        "plugin-unknown 2:13",
	"reason-empty":          "reason-empty 10:5",
	"reason-identifiers":    "",
	"reason-twice":          "reason-twice 11:37",
	"reason-twice-files":    "reason-twice 10:37, pattern-twice 10:64",
	"reason-twice-healthy":  "reason-twice 11:36",
	"rule-interval":         "rule-interval 14:76",
	"rule-null":             "rule-null 15:5",
	"rule-timeout":          "rule-timeout 14:87",
	"sample-broken":         "sample-broken 4:1",
	"sample-false-alarm":    "sample-false-alarm 3:1, sample-false-alarm 5:1",
	"sample-foreign":        "sample-false-alarm 3:1",
	"sample-foreign-known":  "",
	"sample-missing":        "sample-missing 11:37",
	"sample-reason":         "sample-unmatched 4:1, sample-reason 4:1",
	"sample-unmatched":      "sample-unmatched 3:1",
	"skip-list":             "skip-list 8:3",
	"source-empty":          "source-empty 1:1",
	"source-shared":         "source-shared 7:13, pattern-twice 10:64",
	"temporary-plugin":      "temporary-plugin 15:14",
	"timeout-not-positive":  "timeout-not-positive 5:16",
	"timeout-over-interval": "timeout-over-interval 5:16",
	"type-unknown":          "type-unknown 14:14",
	"unknown-key":           "unknown-key 14:76",
	"unknown-key-kmsg":      "unknown-key 3:20",
	"unknown-key-suffix":    "unknown-key 14:76",
	"wrong-type":            "wrong-type 5:16",
	"wrong-type-map":        "wrong-type 4:15, journald-source 4:15",
}

func TestTraps(t *testing.T) {
	dir := root(t)
	groups := map[string][]string{}
	paths, _ := filepath.Glob("testdata/*.json")
	for _, path := range paths {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		groups[name] = append(groups[name], path)
	}
	seen := map[string]bool{}
	got := map[string]string{}
	for name, files := range groups {
		below := ""
		if strings.HasPrefix(name, "path-") && name != "path-relative" {
			below = dir
		}
		var all []string
		for _, f := range Lint(read(t, files...), below) {
			all = append(all, fmt.Sprintf("%s %d:%d", f.Trap.ID, f.Line, f.Column))
			seen[f.Trap.ID] = true
			last := filepath.Base(files[len(files)-1])
			if strings.HasPrefix(f.Trap.ID, "sample-") && f.Trap.ID != "sample-missing" {
				last = strings.TrimSuffix(last, ".json") + ".txt"
			}
			if f.Path != last {
				t.Errorf("%s: reported in %s", name, f.Path)
			}
		}
		got[name] = strings.Join(all, ", ")
	}
	if diff := cmp.Diff(positions, got); diff != "" {
		t.Error(diff)
	}
	for _, trap := range Traps {
		if !seen[trap.ID] && !slices.Contains([]string{"suppression-unused", "file-undefined", "file-unused", "list-wrong"}, trap.ID) { // have tests of their own
			t.Errorf("no file in testdata steps into %s", trap.ID)
		}
	}
}

// The project's own files step into no trap.
func TestOwnFilesAreClean(t *testing.T) {
	var paths []string
	for _, dir := range []string{"config", "journal-rules"} {
		some, _ := filepath.Glob(filepath.Join("../../..", dir, "*.json"))
		paths = append(paths, some...)
	}
	for _, f := range Lint(read(t, paths...), "") {
		t.Error(f)
	}
}

func TestPatternEnd(t *testing.T) {
	for pattern, want := range map[string]bool{
		`a.*`: true, `a.+`: true, `(?:a.*|b.*)`: true, `a(?:b|c).*`: true, `a$`: true, `a\\z`: true, `(a.*)`: true, `a[^,\n]*`: true, `a(?:, b.*)?`: true,
		`a`: false, `a\\S*`: false, `a\\w+`: false, `(?:a.*|b)`: false, `.*a`: false, `a.`: false, `a?`: false,
	} {
		data := `{"plugin": "kmsg", "source": "s", "rules": [{"type": "temporary", "reason": "R", "pattern": "` + strings.ReplaceAll(pattern, "\n", `\n`) + `"}]}`
		ended := true
		for _, f := range Lint([]Source{{Path: "a.json", Data: []byte(data)}}, "") {
			ended = ended && f.Trap.ID != "pattern-end"
		}
		if ended != want {
			t.Errorf("%s: %v, want %v", pattern, ended, want)
		}
	}
}

func TestFindingString(t *testing.T) {
	got := Lint([]Source{{Path: "a.json", Data: []byte("{\n\t\"plugin\": \"kmsg\", \"source\": \"s\",\n\t\"rules\": []}")}}, "")
	if len(got) != 1 || got[0].String() != "a.json:3:11: warning: no rules: the monitor does nothing; mend: at least one rule [no-rules]" {
		t.Errorf("got %v", got)
	}
}

func TestSeveralInOneFile(t *testing.T) {
	data := `{"plugin": "custom", "Source": "s", "pluginConfig": {"timeout": "soon", "concurrency": "3", "skip_initial_status": null},
"conditions": [{"type": "C", "reason": "R", "message": "m", "transition": "today", "status": false}, 7],
"rules": [{"type": "permanent", "condition": "C", "reason": "P", "path": "/p", "args": ["--timeout", 4], "message": "m"}]}`
	var got []string
	for _, f := range Lint([]Source{{Path: "a.json", Data: []byte(data)}}, "") {
		got = append(got, fmt.Sprintf("%d:%d %s %s", f.Line, f.Column, f.Trap.ID, f.Detail))
	}
	want := []string{
		`1:22 key-case "Source" in the file, the name is "source"`,
		`1:53 output-default no max_output_length`,
		`1:53 initial-status skip_initial_status is not true`,
		`1:65 duration "timeout" is "soon"`,
		`1:88 wrong-type "concurrency" is not a whole number`,
		`2:75 wrong-type "transition" is not a time as in RFC 3339`,
		`2:94 wrong-type "status" is not a text in quotes`,
		`2:102 wrong-type an element of "conditions" is not an object`,
		`3:102 wrong-type an element of "args" is not a text in quotes`,
		`3:106 unknown-key "message" in an element of "rules", it belongs into a condition`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnreadableJSON(t *testing.T) {
	for data, want := range map[string]string{
		"":                       "1:1",
		"\ufeff{}":               "1:1",
		"{\n  \"a\": 1,\n}":      "3:1",
		"{}\n{}":                 "2:1",
		"plugin: custom":         "1:1",
		"{\"a\": \"unfinished":   "1:17",
		"// comment\n{}":         "1:1",
		"{\"plugin\": 'custom'}": "1:12",
	} {
		got := Lint([]Source{{Path: "a.json", Data: []byte(data)}}, "")
		if len(got) != 1 || got[0].Trap.ID != "json" || fmt.Sprintf("%d:%d", got[0].Line, got[0].Column) != want {
			t.Errorf("%q: got %v, want json at %s", data, got, want)
		}
	}
}

func TestTextsOfTraps(t *testing.T) {
	seen := map[string]bool{}
	for _, trap := range Traps {
		if seen[trap.ID] || trap.Happens == "" || trap.Mend == "" {
			t.Errorf("%+v", trap)
		}
		seen[trap.ID] = true
	}
}

func FuzzLint(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.json")
	for _, s := range read(f, paths...) {
		f.Add(s.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		findings := Lint([]Source{{Path: "a.json", Data: data, Samples: &Samples{"a.txt", data}}, {Path: "b.json", Data: data}}, "")
		for _, found := range findings {
			if found.Line < 1 || found.Column < 1 || found.Line > 1+strings.Count(string(data), "\n") || found.Column > len(data)+1 {
				t.Errorf("%v: no such position", found)
			}
		}
		// What NPD dies of is fatal here, and nothing else is.
		f := &file{Source: Source{Path: "a.json", Data: data}}
		f.look()
		if f.shape == statsShape {
			f.metrics(ownMetrics())
		}
		skip := f.top == nil && len(f.findings) == 0 // a list of modules
		fatal := false
		for _, found := range f.findings {
			switch found.Trap.ID {
			case "duplicate-key", "key-case", "buffer-large", "path-missing", "output-negative":
				skip = true // how they add up, our own limit, another machine, later
			}
			fatal = fatal || found.Trap.Severity == Fatal
		}
		if err := dies(f, data); !skip && (err != nil) != fatal {
			t.Errorf("NPD dies of %q: %v; lint finds %v", data, err, f.findings)
		}
	})
}

// dies is what NPD dies of when it reads a file.
func dies(f *file, data []byte) error {
	var err error
	switch {
	case f.top == nil:
		_, err = npd.ParseCustom(data)
	case f.shape == statsShape:
		err = npd.CheckStats(data)
	case f.custom:
		_, err = npd.ParseCustom(data)
	case f.shape.fields["rules"] != nil:
		_, err = npd.ParseLogMonitor(data)
	default:
		err = npd.CheckStackdriver(data)
	}
	return err
}
