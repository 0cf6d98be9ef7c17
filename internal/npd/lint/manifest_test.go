package lint

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// In each way to write the same text the finding is where the text stands.
func TestManifestPositions(t *testing.T) {
	data, err := os.ReadFile("testdata/manifests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := FromYAML("m.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	var got []string
	for _, source := range sources {
		for _, f := range Lint([]Source{source}, "") {
			at := string([]rune(lines[f.Line-1])[f.Column-1:])
			got = append(got, fmt.Sprintf("%d %s %s", f.Line, f.Trap.ID, at[:min(len(at), 12)]))
		}
	}
	want := strings.Split(strings.TrimSpace(`
7 duration "5"},
8 temporary-plugin "temporary",
12 json }
19 wrong-type []"
20 unknown-key "metricsConf
25 plugin-unknown "dmesg",
27 pattern-invalid "(", "type":
34 pattern-invalid "(", "type":
44 pattern-invalid \"(\", \"typ
49 pattern-invalid "it''s (", "
54 pattern-invalid "(",
63 json ,`), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestManifestOthers(t *testing.T) {
	for data, want := range map[string]int{
		"data:\n  dashboard.json: '{\"panels\": []}'\n":                                     0,
		"data:\n  a.json: '{\"panels\": []}'\n  b.json: '{\"plugin\": 1, \"rules\": []}'\n": 2,
		"custom_monitor_definitions:\n  a.json: '{}'\n  b.txt: '{}'\n  c.json: [1]\n":       1,
		"a: &x '{\"plugin\": 1, \"rules\": []}'\ndata: {b.json: *x, c.json: *x}\n":          2,
		"settings: {log_monitors: [/config/a.json, /custom-config/b.json]}\n":               1,
		"a: &a {b: &b {c.json: 1}}\nd: *a\n":                                                0,
		"":                                                                                  0,
		`{"apiVersion":"v1","kind":"ConfigMap","data":{"a.json":"{\"plugin\":\"custom\",\n \"rules\":[]}"}}`: 1,
	} {
		got, err := FromYAML("a.yaml", []byte(data))
		if err != nil || len(got) != want {
			t.Errorf("%q: %d, %v, want %d", data, len(got), err, want)
		}
	}
	if _, err := FromYAML("a.yaml", []byte("a: {{ .Values.a }}\n- b\n")); err == nil || !strings.Contains(err.Error(), "helm template") {
		t.Error(err)
	}
}

// The lists of the chart name what is defined beside them, and all of it.
func TestManifestLists(t *testing.T) {
	sources, err := FromYAML("v.yaml", []byte(`settings:
  custom_monitor_definitions:
    a.json: '{"plugin": "kmsg", "source": "a", "rules": [{"type": "temporary", "reason": "A", "pattern": "a.*"}]}'
    b.json: '{"plugin": "kmsg", "source": "b", "rules": [{"type": "temporary", "reason": "B", "pattern": "b.*"}]}'
    c.sh: echo
  log_monitors: [/config/kernel-monitor.json, /custom-config/a.json]
  custom_plugin_monitors:
  - /custom-config/c.json
  - /custom-config/a.json
  - /config/kernel-monitor.json
  - /config/of-another-image.json
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range Lint(sources, "") {
		got = append(got, fmt.Sprintf("%d:%d %s %s", f.Line, f.Column, f.Trap.ID, f.Detail))
	}
	want := []string{
		"4:5 file-unused b.json", "8:5 file-undefined /custom-config/c.json", `9:5 list-wrong /custom-config/a.json with plugin "kmsg" in custom_plugin_monitors`,
		`10:5 list-wrong /config/kernel-monitor.json with plugin "kmsg" in custom_plugin_monitors`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each character of a text is where it was written, or where an escape or a line break stands for it.
func FuzzManifest(f *testing.F) {
	data, err := os.ReadFile("testdata/manifests.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for document := range strings.SplitSeq(string(data), "---\n") {
		f.Add([]byte(document))
	}
	f.Add([]byte("a.json: \"\\u00e4\\x41\\\n  b \\t\\n  c\n\n\n  d\\U0001F600\"\n"))
	f.Add([]byte("a.json: !!str &x\n  plain\n  text\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sources, err := FromYAML("a.yaml", data)
		if err != nil {
			return
		}
		Lint(sources, "")
		var document yaml.Node
		if yaml.Unmarshal(data, &document) != nil {
			return
		}
		var walk func(node *yaml.Node)
		walk = func(node *yaml.Node) {
			for _, child := range node.Content {
				walk(child)
			}
			if node.Kind != yaml.ScalarNode {
				return
			}
			at := offsets(data, node)
			if len(at) != len(node.Value)+1 {
				t.Fatalf("%d offsets of %q", len(at), node.Value)
			}
			begin := offsetOf(data, node.Line, node.Column)
			for i, offset := range at[:len(node.Value)] {
				if offset < 0 || offset > len(data) {
					t.Fatalf("offset %d of %d", offset, len(data))
				}
				if c := node.Value[i]; offset != begin && offset < len(data) && !isBlank(c) && data[offset] != c && data[offset] != '\\' && c < 0x80 {
					t.Errorf("%q of %q is at %q", c, node.Value, data[offset:])
				}
			}
		}
		walk(&document)
	})
}
