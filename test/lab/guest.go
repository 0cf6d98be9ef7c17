package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Environment variables of an emulated machine that nobody else uses (see test/guest).
const (
	// EnvGuest is the name of the only test it runs, or SharedGuest.
	EnvGuest    = "NPD_TEST_GUEST"
	SharedGuest = "shared"
	// EnvDisk names a directory on its disk. Its temporary directories are in memory.
	EnvDisk = "NPD_TEST_DISK"
	// EnvSystemd is the version of systemd that is on it, in a directory with its name.
	EnvSystemd = "NPD_TEST_SYSTEMD"
)

// InGuest is whether the machine is an emulated one, whose tables may really be exhausted.
func InGuest() bool { return os.Getenv(EnvGuest) != "" }

// NeedOwnGuest is for a test that leaves no machine behind on which another could run. It skips the test except in a
// guest that runs nothing else and has memory MiB, which test/guest boots for each test that asks.
func NeedOwnGuest(t testing.TB, memory int) {
	t.Helper()
	switch os.Getenv(EnvGuest) {
	case t.Name():
	case "":
		t.Skip("would bring this machine down: runs in an emulated guest (make kernels)")
	default:
		t.Skip(ownGuest, memory)
	}
}

const ownGuest = "needs a guest of its own, with this memory in MiB:"

// WantsOwnGuest reads from a skipped test's output whether NeedOwnGuest skipped it, and the memory in MiB it asked for.
func WantsOwnGuest(output string) (memory int, ok bool) {
	_, after, found := strings.Cut(output, ownGuest)
	if !found {
		return 0, false
	}
	_, err := fmt.Sscan(after, &memory)
	return memory, err == nil
}

// DiskDir returns a fresh directory on a disk, for files whose pages the kernel can drop and must read again. It is
// removed when the test ends.
func DiskDir(t testing.TB) string {
	t.Helper()
	disk := os.Getenv(EnvDisk)
	if disk == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(disk, "test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
