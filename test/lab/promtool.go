package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Promtool returns the path of Prometheus' promtool, that of PATH or the one of Debian bookworm (2.42), which is kept for the next time.
func Promtool(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	path := filepath.Join(CacheDir(t), "promtool-2.42-"+runtime.GOARCH)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	NeedCommand(t, "apt-get", "apt")
	NeedCommand(t, "dpkg-deb", "dpkg")
	debian, err := OpenDebian(t.TempDir(), "bookworm", runtime.GOARCH)
	if err != nil {
		t.Skipf("needs promtool on PATH, or to download Debian's: %v", err)
	}
	deb, err := debian.Download("prometheus")
	if err != nil {
		t.Skipf("needs promtool on PATH, or to download Debian's: %v", err)
	}
	unpacked := path + ".new"
	if err := Unpack(deb, map[string]string{"./usr/bin/promtool": unpacked}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(unpacked, path); err != nil {
		t.Fatal(err)
	}
	return path
}
