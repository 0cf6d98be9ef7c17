package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Promtool returns the path of Prometheus' promtool, that of PATH or the one of Debian bookworm (2.42).
func Promtool(t testing.TB) string {
	t.Helper()
	return program(t, "promtool", "prometheus")
}

// Amtool returns the path of Alertmanager's amtool, that of PATH or the one of Debian bookworm (0.25).
func Amtool(t testing.TB) string {
	t.Helper()
	return program(t, "amtool", "prometheus-alertmanager")
}

// Alertmanager returns the path of Alertmanager, that of PATH or the one of Debian bookworm (0.25).
func Alertmanager(t testing.TB) string {
	t.Helper()
	return program(t, "prometheus-alertmanager", "prometheus-alertmanager")
}

// program returns the path of a program. What is taken out of a Debian package is kept for the next time.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	path := filepath.Join(CacheDir(t), name+"-bookworm-"+runtime.GOARCH)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	NeedCommand(t, "apt-get", "apt")
	NeedCommand(t, "dpkg-deb", "dpkg")
	debian, err := OpenDebian(t.TempDir(), "bookworm", runtime.GOARCH)
	if err != nil {
		t.Skipf("needs %s on PATH, or to download Debian's: %v", name, err)
	}
	deb, err := debian.Download(pkg)
	if err != nil {
		t.Skipf("needs %s on PATH, or to download Debian's: %v", name, err)
	}
	unpacked, err := os.CreateTemp(CacheDir(t), name)
	if err != nil {
		t.Fatal(err)
	}
	unpacked.Close()
	if err := Unpack(deb, map[string]string{"./usr/bin/" + name: unpacked.Name()}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(unpacked.Name(), 0o755), os.Rename(unpacked.Name(), path)); err != nil {
		t.Fatal(err)
	}
	return path
}
