package lab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/procfs"
)

// PID is the process that listens at the daemon's socket. It may not be asked while the daemon is down.
func (c *CRI) PID(t testing.TB) int {
	t.Helper()
	conn, err := net.Dial("unix", c.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		var peer *unix.Ucred
		if peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	})
	if err != nil || pid == 0 {
		t.Fatalf("who listens at %s: pid %d, %v", c.socket(), pid, err)
	}
	return pid
}

// Signal sends a signal to the daemon with that pid. A daemon that it stops goes on when the test ends.
func (c *CRI) Signal(t testing.TB, pid int, signal unix.Signal) {
	t.Helper()
	if err := unix.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
	if signal == unix.SIGSTOP {
		t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) })
	}
}

// Stop ends the daemon in order, as an administrator does.
func (c *Containerd) Stop(t testing.TB) {
	t.Helper()
	if err := c.daemon.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.daemon.Wait()
}

// StartAgain starts the daemon of that version again after it has ended, and does not wait for it. It returns its pid.
func (c *Containerd) StartAgain(t testing.TB, version string) int {
	t.Helper()
	daemon, _ := containerdCommands(t, version)
	daemon.Args = append(daemon.Args, "--config", filepath.Join(c.dir, "config.toml"))
	c.start(t, daemon)
	return daemon.Process.Pid
}

// WaitGone waits until a killed process has closed its sockets. They are open until the last thread has ended, which is
// when the process is gone, or a zombie without other threads.
func WaitGone(t testing.TB, pid int) {
	t.Helper()
	Eventually(t, 10*time.Second, fmt.Sprintf("process %d ends", pid), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return true
		}
		process, err := procfs.ParseStat(stat)
		return err == nil && process.State == 'Z' && process.Threads <= 1
	})
}
