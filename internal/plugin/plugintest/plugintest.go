// Package plugintest gives the tests of a check what plugin.Main gives the
// check.
package plugintest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

// Now is the time of every look.
var Now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// Look returns a first look at a host. What it logs is shown when the test
// fails. The look after it is its Next.
func Look(t testing.TB, h *host.Root) *plugin.Look {
	var log bytes.Buffer
	t.Cleanup(func() {
		if t.Failed() && log.Len() > 0 {
			t.Logf("stderr:\n%s", log.String())
		}
	})
	return &plugin.Look{Host: h, Now: Now, Log: &logrus.Logger{Out: &log, Level: logrus.InfoLevel, Hooks: logrus.LevelHooks{},
		Formatter: &logrus.TextFormatter{DisableColors: true, DisableTimestamp: true}}}
}

// Want fails the test unless the verdict is of that status, its message says
// all of these words, and its numbers are sound.
func Want(t testing.TB, v plugin.Verdict, s plugin.Status, words ...string) {
	t.Helper()
	if v.Status != s {
		t.Errorf("%s, want %s: %s", v.Status, s, v.Message)
	}
	for _, word := range words {
		if !strings.Contains(v.Message, word) {
			t.Errorf("the message does not say %q: %s", word, v.Message)
		}
	}
	for _, m := range v.Measurements {
		if m.Value < 0 || m.Limit < 0 || m.Name == "" || m.Unit == "" {
			t.Errorf("measurement %+v", m)
		}
	}
	if s == plugin.Problem && len(v.Details) == 0 {
		t.Errorf("a Problem without details: %s", v.Message)
	}
}

// WantSuspicion fails the test unless the verdict leaves that to the next
// look, in these words; without words, unless it leaves nothing to it.
func WantSuspicion(t testing.TB, v plugin.Verdict, words string) {
	t.Helper()
	if (words == "") != (v.Suspicion == "") || !strings.Contains(v.Suspicion, words) {
		t.Errorf("%s, suspicion %q, want %q: %s", v.Status, v.Suspicion, words, v.Message)
	}
}
