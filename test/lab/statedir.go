package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// StateDirs returns directories, by what is wrong with them, in which no check can keep anything. As root, those of
// real file systems are among them, which are mounted in a mount namespace of the test's own thread: use them on the
// test's own goroutine, and not in parallel.
func StateDirs(t testing.TB) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"below a file": file + "/state", "below what nobody can write": "/proc/npd-plugins"}
	if os.Geteuid() != 0 {
		t.Log("not tried without root: a full file system, one without inodes, one that is read-only")
		return dirs
	}
	OwnNamespaces(t, unix.CLONE_NEWNS)
	dirs["full"] = FullDir(t)
	dirs["without inodes"] = mountTmpfs(t, 0, "nr_inodes=1")
	dirs["read-only"] = mountTmpfs(t, unix.MS_RDONLY, "")
	return dirs
}

// FullDir mounts a file system on which files can still be made and nothing can be written. The calling thread must
// be in a mount namespace of its own.
func FullDir(t testing.TB) string {
	t.Helper()
	dir := mountTmpfs(t, 0, "size=64k")
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill %s: %v", dir, err)
	}
	return dir
}

func mountTmpfs(t testing.TB, flags uintptr, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Fatalf("mount a tmpfs with %q: %v", options, err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
