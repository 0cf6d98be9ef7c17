package plugin

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCulprits(t *testing.T) {
	all := []Consumer{{"small", 9}, {"big", 60}, {"b", 12}, {"a", 12}, {"nothing", 0}}
	for _, tt := range []struct {
		total float64
		most  int
		want  []Consumer
	}{
		{100, 3, []Consumer{{"big", 60}, {"a", 12}, {"b", 12}}},
		{100, 1, []Consumer{{"big", 60}}},
		{90, 9, []Consumer{{"big", 60}, {"a", 12}, {"b", 12}, {"small", 9}}},
		{601, 9, []Consumer{}},
		{0, 9, []Consumer{{"big", 60}, {"a", 12}, {"b", 12}, {"small", 9}}},
	} {
		if diff := cmp.Diff(tt.want, Culprits(all, tt.total, tt.most)); diff != "" {
			t.Errorf("of %v: %s", tt.total, diff)
		}
	}
	if all[0].Name != "small" {
		t.Error("the caller's order was changed")
	}
}
