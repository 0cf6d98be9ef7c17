package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// notInGuest skips a test that needs more than a kernel.
func notInGuest(t *testing.T) {
	t.Helper()
	if lab.InGuest() {
		t.Skip("needs containerd, which a guest does not have: runs on the machine outside")
	}
}

// runAsInit is the whole user space of an emulated machine: it loads the kernel's modules, mounts what the kernel
// offers, runs the tests as a child, reaps as init does, and powers off. The kernel gives init the environment variables
// and the arguments of its command line.
func runAsInit() {
	if err := setUp(); err != nil {
		fmt.Println("FAIL: set up the guest:", err)
	} else if err := runTests(); err != nil {
		fmt.Println("FAIL: run the tests:", err)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

const disk = "/disk"

func setUp() error {
	if err := loadModules(); err != nil {
		return err
	}
	if err := mountAll(); err != nil {
		return err
	}
	// The programs that belong to systemd find their libraries where they expect them.
	for _, dir := range []string{"lib", "lib64", "usr"} {
		if err := os.Symlink(filepath.Join(disk, "systemd-"+os.Getenv(lab.EnvSystemd), dir), "/"+dir); err != nil {
			return err
		}
	}
	// TOMOYO, enabled in Debian's 5.10, looks up the path that execveat makes of a descriptor, as runc does.
	if err := os.Symlink("/proc/self/fd", "/dev/fd"); err != nil {
		return err
	}
	// What the tests start inherits this. A victim of theirs asks for another value itself.
	return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}

// loadModules loads what test/guest put into the initramfs, in the order of the names.
func loadModules() error {
	paths, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load module %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.FinitModule(int(file.Fd()), "", 0)
}

func mountAll() error {
	for _, mount := range []struct{ source, kind, dir string }{
		{"proc", "proc", "/proc"},
		{"sysfs", "sysfs", "/sys"},
		{"devtmpfs", "devtmpfs", "/dev"},
		{"devpts", "devpts", "/dev/pts"},
		{"tmpfs", "tmpfs", "/tmp"},
		{"tmpfs", "tmpfs", "/run"},
		{"cgroup2", "cgroup2", "/sys/fs/cgroup"},
		{"debugfs", "debugfs", "/sys/kernel/debug"},
		{"/dev/vda", "ext4", disk},
	} {
		if err := os.MkdirAll(mount.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(mount.source, mount.dir, mount.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", mount.dir, err)
		}
	}
	return nil
}

func runTests() error {
	tests := exec.Command("/init", append([]string{"-test.v"}, os.Args[1:]...)...)
	tests.Env = append(os.Environ(), lab.EnvDisk+"="+disk, lab.EnvExt4+"="+disk+"/ext4.img", "HOME=/tmp", "PATH=/bin")
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
			if status.ExitStatus() != 0 {
				printKernelLog()
			}
			return nil
		}
	}
}

// printKernelLog prints the kernel's last messages, which do not go to the console by themselves.
func printKernelLog() {
	buffer := make([]byte, 8192)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buffer)
	if err != nil {
		fmt.Println("read the kernel's log:", err)
		return
	}
	fmt.Printf("%s\n", buffer[:n])
}
