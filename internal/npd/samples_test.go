package npd

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseSamples(t *testing.T) {
	got, err := ParseSamples([]byte("; words\n\n# B A\r\n+ one  \n- two\n+\n# C\n+ three"))
	want := []Sample{{4, "one  ", []string{"A", "B"}}, {5, "two", nil}, {6, "", []string{"A", "B"}}, {8, "three", []string{"C"}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for data, line := range map[string]int{"+ a": 1, "- a\n\nb": 3, "# A\n+ a\n#\n+ b": 4, "+a": 1} {
		_, err := ParseSamples([]byte(data))
		var broken *SampleError
		if !errors.As(err, &broken) || broken.Line != line {
			t.Errorf("%q: %v", data, err)
		}
	}
}

func TestTranslate(t *testing.T) {
	m, err := ParseLogMonitor([]byte(`{"plugin": "filelog", "skipList": [" npd["], "pluginConfig": {
		"timestamp": "^(?:(\\w+ +\\d+ \\S+)|x)", "message": "kubelet\\[\\d+\\]: (.*)", "timestampFormat": "Jan _2 15:04:05"},
		"rules": [{"type": "temporary", "reason": "R", "pattern": "it sighs.*"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	message, at, ok := m.Translate("Feb  3 04:05:06 h kubelet[1]:  it sighs ")
	want := time.Date(time.Now().Year(), 2, 3, 4, 5, 6, 0, time.Local)
	if message != " it sighs " || !at.Equal(want) || !ok {
		t.Errorf("got %q, %v, %v", message, at, ok)
	}
	for _, line := range []string{"", "Feb  3 04:05:06 h other[1]: a", "Fxb  3 04:05:06 h kubelet[1]: a", "x kubelet[1]: a", "Feb  3 04:05:06 h kubelet[1]: a npd[1]: b"} {
		if message, _, ok := m.Translate(line); ok {
			t.Errorf("%q: got %q", line, message)
		}
	}
	if !m.CanMatch("Feb  3 04:05:06 h kubelet[1]: it sighs") || m.CanMatch("Feb  3 04:05:06 h kubelet[1]: it laughs") {
		t.Error("CanMatch")
	}
	other, err := ParseLogMonitor([]byte(`{"plugin": "kmsg", "rules": [{"pattern": "x|y"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := other.Translate("Feb  3 04:05:06 h kubelet[1]: a"); ok || !other.CanMatch("") || other.Identifier() != "kernel" || m.Identifier() != "" {
		t.Error("of another plugin")
	}
}
