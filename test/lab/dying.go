package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// LeaveDying makes n memory cgroups in this group and deletes them, each with a page of a tmpfs charged to it, so that
// the kernel cannot free them. It returns what frees them, which also happens when the test ends. The test binary's
// TestMain must call RunCulprit.
func (c *Cgroup) LeaveDying(t testing.TB, n int) (free func()) {
	t.Helper()
	memory, err := c.dirWith("memory.stat")
	if err != nil {
		t.Skip(err)
	}
	if passOn := filepath.Join(memory, "cgroup.subtree_control"); exists(passOn) { // cgroup v2
		if err := os.WriteFile(passOn, []byte("+memory"), 0); err != nil {
			t.Fatalf("pass the memory controller on: %v", err)
		}
	}
	pages := t.TempDir()
	if err := unix.Mount("tmpfs", pages, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	free = func() {
		if err := unix.Unmount(pages, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: not mounted any more
			t.Errorf("unmount the tmpfs: %v", err)
		}
	}
	t.Cleanup(free)
	cmd := self("charge")
	cmd.Args = []string{cmd.Path, memory, filepath.Join(memory[:len(memory)-len(c.Path)], "cgroup.procs"), pages, strconv.Itoa(n)}
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("make dying cgroups: %v\n%s", err, out)
	}
	return free
}

// dirWith returns the group's directory in the hierarchy whose groups have that file.
func (c *Cgroup) dirWith(file string) (string, error) {
	for _, dir := range c.dirs {
		if exists(filepath.Join(dir, file)) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("needs a cgroup controller with %s: none under %s", file, cgroupRoot)
}

// chargeAndDelete takes this process through new cgroups, writes a page in each, and deletes them behind it. args are
// the directory for the cgroups, the cgroup.procs to return to, the directory for the pages, and their number.
func chargeAndDelete(args []string) error {
	groups, home, pages := args[0], args[1], args[2]
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	page := make([]byte, 4096)
	for i := range n {
		group := filepath.Join(groups, fmt.Sprintf("dying-%d", i))
		if err := os.Mkdir(group, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(pages, strconv.Itoa(i)), page, 0o600); err != nil {
			return err
		}
		if err := os.WriteFile(home, []byte("0"), 0); err != nil {
			return err
		}
		err := os.Remove(group)
		for tries := 0; errors.Is(err, unix.EBUSY) && tries < 1000; tries++ { // while the process is on its way out
			time.Sleep(time.Millisecond)
			err = os.Remove(group)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
