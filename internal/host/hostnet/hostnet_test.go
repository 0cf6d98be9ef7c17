package hostnet

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestDialUnix(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "npd-") // leaves room for the name to listen at
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	hosttest.Tree{"data/": "", "run/link.sock": "-> /data/x.sock", "run/lost.sock": "-> /absent", "run/file.sock": ""}.Write(t, dir)
	listener, err := net.Listen("unix", filepath.Join(dir, "data/x.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	deep := "/" + strings.Repeat("deep/", 30)
	hosttest.Tree{deep + "link.sock": "-> /data/x.sock"}.Write(t, dir) // longer than an address can be
	h := hosttest.Open(t, dir)
	for _, path := range []string{"/data/x.sock", "/run/link.sock", deep + "link.sock"} {
		conn, err := DialUnix(t.Context(), h, path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		conn.Close()
	}
	for path, want := range map[string]error{"/run/lost.sock": os.ErrNotExist, "/absent": os.ErrNotExist, "/run/file.sock": syscall.ECONNREFUSED, "/data": syscall.ECONNREFUSED} {
		_, err := DialUnix(t.Context(), h, path)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), h.Path(path)) || strings.Contains(err.Error(), "/proc/self") {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}
