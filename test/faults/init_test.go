package faults

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// envGuest tells the tests that the machine is an emulated one that nobody else uses.
const envGuest = "NPD_FAULTS_GUEST"

func inGuest() bool { return os.Getenv(envGuest) != "" }

// notInGuest skips a test that needs more than a kernel.
func notInGuest(t *testing.T) {
	t.Helper()
	if inGuest() {
		t.Skip("needs containerd, which a guest does not have: runs on the machine outside")
	}
}

// runAsInit is the whole user space of an emulated machine: it mounts what the kernel offers, runs the tests as a child,
// reaps as init does, and powers off. The kernel gives init the environment variables of its command line.
func runAsInit() {
	if err := mountAll(); err != nil {
		fmt.Println("FAIL: set up the guest:", err)
	} else if err := runTests(); err != nil {
		fmt.Println("FAIL: run the tests:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func mountAll() error {
	for _, mount := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(mount.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(mount.kind, mount.dir, mount.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", mount.dir, err)
		}
	}
	// TOMOYO, enabled in Debian's 5.10, looks up the path that execveat makes of a descriptor, as runc does.
	return os.Symlink("/proc/self/fd", "/dev/fd")
}

func runTests() error {
	tests := exec.Command("/init", "-test.v")
	tests.Env = append(os.Environ(), envGuest+"=1", "HOME=/tmp", "PATH=/bin")
	tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
	if err := tests.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case pid == tests.Process.Pid:
			release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
			fmt.Printf("kernel %s: tests ended with exit code %d\n", strings.TrimSpace(string(release)), status.ExitStatus())
			return nil
		}
	}
}
