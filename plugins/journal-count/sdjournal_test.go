//go:build sdjournal

package main

import (
	"context"
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

// journalOf is a host with these lines of kubelet, each so long before the look.
func journalOf(t *testing.T, file string, lines ...any) (root string, l *plugin.Look) {
	t.Helper()
	var export []byte
	for i := 0; i < len(lines); i += 2 {
		export = exported(export, lines[i].(time.Duration), "kubelet", []byte(lines[i+1].(string)))
	}
	root = t.TempDir()
	path := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	remote(t, path, export)
	return root, plugintest.Look(t, hosttest.Open(t, root))
}

func TestLibsystemd(t *testing.T) {
	const m = time.Minute
	_, l := journalOf(t, "var/log/journal/system.journal", 30*m, "broken z", 9*m, "broken a", 8*m, "broken b", 7*m, "mended", 6*m, "broken c", 5*m, "well")
	plugintest.Want(t, newCheck(t).look(t.Context(), l), plugin.Problem, "3 lines in 10m (limit 3), 11:51:00 to 11:54:00 UTC, last kubelet: broken c")
	plugintest.Want(t, newCheck(t, "--window=40m", "--count=4").look(t.Context(), l), plugin.Problem, "11:30:00 to 11:54:00")
	plugintest.Want(t, newCheck(t, "--max-entries=2").look(t.Context(), l), plugin.Unknown, "0 lines in 10m", "--max-entries")
	plugintest.Want(t, newCheck(t, "--window=4m").look(t.Context(), l), plugin.OK, "0 lines in 4m")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	plugintest.Want(t, newCheck(t).look(ctx, l), plugin.Unknown, "could not be read to its end in time")

	_, old := journalOf(t, "run/log/journal/system.journal", 120*m, "broken a")
	plugintest.Want(t, newCheck(t).look(t.Context(), old), plugin.Unknown, "journald does not write to", "where the last entry is of 2026-11-01 10:00:00 UTC")
	empty := plugintest.Look(t, hosttest.Tree{"var/log/journal/": ""}.Open(t))
	plugintest.Want(t, newCheck(t).look(t.Context(), empty), plugin.Unknown, "where is no entry: mount")
}

// What is in memory follows what is on disk.
func TestLibsystemdTwoDirectories(t *testing.T) {
	root, l := journalOf(t, "var/log/journal/system.journal", 9*time.Minute, "broken a", 8*time.Minute, "mended")
	path := filepath.Join(root, "run/log/journal/system.journal")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	remote(t, path, exported(nil, time.Minute, "other", []byte("broken b")))
	plugintest.Want(t, newCheck(t, "--count=2").look(t.Context(), l), plugin.OK, "1 line in 10m")
	plugintest.Want(t, newCheck(t, "--count=2", "--max-entries=1", "--window=9m").look(t.Context(), l), plugin.Unknown, "more than --max-entries")
	plugintest.Want(t, newCheck(t, "--identifier=other", "--count=2").look(t.Context(), l), plugin.Problem, "2 lines in 10m", "broken b")
}

// A host without libsystemd, here an empty file: the check says what to install.
func TestNoLibsystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount over libsystemd.so.0 in a mount namespace of its own")
	}
	root, _ := journalOf(t, "var/log/journal/system.journal", time.Minute, "broken")
	binary := filepath.Join(t.TempDir(), "journal-count")
	if out, err := exec.Command("go", "build", "-tags", "sdjournal", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const withoutLibrary = `for lib in $(ldconfig -p | sed -n 's/.*libsystemd[.]so.* => //p'); do mount --bind /dev/null $lib || exit 9; done; exec "$@"`
	out, err := exec.Command("unshare", "--mount", "sh", "-c", withoutLibrary, "sh", binary,
		"--host-root="+root, "--state-dir="+t.TempDir(), "--identifier=kubelet", "--pattern=broken").CombinedOutput()
	if said := fmt.Sprintf("%v: %s", err, out); !strings.HasPrefix(said, "exit status 2: ") || !strings.Contains(said, "install libsystemd.so.0") {
		t.Error(said)
	}
}
