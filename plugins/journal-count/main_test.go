package main

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const machineID = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

// newCheck is the check with these flags, and some it cannot do without.
func newCheck(t testing.TB, args ...string) *check {
	t.Helper()
	c := new(check)
	fs := flag.NewFlagSet("journal-count", flag.ContinueOnError)
	c.flags(fs)
	if err := fs.Parse(append([]string{"--identifier=kubelet,k3s", "--pattern=broken .*", "--summary=toys break"}, args...)); err != nil {
		t.Fatal(err)
	}
	return c
}

func setTime(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFlags(t *testing.T) {
	for _, bad := range []string{"--condition=lower", "--condition=a b", "--condition=../X", "--condition=", "--identifier=", "--identifier=a,", "--identifier=a, b",
		"--pattern=", "--pattern=(", `--pattern=a\`, "--pattern=)|(", "--count=0", "--max-entries=0", "--window=0"} {
		fs := flag.NewFlagSet("journal-count", flag.ContinueOnError)
		fs.SetOutput(&strings.Builder{})
		new(check).flags(fs)
		if fs.Parse([]string{bad}) == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	c := newCheck(t, "--pattern=b|c", "--identifier=x")
	if c.patterns.find([]byte("c and b")) != 6 || c.patterns.find([]byte("b and d")) >= 0 || strings.Join(c.identifiers, " ") != "kubelet k3s x" {
		t.Errorf("%v %v", c.patterns, c.identifiers)
	}
}

// Any expression on any message: it ends, and what it tells is bounded and safe.
func FuzzLine(f *testing.F) {
	f.Add("broken .*", []byte("it is broken by 100%"), []byte("mended"))
	f.Add(`(?i)a*?|(?s:.)+`, []byte("\xff\x00aaaa"), []byte{})
	f.Add(`(x+x+)+y`, []byte(strings.Repeat("x", 3000)), []byte("y"))
	f.Fuzz(func(t *testing.T, pattern string, one, two []byte) {
		if len(pattern) > 100 || len(one) > 4096 || len(two) > 4096 {
			return
		}
		c := &check{count: 1, window: time.Minute, summary: "it is said"}
		if c.patterns.Set(pattern) != nil {
			return
		}
		tally := &tally{toEnd: true, fromBegin: true, end: plugintest.Now, from: plugintest.Now.Add(-time.Minute)}
		for range maxRecent {
			for _, message := range [][]byte{one, two} {
				c.take(tally, plugintest.Now, []byte("kubelet"), message)
			}
		}
		v := c.judge(tally, plugintest.Now)
		re := regexp.MustCompile(`(?:` + pattern + `)\z`)
		if matches := re.Match(bytes.TrimSpace(one)) || re.Match(bytes.TrimSpace(two)); matches != (v.Status == plugin.Problem) {
			t.Errorf("%v for %q and %q", v.Status, one, two)
		}
		if len(tally.recent) > maxRecent || len(plugin.Safe(v.Message, plugin.MaxMessage)) > plugin.MaxMessage {
			t.Errorf("%d lines kept, %q", len(tally.recent), v.Message)
		}
		for i := range tally.recent {
			excerpt := tally.recent[i].excerpt(shownExcerpt)
			if len(excerpt) > shownExcerpt || strings.ContainsFunc(excerpt, func(r rune) bool { return r < ' ' || r > '~' || r == '%' }) {
				t.Errorf("excerpt %q", excerpt)
			}
			if len(tally.recent[i].text) > keptText {
				t.Errorf("%d bytes kept", len(tally.recent[i].text))
			}
		}
	})
}
