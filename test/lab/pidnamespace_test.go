package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
)

// Of another program on the machine, with a dead FUSE mount, a task that hangs on it, and zombies, a test in a PID
// namespace sees nothing.
func TestPIDNamespaceIsApart(t *testing.T) {
	if os.Getenv(envPIDNamespace) == "" {
		NeedRoot(t)
		StartCulprit(t).Zombies(t, 60)
		fuse := StartFuse(t)
		fuse.Silence(t)
		pid := fuse.Call(t, FuseStatfs, "umount")
		waitBlocked(t, pid, "S")
		unix.Kill(pid, unix.SIGKILL)
		waitBlocked(t, pid, "D")
	}
	if !InPIDNamespace(t, "") {
		return
	}
	root, err := host.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	err = procfs.EachMount(root, func(m procfs.Mount) bool {
		if strings.HasPrefix(m.Type, "fuse.") {
			t.Errorf("a mount of another program: %s (%s)", m.Point, m.Type)
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
	if all, err := filepath.Glob("/proc/[0-9]*"); err != nil || len(all) != 2 {
		t.Errorf("process 1 and this one are all: %v, %v", all, err)
	}
}
