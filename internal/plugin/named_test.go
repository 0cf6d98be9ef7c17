package plugin

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A check that is many conditions says which it is, and has a memory for each.
func TestNamed(t *testing.T) {
	m := newMachine(t)
	look := func(args ...string) string {
		var name string
		c := Check{Name: "toy", Condition: "ToyBroken", Named: &name, FailureThreshold: 1, Timeout: time.Minute,
			Flags: func(fs *flag.FlagSet) { fs.StringVar(&name, "condition", "", "") },
			Look: func(_ context.Context, l *Look) Verdict {
				last := "nothing"
				l.Recall(&last)
				l.Remember(name + " things")
				return Verdict{Message: "recalls " + last}
			}}
		var stdout, stderr bytes.Buffer
		run(c, append([]string{"--host-root", m.root, "--state-dir", m.stateDir, "--output", "json"}, args...), &stdout, &stderr)
		return stdout.String()
	}
	for _, want := range []string{"recalls nothing", "recalls  things"} {
		if told := look(); !strings.Contains(told, `"condition":"ToyBroken"`) || !strings.Contains(told, want) {
			t.Errorf("want %q: %s", want, told)
		}
	}
	for _, want := range []string{"recalls nothing", "recalls ToyLost things"} {
		if told := look("--condition=ToyLost"); !strings.Contains(told, `"condition":"ToyLost"`) || !strings.Contains(told, want) {
			t.Errorf("want %q: %s", want, told)
		}
	}
	for _, file := range []string{"toy.state", "toy-ToyLost.state"} {
		if _, err := os.Stat(filepath.Join(m.stateDir, file)); err != nil {
			t.Error(err)
		}
	}
}
