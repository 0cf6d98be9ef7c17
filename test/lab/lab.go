// Package lab holds what tests need to make real trouble on a machine and to take it back again: a containerd of
// their own with pods in it, a CRI server that is not one, cgroups, a process that leaks on request, the binaries of
// the suite, and the runc release that hangs.
//
// Everything stays inside a scratch directory, cgroups named after the test process, and processes the lab started;
// it is taken back when the test ends. What a machine lacks makes a test skip with what is missing and how to mend it.
package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Environment variables by which a test binary runs on a machine without a Go toolchain, such as an emulated guest.
const (
	// EnvBinaries names the directory with the built checks and the pause program.
	EnvBinaries = "NPD_PLUGINS_BIN"
	// EnvRuncRC93 names a runc 1.0.0-rc93 executable.
	EnvRuncRC93 = "NPD_TEST_RUNC_RC93"
)

// NeedRoot skips the test when it does not run as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run the tests with sudo")
	}
}

// NeedCommand skips the test when a command is not on PATH, and says which Debian package has it. It returns the
// command's path.
func NeedCommand(t testing.TB, command, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(command)
	if err != nil {
		t.Skipf("needs %s, which is not on PATH: apt-get install %s", command, debianPackage)
	}
	return path
}

// CacheDir returns the directory in which built and downloaded test tools are kept between runs, made when absent.
// It is a fresh temporary directory where a user has no cache directory.
func CacheDir(t testing.TB) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = t.TempDir()
	}
	dir := filepath.Join(base, "npd-plugins-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Eventually polls until condition holds, and ends the test with what was waited for when it does not within limit.
func Eventually(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", limit, what)
		}
	}
}
