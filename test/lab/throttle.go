package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Throttle lets the processes of the group write this many times a second to a disk, at least twice, until the returned
// function is called or the test ends. What they wait for then is not counted in the statistics of the disk itself, only
// in those of a loop device above it.
func (c *Cgroup) Throttle(t testing.TB, d *Disk, writes int) (release func()) {
	t.Helper()
	return c.limitWrites(t, d, "iops", writes)
}

// Starve is Throttle to so few bytes a second that no write is completed.
func (c *Cgroup) Starve(t testing.TB, d *Disk) (release func()) {
	t.Helper()
	return c.limitWrites(t, d, "bps", 2) // the least that cgroup v2 takes
}

// limitWrites limits the "iops" or "bps".
func (c *Cgroup) limitWrites(t testing.TB, d *Disk, unit string, most int) (release func()) {
	t.Helper()
	device := fmt.Sprintf("%d:%d ", d.Major, d.Minor)
	path, limit, none := "", fmt.Sprint(most), "0"
	for _, dir := range c.dirs {
		if v1 := filepath.Join(dir, "blkio.throttle.write_"+unit+"_device"); exists(v1) {
			path = v1
		}
	}
	if path == "" {
		passOnIO(c.dirs[0])
		path, limit, none = filepath.Join(c.dirs[0], "io.max"), fmt.Sprintf("w%s=%d", unit, most), "w"+unit+"=max"
	}
	if !exists(path) {
		t.Skipf("needs the io cgroup controller: neither blkio.throttle nor io.max under %s", cgroupRoot)
	}
	if err := os.WriteFile(path, []byte(device+limit), 0); err != nil {
		t.Fatalf("throttle %s: %v", d.Device, err)
	}
	release = func() {
		if err := os.WriteFile(path, []byte(device+none), 0); err != nil && !errors.Is(err, unix.ENODEV) {
			t.Errorf("release %s: %v", d.Device, err)
		}
	}
	t.Cleanup(release)
	return release
}

// passOnIO makes a v2 group have the files of the io controller, which its parents must pass on.
func passOnIO(dir string) {
	parent := cgroupRoot
	for part := range strings.SplitSeq(strings.TrimPrefix(dir, cgroupRoot+"/"), "/") {
		os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+io"), 0) // not on v1, nor without the controller
		parent = filepath.Join(parent, part)
	}
}

// Freeze stops the processes of the group with the freezer, until thaw is called or the test ends.
func (c *Cgroup) Freeze(t testing.TB) (thaw func()) {
	t.Helper()
	path, frozen, thawed := filepath.Join(c.dirs[0], "cgroup.freeze"), "1", "0"
	for _, dir := range c.dirs {
		if v1 := filepath.Join(dir, "freezer.state"); exists(v1) {
			path, frozen, thawed = v1, "FROZEN", "THAWED"
		}
	}
	thaw = func() { os.WriteFile(path, []byte(thawed), 0) }
	t.Cleanup(thaw)
	if err := os.WriteFile(path, []byte(frozen), 0); err != nil {
		t.Fatalf("freeze the cgroup: %v", err)
	}
	return thaw
}

// LimitCPU gives the processes of the group a hundredth of a CPU, or skips the test where the kernel has no cpu controller.
func (c *Cgroup) LimitCPU(t testing.TB) {
	t.Helper()
	for _, dir := range c.dirs {
		for file, quota := range map[string]string{"cpu.cfs_quota_us": "1000", "cpu.max": "1000 100000"} {
			if path := filepath.Join(dir, file); exists(path) {
				if err := os.WriteFile(path, []byte(quota), 0); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Skipf("needs the cpu cgroup controller: none under %s", cgroupRoot)
}
