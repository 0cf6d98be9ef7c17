package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Journald is a running systemd-journald in a mount namespace of its own with an empty /run. It keeps its journal in memory,
// and drops nothing.
type Journald struct {
	// Root is its root directory as others see it, the --host-root of checks.
	Root string
	pid  int
}

const journaldConfig = "[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nForwardToSyslog=no\nRateLimitIntervalSec=0\nRateLimitBurst=0\n"

// StartJournald starts it until the test ends.
func StartJournald(t testing.TB) *Journald {
	t.Helper()
	NeedRoot(t)
	for _, command := range []string{"unshare", "nsenter"} {
		NeedCommand(t, command, "util-linux")
	}
	NeedCommand(t, "systemd-cat", "systemd")
	const daemon = "/lib/systemd/systemd-journald"
	if !exists(daemon) {
		t.Skip("needs systemd-journald: apt-get install systemd")
	}
	script := `mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journald.conf.d && printf '%s' "$1" >/run/systemd/journald.conf.d/lab.conf && exec ` + daemon
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", journaldConfig)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		force := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		force.Stop()
	})
	j := &Journald{Root: fmt.Sprintf("/proc/%d/root", cmd.Process.Pid), pid: cmd.Process.Pid}
	Eventually(t, 10*time.Second, "journald listens", func() bool { return exists(filepath.Join(j.Root, "run/systemd/journal/stdout")) })
	return j
}

// Log has lines of an identifier logged, as from a service that writes them to its standard error. It may be called beside the test.
func (j *Journald) Log(t testing.TB, identifier string, lines ...string) {
	t.Helper()
	cat := j.cat(identifier)
	cat.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cat.CombinedOutput(); err != nil {
		t.Errorf("systemd-cat: %v\n%s", err, out)
	}
}

// RunIn runs a command that logs under an identifier, in a cgroup. How it ends does not matter.
func (j *Journald) RunIn(t testing.TB, group *Cgroup, identifier string, command ...string) {
	t.Helper()
	// It waits until it is in the cgroup, and is the process that is started here all the time.
	cmd := j.cat(identifier, append([]string{"sh", "-c", `read go; exec "$@"`, "sh"}, command...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group.Add(t, cmd.Process.Pid)
	_, _ = io.WriteString(in, "go\n")
	_ = cmd.Wait()
}

func (j *Journald) cat(identifier string, command ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(j.pid), "-m", "systemd-cat", "-t", identifier}, command...)...)
}

// Rotate has it begin a new file, and returns when it has.
func (j *Journald) Rotate(t testing.TB) {
	t.Helper()
	before := len(j.files())
	if err := unix.Kill(j.pid, unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 10*time.Second, "journald rotates", func() bool { return len(j.files()) > before })
}

func (j *Journald) files() []string {
	files, _ := filepath.Glob(filepath.Join(j.Root, "run/log/journal/*/*.journal"))
	return files
}
