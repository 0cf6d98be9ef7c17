package contract

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/plugin"
)

// badValues are wrong for a flag by what --help calls its argument. A directory, a file and a name may be anything; a wrong
// one is not a wrong usage.
var badValues = map[string][]string{
	"condition":   {"", "x", "X Y", "lowerCase", "X%s", "../X"},
	"expression":  {"", "(", "a{2,1}", "[[:x:]]"},
	"identifiers": {"", ",", "a,", "a, b"},
	"text":        nil,
	"number":      {"", "x", "0", "-1", "1.5", "99999999999999999999"},
	"share":       {"", "x", "0", "-1", "101"},
	"duration":    {"", "x", "0", "-1s", "5"},
	"size":        {"", "x", "0", "-1", "16QiB", "99999999999999999999", "1.5MiB"},
	"format":      {"", "x", "JSON"},
	"level":       {"", "x"},
	"services":    {"", ",", "x y", "a/b", "%s", "x*"},
	"socket":      {"x", "http://localhost", "run/x.sock", "unix://run/x.sock"},
	"address":     {"", "https://node-1", "node-1:0", "node-1:x", "a:b:c", "%s"},
	"file":        nil,
	"name":        nil,
}

func TestWrongUsage(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		c.wantUnknown(t, []string{"--no-such-flag"}, "-no-such-flag", "--help")
		c.wantUnknown(t, []string{"stray"}, "stray", "--help")
		c.wantUnknown(t, []string{"--", "--version"}, "--version", "--help")
		c.wantUnknown(t, []string{"line\nfeed \x1b[31m %s \xff"}, "unexpected argument", "--help")
		c.wantUnknown(t, []string{strings.Repeat("a", 4096)})
		for _, f := range c.flags {
			if f.argument == "" {
				continue
			}
			c.wantUnknown(t, []string{"--" + f.name}, "-"+f.name)
			for _, value := range badValues[f.argument] {
				c.wantUnknown(t, []string{"--" + f.name + "=" + value}, "-"+f.name)
			}
		}
	})
}

func TestHelp(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		for _, pattern := range []string{
			`^` + c.name + `: node condition [A-Z]\w+\n\n\S.{40}`, // and its purpose
			`(?m)^Reads:\n  \S`,
			`(?m)^Needs:\n  \S`,
			`(?m)^Stays OK:\n  \S`,
			`(?m)^Flags:\n  --`,
			`(?m)^Exit codes:\n  0 OK, 1 Problem, 2 Unknown`,
			`(?m)^Example:\n  ` + c.name + ` --`,
		} {
			if !regexp.MustCompile(pattern).MatchString(c.help) {
				t.Errorf("--help has no %q:\n%s", pattern, c.help)
			}
		}
		for _, flag := range []string{"host-root", "state-dir", "timeout", "failure-threshold", "output", "log-level", "version"} {
			if !c.has(flag) {
				t.Errorf("--help does not tell of --%s", flag)
			}
		}
		for _, f := range c.flags {
			if _, known := badValues[f.argument]; !known && f.argument != "" && f.argument != "directory" {
				t.Errorf("--%s takes a %q, for which no wrong values are known here", f.name, f.argument)
			}
		}
		r := npd.RunPlugin(context.Background(), c.path, []string{"-h"}, time.Minute, npd.MaxPluginOutput)
		if r.ExitCode != 0 || r.Message != c.help {
			t.Errorf("-h is not --help: exit code %d, %q", r.ExitCode, r.Message)
		}
	})
}

func TestVersion(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		r := c.run(t, "--version")
		if want := `^` + c.name + ` \S+ go\S+ linux/\w+$`; r.ExitCode != 0 || !regexp.MustCompile(want).MatchString(r.Message) {
			t.Errorf("exit code %d, %q, want 0 and %q", r.ExitCode, r.Message, want)
		}
	})
}

func TestLongMessage(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		r := c.wantUnknown(t, []string{"--host-root=/" + strings.Repeat("a", 4000)}, "host root")
		if len(r.Message) != plugin.MaxMessage {
			t.Errorf("%d bytes, want it cut at %d", len(r.Message), plugin.MaxMessage)
		}
	})
}
