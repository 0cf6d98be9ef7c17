package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

// remote writes entries in the export format to a file of the journal with systemd's own program.
func remote(t *testing.T, path string, export []byte) {
	t.Helper()
	const program = "/usr/lib/systemd/systemd-journal-remote"
	if _, err := os.Stat(program); err != nil {
		t.Skip("needs systemd-journal-remote: apt-get install systemd-journal-remote")
	}
	cmd := exec.Command(program, "--output="+path, "-")
	cmd.Stdin = bytes.NewReader(export)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// exported is an entry in the export format; a message that is no text, and a long one, is binary there.
func exported(b []byte, ago time.Duration, identifier string, message []byte) []byte {
	at := plugintest.Now.Add(-ago).UnixMicro()
	b = fmt.Appendf(b, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=11111111222233334444555566667777\nPRIORITY=6\n_PID=%d\nSYSLOG_IDENTIFIER=%s\n",
		at, at-1_700_000_000_000_000, at%4096, identifier)
	if message != nil {
		b = binary.LittleEndian.AppendUint64(append(b, "MESSAGE\n"...), uint64(len(message)))
		b = append(append(b, message...), '\n')
	}
	return append(b, '\n')
}

// Files that systemd wrote: a long and rotated journal with all kinds of messages, and one of them damaged.
func TestFilesOfSystemd(t *testing.T) {
	dir := t.TempDir()
	journal := filepath.Join(dir, "var/log/journal", machineID)
	if err := os.MkdirAll(journal, 0o755); err != nil {
		t.Fatal(err)
	}
	var older, newer []byte
	for i := range 3000 {
		older = exported(older, 20*time.Minute-time.Duration(i)*200*time.Millisecond, "other", fmt.Appendf(nil, "unrelated line %d", i))
	}
	older = exported(older, 10*time.Minute+time.Microsecond, "kubelet", []byte("broken before the window"))
	older = exported(older, 10*time.Minute, "kubelet", []byte("broken at its edge"))
	newer = exported(newer, 9*time.Minute, "kubelet", nil)
	newer = exported(newer, 8*time.Minute, "kubelet", []byte("\x00\x01 broken \xff\xfe"))
	newer = exported(newer, 7*time.Minute, "k3s", []byte("broken "+strings.Repeat("long ", 1<<20/5)))
	newer = exported(newer, 6*time.Minute, "kubelet", []byte(strings.Repeat("long ", 1<<20/5)+"broken beyond what is looked at"))
	newer = exported(newer, 5*time.Minute, "other", []byte("broken elsewhere"))
	newer = exported(newer, 0, "kubelet", []byte("broken now"))
	remote(t, filepath.Join(journal, "system@1.journal"), older)
	remote(t, filepath.Join(journal, "system.journal"), newer)

	l := plugintest.Look(t, hosttest.Open(t, dir))
	plugintest.Want(t, newCheck(t, "--count=4").look(t.Context(), l), plugin.Problem, "4 lines in 10m", "11:50:00 to 12:00:00 UTC, last kubelet: broken now")

	damaged := filepath.Join(journal, "system.journal")
	content, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 4096; cut < len(content); cut += len(content) / 40 {
		hole := bytes.Clone(content)
		clear(hole[cut:min(cut+65536, len(hole))])
		for _, broken := range [][]byte{content[:cut], hole} {
			if err := os.WriteFile(damaged, broken, 0o644); err != nil {
				t.Fatal(err)
			}
			setTime(t, damaged, plugintest.Now)
			v := newCheck(t, "--count=5").look(t.Context(), l)
			if v.Status == plugin.Problem {
				t.Errorf("damaged at %d: %s", cut, v.Message)
			}
		}
	}
}
