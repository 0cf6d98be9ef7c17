package contract

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/internal/systemd/systemdtest"
)

// TestNoReader has a pipe for stdout whose reader is gone.
func TestNoReader(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		read.Close()
		cmd := exec.Command(c.path, "--host-root="+t.TempDir(), "--state-dir="+t.TempDir())
		cmd.Stdout = write
		if code := exitCode(t, cmd); code != int(npd.Unknown) {
			t.Errorf("exit code %d, want 2", code)
		}
		write.Close()
	})
}

// TestNoStdout has no file descriptor 1 at all, and none of the three. NPD always gives them.
func TestNoStdout(t *testing.T) {
	eachCheck(t, nil, func(t *testing.T, c check) {
		for _, closed := range []string{">&-", "<&- >&- 2>&-"} {
			root, state := t.TempDir(), t.TempDir()
			cmd := exec.Command("sh", "-c", `exec "$0" --host-root="$1" --state-dir="$2" `+closed, c.path, root, state)
			if code := exitCode(t, cmd); code < 0 || code > 2 {
				t.Errorf("%s: exit code %d, want 0, 1 or 2", closed, code)
			}
			entries, err := os.ReadDir(root)
			if err != nil || len(entries) > 0 {
				t.Errorf("%s: wrote into the host root: %v %v", closed, entries, err)
			}
		}
	})
}

func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	timer := time.AfterFunc(2*timeout, func() { cmd.Process.Kill() })
	defer timer.Stop()
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// TestTerminated ends a check while it hangs: in a socket that does not answer, or in a FIFO without a writer.
func TestTerminated(t *testing.T) {
	fifos := t.TempDir()
	for _, file := range nodeFiles(t, "v1") {
		path := filepath.Join(fifos, file)
		makeDir(t, filepath.Dir(path))
		if strings.HasSuffix(file, "boot_id") {
			write(t, path, bootID)
		} else if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	silent := healthyRoot(t, "v2")
	accept(t, silent, func(net.Conn) { time.Sleep(time.Minute) })
	systemdtest.Accept(t, silent, systemdtest.Private, func(net.Conn) { time.Sleep(time.Minute) })
	hangs := func(c check) bool { return readsNothing[c.name] == "" }
	eachCheck(t, hangs, func(t *testing.T, c check) {
		root := fifos
		if c.usesCRI() || c.usesSystemd() {
			root = silent
		}
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			var stdout strings.Builder
			args := c.on(root, "--state-dir="+t.TempDir(), "--timeout=30s")
			if c.readsMetrics() {
				args = append(args, silentKubelet(t)...)
			}
			cmd := exec.Command(c.path, args...)
			cmd.Stdout = &stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // until it hangs
			began := time.Now()
			cmd.Process.Signal(signal)
			timer := time.AfterFunc(2*timeout, func() { cmd.Process.Kill() })
			cmd.Wait()
			timer.Stop()
			if took := time.Since(began); took > time.Second {
				t.Errorf("%v: ended after %v", signal, took)
			}
			if code := cmd.ProcessState.ExitCode(); code != int(npd.Unknown) || !strings.Contains(stdout.String(), "signal") {
				t.Errorf("%v: %v with %q, want exit code 2 and a message of the signal", signal, cmd.ProcessState, stdout.String())
			}
		}
	})
}
