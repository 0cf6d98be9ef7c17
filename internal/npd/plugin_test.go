package npd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script writes an executable shell script and returns its path.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunPlugin(t *testing.T) {
	for _, c := range []struct {
		name, body string
		max        int
		want       Status
		message    string // "~text" asks for a part only
		exit       int
	}{
		{"ok", "echo fine", 80, OK, "fine", 0},
		{"problem", "echo '  bad thing '; exit 1", 80, NonOK, "bad thing", 1},
		{"nagios critical is unknown", "echo critical; exit 2", 80, Unknown, "critical", 2},
		{"other exit code", "exit 127", 80, Unknown, "", 127},
		{"signal", "echo partly; kill -KILL $$", 80, Unknown, "partly", -1},
		{"cut in bytes", "printf 'a\\303\\244b'", 2, OK, "a\xc3", 0},
		{"cut to nothing", "echo text", 0, OK, "", 0},
		{"negative cut", "echo text", -1, OK, "", 0},
		{"4096 bytes, then trimmed", "printf '%4095s' x; echo; echo lost", 9999, OK, "x", 0},
		{"drains more than a pipe holds", "head -c 300000 /dev/zero | tr '\\0' y; echo; exit 1", 5, NonOK, "yyyyy", 1},
		{"stdin is empty", "read x || echo eof", 80, OK, "eof", 0},
		{"own process group", "set -- $(cat /proc/self/stat); [ $5 != $PPID ] && echo own", 80, OK, "own", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := RunPlugin(context.Background(), script(t, c.body), nil, 10*time.Second, c.max)
			if r.Status != c.want || r.Message != c.message || r.ExitCode != c.exit || r.Hung {
				t.Errorf("got %+v, want %v %q exit %d", r, c.want, c.message, c.exit)
			}
			if r.Took <= 0 {
				t.Errorf("took %v", r.Took)
			}
		})
	}
}

func TestRunPluginArgsAndStderr(t *testing.T) {
	r := RunPlugin(context.Background(), script(t, `echo "$#: $1|$2"; echo noise >&2`), []string{"a b", "%d"}, 10*time.Second, 80)
	if r.Message != "2: a b|%d" || r.Stderr != "noise\n" {
		t.Errorf("got %+v", r)
	}
	r = RunPlugin(context.Background(), script(t, `head -c 9000 /dev/zero | tr '\0' e >&2`), nil, 10*time.Second, 80)
	if len(r.Stderr) != 4096 {
		t.Errorf("stderr has %d bytes, want 4096", len(r.Stderr))
	}
}

func TestRunPluginCannotStart(t *testing.T) {
	for name, path := range map[string]string{
		"missing":        "/does/not/exist",
		"not executable": "/etc/passwd",
		"a directory":    t.TempDir(),
	} {
		r := RunPlugin(context.Background(), path, nil, time.Second, 200)
		if r.Status != Unknown || r.ExitCode != -1 || !strings.Contains(r.Message, "cannot be started") {
			t.Errorf("%s: got %+v", name, r)
		}
	}
	if r := RunPlugin(context.Background(), script(t, "exit 0"), nil, -time.Second, 80); r.Status != Unknown {
		t.Errorf("negative timeout: got %+v", r)
	}
}

func TestRunPluginTimeout(t *testing.T) {
	// The child keeps the pipe open; it must go with the group.
	r := RunPlugin(context.Background(), script(t, "echo before; sleep 60"), nil, 200*time.Millisecond, 200)
	if r.Status != Unknown || r.Hung || r.ExitCode != -1 {
		t.Errorf("got %+v", r)
	}
	if !strings.Contains(r.Message, "killed after 200ms") || !strings.Contains(r.Message, "before") {
		t.Errorf("message %q", r.Message)
	}
	if r.Took < 200*time.Millisecond || r.Took > 2*time.Second {
		t.Errorf("took %v", r.Took)
	}
}

// A plugin that leaves a child in its group behind waits for the timeout. Its problem counts, its health does not.
func TestRunPluginLeavesChildInGroup(t *testing.T) {
	r := RunPlugin(context.Background(), script(t, "sleep 60 & echo left; exit 1"), nil, 300*time.Millisecond, 200)
	if r.Status != NonOK || r.ExitCode != 1 || r.Hung || !strings.Contains(r.Message, "killed after") {
		t.Errorf("got %+v", r)
	}
	if r.Took < 300*time.Millisecond {
		t.Errorf("took %v: did not wait for the pipe", r.Took)
	}
	r = RunPlugin(context.Background(), script(t, "sleep 60 & echo left; exit 0"), nil, 300*time.Millisecond, 200)
	if r.Status != Unknown || r.ExitCode != 0 || r.Hung || !strings.Contains(r.Message, "killed after") {
		t.Errorf("got %+v", r)
	}
}

func TestRunPluginHeldPipe(t *testing.T) {
	// setsid takes the child out of the group that is killed.
	r := RunPlugin(context.Background(), script(t, "setsid sleep 6 & exit 0"), nil, 200*time.Millisecond, 200)
	if r.Status != Unknown || !r.Hung || !strings.Contains(r.Message, "hang for ever") {
		t.Errorf("got %+v", r)
	}
	if r.Took > 5*time.Second {
		t.Errorf("took %v", r.Took)
	}
}

func TestRunPluginCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	r := RunPlugin(ctx, script(t, "sleep 60"), nil, time.Minute, 200)
	if r.Status != Unknown || r.Took > 2*time.Second {
		t.Errorf("got %+v", r)
	}
}

func TestStatusString(t *testing.T) {
	if OK.String() != "OK" || NonOK.String() != "NonOK" || Unknown.String() != "Unknown" || Status(7).String() != "Status(7)" {
		t.Error("names")
	}
}
