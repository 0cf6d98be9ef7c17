package host_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestOpenNow(t *testing.T) {
	dir := t.TempDir()
	hosttest.Tree{"file": "x", "dir/": "", "out": "-> /etc/passwd"}.Write(t, dir)
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := hosttest.Open(t, dir)
	for path, opens := range map[string]bool{"/file": true, "/dir": true, "/fifo": true, "/out": false, "/none": false} {
		f, err := h.OpenNow(path)
		if (err == nil) != opens {
			t.Errorf("%s: %v", path, err)
		}
		f.Close()
	}
}
