package rulefile

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
)

const rules = "../../journal-rules/"

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(rules + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestNothingLost rewrites each file to what it is already.
func TestNothingLost(t *testing.T) {
	paths, err := filepath.Glob(rules + "*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	for _, path := range paths {
		name := filepath.Base(path)
		data := read(t, name)
		f, err := parse(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := f.format(); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s comes out changed (%v):\n%s", name, err, got)
		}
	}
}

func TestForIdentifier(t *testing.T) {
	was := read(t, "kubelet.json")
	now, err := ForIdentifier(was, "k3s", "k3s")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(string(was), `"source": "kubelet"`, `"source": "k3s"`, 1)
	want = strings.Replace(want, `"source": "kubelet-log-rules"`, `"source": "kubelet-log-rules-k3s"`, 1)
	if string(now) != want {
		t.Errorf("got:\n%s", now)
	}
	if _, err := ForIdentifier(read(t, "kernel.json"), "k3s", "k3s"); err == nil {
		t.Error("no error for kmsg, which has no identifier")
	}
	if _, err := ForIdentifier([]byte(`{"plugin": "journald", "new": 1}`), "k3s", "k3s"); err == nil {
		t.Error("no error for a key that would be lost")
	}
}

func TestForJournal(t *testing.T) {
	was := read(t, "kubelet.json")
	now, err := ForJournal(was, "/host/run/log/journal")
	if want := strings.Replace(string(was), `"logPath": "/var/log/journal"`, `"logPath": "/host/run/log/journal"`, 1); err != nil || string(now) != want {
		t.Errorf("%v, got:\n%s", err, now)
	}
	was = read(t, "kernel.json")
	if now, err := ForJournal(was, "/host/run/log/journal"); err != nil || !bytes.Equal(now, was) {
		t.Errorf("%v, got:\n%s", err, now)
	}
}

// TestForFile holds lines as rsyslog writes them, and the message of the one that the file is for.
func TestForFile(t *testing.T) {
	tests := []struct{ file, style, line, message string }{
		{"kubelet.json", "traditional", "Nov 21 02:27:05 node-1 kubelet[123]: text", "text"},
		{"kubelet.json", "traditional", "Nov  1 02:27:05 node-1 kubelet[123]: two  blanks ", "two  blanks"},
		{"kubelet.json", "traditional", "Feb 29 23:59:59 10.0.0.7 kubelet: no process id", "no process id"},
		{"kubelet.json", "traditional", "Nov 21 02:27:05 node-1.example.com kubelet[1]: says kubelet[2]: twice", "says kubelet[2]: twice"},
		{"kubelet.json", "traditional", "Nov 21 02:27:05 node-1 kubelet[123]: ", ""},
		{"kubelet.json", "traditional", "Nov 21 02:27:05 node-1 kubelet-proxy[123]: text", ""},
		{"kubelet.json", "traditional", "Nov 21 02:27:05 node-1 my-kubelet[123]: text", ""},
		{"kubelet.json", "traditional", "Nov 21 02:27:05 node-1 sh[123]: kubelet[123]: text", ""},
		{"kubelet.json", "traditional", "Nov 21 02:27:05 kubelet systemd[1]: text", ""},
		{"kubelet.json", "rfc3339", "2026-11-21T02:27:05.123456+01:00 node-1 kubelet[123]: text", "text"},
		{"kubelet.json", "rfc3339", "2026-11-21T02:27:05+00:00 node-1 kubelet[123]: text", "text"},
		{"kubelet.json", "rfc3339", "2026-11-21T02:27:05.1Z node-1 kubelet[123]: text", "text"},
		{"kubelet.json", "rfc3339", "2026-11-21T02:27:05Z node-1 containerd[123]: text", ""},
		{"kernel.json", "traditional", "Nov 21 02:27:05 node-1 kernel: [  123.456789] text", "text"},
		{"kernel.json", "traditional", "Nov 21 02:27:05 node-1 kernel: [99123.456789][  T12] text", "text"},
		{"kernel.json", "traditional", "Nov 21 02:27:05 node-1 kernel: [1.000000][   C0] text", "text"},
		{"kernel.json", "traditional", "Nov 21 02:27:05 node-1 kernel: [drm] text", "[drm] text"},
		{"kernel.json", "rfc3339", "2026-11-21T02:27:05.123456+00:00 node-1 kernel: text", "text"},
		{"kernel.json", "rfc3339", "2026-11-21T02:27:05.123456+00:00 node-1 kubelet[1]: kernel: text", ""},
		{"systemd.json", "rfc3339", "2026-11-21T02:27:05.123456+00:00 node-1 systemd[1]: text", "text"},
		{"systemd.json", "rfc3339", "2026-11-21T02:27:05.123456+00:00 node-1 systemd-logind[7]: text", ""},
	}
	for _, test := range tests {
		message, at := translate(t, test.file, test.style, test.line)
		if message != test.message {
			t.Errorf("%s, %s: %q, want %q\n%s", test.file, test.style, message, test.message, test.line)
		}
		if at.Year() < 2026 || at.Minute() != 27 && at.Minute() != 59 {
			t.Errorf("%s: time %v\n%s", test.style, at, test.line)
		}
	}
	if _, err := ForFile([]byte(`{"plugin": "filelog"}`), Styles[0]); err == nil {
		t.Error("no error for a filelog, which has no identifier to select")
	}
}

// TestIdentifierIsNoExpression: the dot of microk8s' identifier is a dot.
func TestIdentifierIsNoExpression(t *testing.T) {
	f, err := ForFile([]byte(`{"plugin": "journald", "pluginConfig": {"source": "microk8s.daemon-kubelite"}, "conditions": [], "rules": []}`), Styles[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := `microk8s\\.daemon-kubelite(?:`; !strings.Contains(string(f), want) {
		t.Errorf("no %s in:\n%s", want, f)
	}
}

func translate(t *testing.T, name, style, line string) (message string, at time.Time) {
	t.Helper()
	i := slices.IndexFunc(Styles, func(s Style) bool { return s.Name == style })
	data, err := ForFile(read(t, name), Styles[i])
	if err != nil {
		t.Fatal(err)
	}
	m, err := npd.ParseLogMonitor(data)
	if err != nil {
		t.Fatal(err)
	}
	message, at, ok := m.Translate(line)
	if !ok {
		t.Errorf("%s, %s: not parsed, which NPD logs:\n%s", name, style, line)
	}
	return message, at
}
