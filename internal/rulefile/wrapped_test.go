package rulefile

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"npd-plugins/internal/npd"
)

// wrap is a line as k0s logs what a component of it has written.
func wrap(line, component string) string {
	var b bytes.Buffer
	log := &logrus.Logger{Out: &b, Level: logrus.InfoLevel, Formatter: &logrus.TextFormatter{TimestampFormat: time.DateTime, FullTimestamp: true}}
	log.WithFields(logrus.Fields{"component": component, "stream": "stderr"}).Info(line)
	return strings.TrimSpace(b.String())
}

func fired(m *npd.LogMonitor, line string) (reasons []string) {
	for _, match := range m.Match(line) {
		reasons = append(reasons, match.Rule.Reason)
	}
	return reasons
}

// TestForWrapped holds each sample, wrapped by logrus itself: what fires on a line fires on the wrapped one, and nothing else
// does, least of all for what another component wrote.
func TestForWrapped(t *testing.T) {
	matched := 0
	for _, component := range []string{"kubelet", "containerd"} {
		data := read(t, component+".json")
		plain, err := npd.ParseLogMonitor(data)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = ForWrapped(data, component); err != nil {
			t.Fatal(err)
		}
		inK0s, err := npd.ParseLogMonitor(data)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(rules + "testdata/" + component + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		samples, err := npd.ParseSamples(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, sample := range samples {
			want := fired(plain, sample.Text)
			matched += len(want)
			line := wrap(sample.Text, component)
			if got := fired(inK0s, line); !slices.Equal(got, want) {
				t.Errorf("%s: fired %q, want %q\n%s", component, got, want, line)
			}
			if got := fired(inK0s, wrap(sample.Text, "kube-proxy")); len(got) > 0 {
				t.Errorf("%s: fired %q for a line of kube-proxy\n%s", component, got, line)
			}
			ofComponent := strings.HasSuffix(sample.Text, "component="+component+" stream=stderr") // a sample that is of k0s
			if got := fired(inK0s, sample.Text); len(got) > 0 && !ofComponent {
				t.Errorf("%s: fired %q for a line of k0s itself\n%s", component, got, sample.Text)
			}
		}
	}
	// A text that quotes the end of another component's line is no such line.
	data, _ := ForWrapped(read(t, "kubelet.json"), "kubelet")
	m, err := npd.ParseLogMonitor(data)
	if err != nil {
		t.Fatal(err)
	}
	if got := fired(m, wrap(`PLEG is not healthy: pleg was last seen active 3m5s ago; threshold is 3m0s" component=kubelet stream=stderr`, "containerd")); len(got) > 0 {
		t.Errorf("fired %q for a forged component", got)
	}
	if matched < 100 {
		t.Errorf("only %d samples matched", matched)
	}
}

// FuzzWrapped: a pattern matches a line when what is made of it matches what is made of the line.
func FuzzWrapped(f *testing.F) {
	f.Add(`a "b\` + `" c`)
	f.Add(`x\\"`)
	f.Add(`failed: "it is \"a\" b" \`)
	patterns := []string{`"b\\" .`, `[^"\n]*" c`, `[^\n]+`, `a [!-z]"?.*`, `(?:\\*"|b)+ ?.*`, `[\\"]+`, `[^a-z]`, `x\\{2}`}
	type pair struct{ plain, wrapped *regexp.Regexp }
	var pairs []pair
	for _, pattern := range patterns {
		of, err := wrapped(pattern, "kubelet")
		if err != nil {
			f.Fatal(err)
		}
		pairs = append(pairs, pair{regexp.MustCompile(`^(?:` + pattern + `)\z`), regexp.MustCompile(`^time="" level=info msg="(?:` + of + `)\z`)})
	}
	f.Fuzz(func(t *testing.T, line string) {
		if quoted := strconv.Quote(line); len(line) == 0 || strings.Trim(quoted, `"`) == "" || !printable(line) {
			t.Skip()
		}
		for i, pair := range pairs {
			plain := pair.plain.MatchString(line)
			made := pair.wrapped.MatchString(`time="" level=info msg=` + strconv.Quote(line) + ` component=kubelet stream=stderr`)
			if plain != made {
				t.Errorf("%s matches %q: %v; %s: %v", patterns[i], line, plain, pair.wrapped, made)
			}
		}
	})
}

func printable(line string) bool {
	return !strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' })
}

func TestForOwnFile(t *testing.T) {
	at := time.Now().Truncate(time.Microsecond)
	for _, test := range []struct {
		file, line string
		own        Own
		want       time.Time
	}{
		{"kubelet.json", at.Format("E0102 15:04:05.000000") + `    1814 kubelet.go:2126] "Skipping pod synchronization" err="PLEG is not healthy"`, Klog, at},
		{"containerd.json", `time="` + at.Format(time.RFC3339Nano) + `" level=error msg="failed \"to\" start"`, Logrus, at},
		{"containerd.json", `time="` + at.UTC().Format(time.RFC3339Nano) + `" level=error msg="failed"  `, Logrus, at},
		{"containerd.json", `time="` + at.Truncate(time.Second).Format(time.RFC3339) + `" level=error msg=failed`, Logrus, at.Truncate(time.Second)},
	} {
		data, err := ForOwnFile(read(t, test.file), test.own, "/var/log/own.log", "own")
		if err != nil {
			t.Fatal(err)
		}
		m, err := npd.ParseLogMonitor(data)
		if err != nil {
			t.Fatal(err)
		}
		message, when, ok := m.Translate(test.line)
		if !ok || message != strings.TrimSpace(test.line) || !when.Equal(test.want) {
			t.Errorf("%s: %v, %q at %v", test.line, ok, message, when)
		}
		if m.Config.LogPath != "/var/log/own.log" || !strings.HasSuffix(m.Config.Source, "-own") {
			t.Errorf("%s: log %s, source %s", test.file, m.Config.LogPath, m.Config.Source)
		}
		if _, _, ok := m.Translate("goroutine 1 [running]:"); ok {
			t.Error("a stack has a time")
		}
	}
}
