package hostnet

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/test/lab"
)

func TestDialUnix(t *testing.T) {
	dir := lab.ShortDir(t)
	hosttest.Tree{"run/link.sock": "-> /data/x.sock", "run/lost.sock": "-> /absent", "run/file.sock": ""}.Write(t, dir)
	lab.Listen(t, dir, "data/x.sock")
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
