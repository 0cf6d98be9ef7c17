package lab

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// HostWithLoad mounts a host root with the machine's /proc, in which /proc/loadavg has this text. It goes when the test
// ends.
func HostWithLoad(t testing.TB, loadavg string) (root string) {
	t.Helper()
	NeedRoot(t)
	root = t.TempDir()
	proc, file := filepath.Join(root, "proc"), filepath.Join(root, "loadavg")
	bind(t, "/proc", proc)
	if err := unix.Mount("", proc, "", unix.MS_PRIVATE, ""); err != nil { // else it would be seen in /proc itself
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(loadavg), 0o644); err != nil {
		t.Fatal(err)
	}
	over := filepath.Join(proc, "loadavg")
	if err := unix.Mount(file, over, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s: %v", over, err)
	}
	t.Cleanup(func() { unix.Unmount(over, unix.MNT_DETACH) })
	return root
}
