package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// HostWithCgroups mounts a host root with the machine's /proc and /sys, in which this group is the root of cgroup v2. It
// goes when the test ends.
func HostWithCgroups(t testing.TB, c *Cgroup) (root string) {
	t.Helper()
	NeedRoot(t)
	root = t.TempDir()
	bind(t, "/proc", filepath.Join(root, "proc"))
	sys := filepath.Join(root, "sys")
	bind(t, "/sys", sys)
	if err := unix.Mount("", sys, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil { // else it would be seen in /sys itself
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.dirs, func(dir string) bool { return exists(filepath.Join(dir, "cgroup.controllers")) })
	if i < 0 {
		t.Skip("needs cgroup v2, alone or beside v1")
	}
	over := filepath.Join(root, strings.TrimSuffix(c.dirs[i], c.Path))
	if err := unix.Mount(c.dirs[i], over, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s: %v", over, err)
	}
	t.Cleanup(func() { unix.Unmount(over, unix.MNT_DETACH) })
	return root
}
