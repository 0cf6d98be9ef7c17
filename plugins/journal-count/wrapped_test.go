package main

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// inK0s is a line as k0s logs what a component of it has written.
func inK0s(line, component string) string {
	var b bytes.Buffer
	log := &logrus.Logger{Out: &b, Level: logrus.InfoLevel, Formatter: &logrus.TextFormatter{TimestampFormat: time.DateTime, FullTimestamp: true}}
	log.WithFields(logrus.Fields{"component": component, "stream": "stderr"}).Info(line)
	return strings.TrimSpace(b.String())
}

// TestK0s: each configuration counts a wrapped line as it counts the line itself, and none of another component.
func TestK0s(t *testing.T) {
	counted := 0
	for name := range shipped {
		c, _ := configured(t, name)
		for component := range ruleFiles(t) {
			if component != "kubelet" && component != "containerd" {
				continue
			}
			for _, sample := range samplesOf(t, component) {
				var plain, other, whole tally
				c.take(&plain, time.Now(), []byte("kubelet"), []byte(sample.Text))
				c.take(&whole, time.Now(), []byte("k0s"), []byte(inK0s(sample.Text, component)))
				c.take(&other, time.Now(), []byte("k0s"), []byte(inK0s(sample.Text, "kube-apiserver")))
				counted += plain.lines
				if whole.lines != plain.lines || other.lines > 0 {
					t.Errorf("%s: %d lines, %d wrapped, %d of another component\n%s", name, plain.lines, whole.lines, other.lines, sample.Text)
				}
				if whole.lines > 0 && !bytes.Equal(whole.last().text, plain.last().text) {
					t.Errorf("%s: %q, want %q", name, whole.last().text, plain.last().text)
				}
			}
		}
	}
	if counted < 20 {
		t.Errorf("only %d samples counted", counted)
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add(`time="2026-11-27 10:00:00" level=info msg="a \"b\"" component=kubelet stream=stderr`)
	f.Add(`x" stream=stderr`)
	f.Fuzz(func(t *testing.T, line string) {
		unwrap([]byte(line))
		if strings.TrimSpace(line) != line || line == "" {
			return
		}
		whole := `time="2026-11-27 10:00:00" level=info msg=` + strconv.Quote(line) + ` component=kubelet stream=stderr`
		if inner, counts := unwrap([]byte(whole)); !counts || string(inner) != line {
			t.Errorf("%q came out as %q, counts: %v", line, inner, counts)
		}
	})
}
