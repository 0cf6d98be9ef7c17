package lint

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSuppressions(t *testing.T) {
	got, err := ParseSuppressions([]byte("# head\n\n kernel.json\tpattern-end  blocked  for more # why # not\n*.yaml json # b\n"))
	want := []Suppression{{3, "kernel.json", "pattern-end", "blocked  for more", "why # not"}, {4, "*.yaml", "json", "", "b"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func FuzzSuppressions(f *testing.F) {
	f.Add([]byte("kernel.json pattern-end blocked # why\n# a\n[a-z]*.json json # b"))
	findings := Lint([]Source{{Path: "dir/kernel.json", Data: []byte("{")}}, "")
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ParseSuppressions(data)
		if err != nil {
			return
		}
		for _, s := range all {
			if s.Why == "" || s.File == "" || s.Line < 1 {
				t.Errorf("%+v", s)
			}
		}
		if after := Suppress(findings[:1:1], all, "x"); len(after) < 1 || len(after) > 1+len(all) {
			t.Errorf("%d findings", len(after))
		}
	})
}

// What SARIF 2.1.0 demands, for those who do not have its schema; test/deploy compares with that.
func TestSARIF(t *testing.T) {
	findings := Lint([]Source{{Path: "/a b/ü.json", Data: []byte("{")}, {Path: "c:d.json", Data: []byte("{}")}}, "")
	findings[0].Suppressed = "it is so"
	var out strings.Builder
	if err := WriteSARIF(&out, findings, "1.2"); err != nil {
		t.Fatal(err)
	}
	var log sarifLog
	if err := json.Unmarshal([]byte(out.String()), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if log.Version != "2.1.0" || run.Tool.Driver.Name == "" || len(run.Results) != len(findings) {
		t.Errorf("%s", &out)
	}
	for i, r := range run.Results {
		place := r.Locations[0].PhysicalLocation
		if run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID || r.Message.Text == "" || place.Region.StartLine < 1 || place.Region.StartColumn < 1 {
			t.Errorf("%+v", r)
		}
		if want := []string{"file:///a%20b/%C3%BC.json", "./c:d.json"}[min(i, 1)]; place.ArtifactLocation.URI != want {
			t.Errorf("%s, want %s", place.ArtifactLocation.URI, want)
		}
	}
	if s := run.Results[0].Suppressions; len(s) != 1 || s[0].Justification != "it is so" || len(run.Results[1].Suppressions) != 0 {
		t.Errorf("%+v", s)
	}
}
