package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// Cgroup is one group, at the same path in every hierarchy of the machine (one with cgroup v2, several with v1), as
// a container runtime makes it.
type Cgroup struct {
	// Path is the group's path within its hierarchy, as /proc/PID/cgroup shows it.
	Path string
	dirs []string
	pids string
}

// NewCgroup makes the group at path below a CgroupParent. Processes that are left in it are killed when the test ends.
func NewCgroup(t testing.TB, path string) *Cgroup {
	t.Helper()
	return newCgroup(t, filepath.Join(CgroupParent(t), path))
}

// Child makes a group below this one.
func (c *Cgroup) Child(t testing.TB, path string) *Cgroup {
	t.Helper()
	return newCgroup(t, filepath.Join(c.Path, path))
}

func newCgroup(t testing.TB, path string) *Cgroup {
	t.Helper()
	c := &Cgroup{Path: path}
	for _, hierarchy := range hierarchies() {
		dir := filepath.Join(hierarchy, c.Path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatalf("make cgroup: %v", err)
		}
		if err := enableControllers(hierarchy, c.Path); err != nil {
			t.Fatalf("enable cgroup controllers: %v", err)
		}
		c.dirs = append(c.dirs, dir)
		if exists(filepath.Join(dir, "pids.max")) {
			c.pids = dir
		}
	}
	return c
}

var cgroupParents atomic.Int32

// CgroupParent returns the path of a fresh group at the top of the hierarchies, whose name no check knows. It and all
// below it go away when the test ends, processes included.
func CgroupParent(t testing.TB) string {
	t.Helper()
	parent := fmt.Sprintf("/npd-lab-%s%d-%d", os.Getenv(envPIDNamespace), os.Getpid(), cgroupParents.Add(1))
	t.Cleanup(func() {
		for _, hierarchy := range hierarchies() {
			removeCgroups(t, filepath.Join(hierarchy, parent))
		}
	})
	return parent
}

// LimitTasks sets pids.max of the group, or skips the test where the kernel has no pids controller.
func (c *Cgroup) LimitTasks(t testing.TB, limit int) {
	t.Helper()
	if c.pids == "" {
		t.Skipf("needs the pids cgroup controller: none under %s", cgroupRoot)
	}
	if err := os.WriteFile(filepath.Join(c.pids, "pids.max"), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Fatal(err)
	}
}

// Add moves a process with all its threads into the group.
func (c *Cgroup) Add(t testing.TB, pid int) {
	t.Helper()
	for _, dir := range c.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatalf("move process into cgroup: %v", err)
		}
	}
}

// hierarchies returns the mount points of the cgroup hierarchies: the root alone on a v2 machine, one directory for
// each controller (and a v2 one beside them) otherwise.
func hierarchies() []string {
	var fs unix.Statfs_t
	if unix.Statfs(cgroupRoot, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroupRoot}
	}
	files, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	var dirs []string
	for _, f := range files {
		dir, err := filepath.EvalSymlinks(filepath.Dir(f)) // "cpu" may be a link to "cpu,cpuacct"
		if err == nil && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// enableControllers makes the group at path ready for processes: a v2 group gets a controller's files only when its
// parent passes that controller on, a v1 cpuset takes no process before it has CPUs and memory nodes.
func enableControllers(hierarchy, path string) error {
	parent := hierarchy
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		dir := filepath.Join(parent, part)
		controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		v2 := err == nil
		for _, controller := range []string{"pids", "memory"} {
			if v2 && slices.Contains(strings.Fields(string(controllers)), controller) {
				if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
					return err
				}
			}
		}
		if !v2 && exists(filepath.Join(dir, "cpuset.cpus")) {
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(parent, file))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
					return err
				}
			}
		}
		parent = dir
	}
	return nil
}

// removeCgroups kills what is left in the group top and below it, and removes these groups.
func removeCgroups(t testing.TB, top string) {
	var dirs []string
	filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs) // children first
	for _, dir := range dirs {
		err := removeCgroup(dir)
		for deadline := time.Now().Add(5 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); err = removeCgroup(dir) {
			time.Sleep(10 * time.Millisecond) // killed processes leave a moment later
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove cgroup: %v", err)
		}
	}
}

func removeCgroup(dir string) error {
	procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for pid := range strings.FieldsSeq(string(procs)) {
		if n, err := strconv.Atoi(pid); err == nil && n > 0 && n != os.Getpid() {
			unix.Kill(n, unix.SIGKILL)
		}
	}
	return os.Remove(dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
