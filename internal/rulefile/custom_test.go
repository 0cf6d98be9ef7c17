package rulefile

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestNothingOfAConfigurationLost rewrites each file to what it says already.
func TestNothingOfAConfigurationLost(t *testing.T) {
	paths, err := filepath.Glob("../../config/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	for _, path := range paths {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		now, err := ForPlugins(was, func(*PluginRule) {})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		var a, b any
		if json.Unmarshal(was, &a) != nil || json.Unmarshal(now, &b) != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%s comes out changed:\n%s", path, now)
		}
		if again, err := ForPlugins(now, func(*PluginRule) {}); err != nil || !bytes.Equal(again, now) {
			t.Errorf("%s comes out changed the second time (%v):\n%s", path, err, again)
		}
	}
}

func TestForPluginsRefuses(t *testing.T) {
	for _, config := range []string{`{"plugin": "custom", "new": 1}`, `{"rules": [{"new": 1}]}`, `{`} {
		if now, err := ForPlugins([]byte(config), func(*PluginRule) {}); err == nil {
			t.Errorf("%s became %s", config, now)
		}
	}
}

func TestSetFlag(t *testing.T) {
	tests := []struct {
		was    string
		values []string
		want   string
	}{
		{"", []string{"5"}, "--count=5"},
		{"--timeout=8s", []string{"5"}, "--timeout=8s --count=5"},
		{"--count=1 --timeout=8s", []string{"5"}, "--timeout=8s --count=5"},
		{"-count=1 --count=2 --timeout=8s", []string{"5"}, "--timeout=8s --count=5"},
		{"--count 1 --timeout 8s", []string{"5"}, "--timeout 8s --count=5"},
		{"--counts=1", []string{"5", "6"}, "--counts=1 --count=5 --count=6"},
		{"--counts=1 --count=7", []string{"a=b"}, "--counts=1 --count=a=b"},
	}
	for _, test := range tests {
		r := PluginRule{Args: strings.Fields(test.was)}
		r.SetFlag("count", test.values...)
		if got := strings.Join(r.Args, " "); got != test.want {
			t.Errorf("%s, set to %q: %s, want %s", test.was, test.values, got, test.want)
		}
	}
}
