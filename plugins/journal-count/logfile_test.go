package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

const klogForm = "0102 15:04:05.000000"

// inFiles counts what a check finds in the log files of a host.
func inFiles(t *testing.T, root string, now time.Time, args ...string) (*tally, error) {
	t.Helper()
	h, err := host.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.Out = io.Discard
	c := newCheck(t, append([]string{"--identifier=rke2", "--pattern=it sighs.*"}, args...)...)
	var all tally
	err = c.scanFiles(context.Background(), &plugin.Look{Host: h, Now: now, Log: log}, &all)
	return &all, err
}

func writeLog(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestLogFiles reads the two files of an rke2 node, with two hours of lines.
func TestLogFiles(t *testing.T) {
	root, now := t.TempDir(), time.Now()
	var kubelet, containerd []string
	for at := now.Add(-2 * time.Hour); at.Before(now); at = at.Add(100 * time.Millisecond) {
		kubelet = append(kubelet, at.Format("I"+klogForm)+"    1814 kubelet.go:2126] all is well, and this line is as long as most of them are")
	}
	for _, before := range []time.Duration{9*time.Minute + 59*time.Second, 30 * time.Second} {
		kubelet[len(kubelet)-int(before/(100*time.Millisecond))] = now.Add(-before).Format("E"+klogForm) + `    1814 kubelet.go:2126] "it sighs"`
	}
	kubelet[len(kubelet)-6001] = now.Add(-10*time.Minute-100*time.Millisecond).Format("E"+klogForm) + "    1814 kubelet.go:1] it sighs too early"
	kubelet[len(kubelet)-100] = "goroutine 1 [running]: it sighs"
	containerd = append(containerd, `time="`+now.Add(-time.Hour).Format(time.RFC3339Nano)+`" level=error msg="it sighs"`,
		`time="`+now.Add(-time.Minute).UTC().Format(time.RFC3339Nano)+`" level=error msg="it sighs in UTC"`,
		`time="`+now.Add(time.Hour).Format(time.RFC3339Nano)+`" level=error msg="it sighs in the future"`, "it sighs without a time")
	writeLog(t, root+"/var/log/kubelet.log", kubelet...)
	writeLog(t, root+"/var/log/containerd.log", containerd...)

	got, err := inFiles(t, root, now, "--file=/var/log/containerd.log", "--file=/var/log/kubelet.log")
	if err != nil {
		t.Fatal(err)
	}
	if got.lines != 3 || got.entries > 6100 || got.stopped != nil {
		t.Errorf("%d lines of %d, %v", got.lines, got.entries, got.stopped)
	}
	var texts []string
	for _, line := range got.recent {
		texts = append(texts, line.identifier+": "+string(line.text))
	}
	want := []string{`kubelet: it sighs"`, `containerd: it sighs in UTC"`, `kubelet: it sighs"`}
	if fmt.Sprint(texts) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", texts, want)
	}
	if first := now.Sub(got.first).Round(time.Second); first != 9*time.Minute+59*time.Second {
		t.Errorf("first %v ago", first)
	}
	if got, err := inFiles(t, root, now, "--file=/var/log/kubelet.log", "--max-entries=10"); err != nil || got.stopped != errTooMany {
		t.Errorf("%v, %v", got.stopped, err)
	}
}

// TestLogFileZone: klog writes the node's time without its zone.
func TestLogFileZone(t *testing.T) {
	data, err := os.ReadFile("/usr/share/zoneinfo/Asia/Kathmandu")
	if err != nil {
		t.Skipf("needs tzdata: %v", err)
	}
	root, now := t.TempDir(), time.Now()
	zone, err := time.LoadLocationFromTZData("", data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/etc/localtime", data, 0o644); err != nil {
		t.Fatal(err)
	}
	writeLog(t, root+"/kubelet.log", now.In(zone).Add(-time.Minute).Format("E"+klogForm)+" 1 x.go:1] it sighs")
	if got, err := inFiles(t, root, now, "--file=/kubelet.log"); err != nil || got.lines != 1 {
		t.Errorf("%d lines, %v", got.lines, err)
	}
}

func TestLogFileNotReadable(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mkfifo(root+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"/none": "/none", "/": "is no file", "/fifo": "/fifo"} {
		if got, err := inFiles(t, root, time.Now(), "--file="+name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d lines, %v", name, got.lines, err)
		}
	}
}

func TestStamp(t *testing.T) {
	newYear := time.Date(2027, 1, 1, 0, 3, 0, 0, time.UTC)
	for _, test := range []struct {
		line string
		now  time.Time
		want time.Time
	}{
		{"E1231 23:59:58.000001    1 x.go:1] text", newYear, time.Date(2026, 12, 31, 23, 59, 58, 1000, time.UTC)},
		{"E0101 00:00:01.000000    1 x.go:1] text", newYear.Add(-4 * time.Minute), time.Date(2027, 1, 1, 0, 0, 1, 0, time.UTC)},
		{`time="2026-12-31T23:59:58.5+01:00" level=info`, newYear, time.Date(2026, 12, 31, 22, 59, 58, 5e8, time.UTC)},
		{`time="2026-12-31 23:59:58" level=info`, newYear, time.Time{}},
		{"E1331 23:59:58.000001 text", newYear, time.Time{}},
		{"goroutine 1 [running]:", newYear, time.Time{}},
		{"", newYear, time.Time{}},
	} {
		got, ok := stamp([]byte(test.line), test.now, time.UTC)
		if ok == test.want.IsZero() || ok && !got.Equal(test.want) {
			t.Errorf("%q: %v, %v, want %v", test.line, got, ok, test.want)
		}
	}
}

func FuzzStamp(f *testing.F) {
	f.Add([]byte("E1231 23:59:58.000001    1 x.go:1] text"))
	f.Add([]byte(`time="2026-12-31T23:59:58.5+01:00" level=info`))
	now := time.Now()
	f.Fuzz(func(t *testing.T, line []byte) {
		if at, ok := stamp(line, now, time.UTC); ok && line[0] != 't' && now.Sub(at).Abs() > 367*24*time.Hour {
			t.Errorf("%q: %v", line, at)
		}
	})
}
