package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// RuncRC93 returns the path of a static runc 1.0.0-rc93, the release (and Debian bullseye's) whose "runc init" writes
// its seccomp filter into a pipe nobody reads yet (runc pull request 2871). It is built once from the module proxy
// and kept in CacheDir. The test skips when that cannot be done.
func RuncRC93(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(EnvRuncRC93); path != "" {
		return path
	}
	path := filepath.Join(CacheDir(t), "runc-1.0.0-rc93")
	if exists(path) {
		return path
	}
	for command, debianPackage := range map[string]string{"go": "golang", "gcc": "gcc libc6-dev", "pkg-config": "pkg-config"} {
		NeedCommand(t, command, debianPackage)
	}
	if err := exec.Command("pkg-config", "--exists", "libseccomp").Run(); err != nil {
		t.Skip("needs libseccomp's headers and static library to build runc 1.0.0-rc93: apt-get install libseccomp-dev")
	}
	dir := t.TempDir()
	install := exec.Command("go", "install", "-tags", "seccomp netgo osusergo",
		"-ldflags", "-s -w -linkmode external -extldflags -static", "github.com/opencontainers/runc@v1.0.0-rc93")
	install.Dir = dir // outside any module
	install.Env = append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=-mod=mod", "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("needs runc 1.0.0-rc93, which could not be built from the Go module proxy: %v\n%s", err, out)
	}
	if err := copyWhole(filepath.Join(dir, "runc"), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// copyWhole copies an executable so that to never exists half written.
func copyWhole(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to))
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if _, err := temp.Write(content); err != nil {
		return err
	}
	if err := temp.Chmod(0o755); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), to)
}
