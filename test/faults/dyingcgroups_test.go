package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// wantFreed waits until the kernel has freed what was left dying: it takes its time.
func wantFreed(t *testing.T, check *watcher) {
	t.Helper()
	lab.Eventually(t, 30*time.Second, "the kernel frees the cgroups", func() bool { return check.look(t).Status == npd.OK })
}

// The names of the cgroups that lose most are known with cgroup v2 only.
func wantParent(path string) []string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		return nil
	}
	return []string{path + " 3000"}
}

func TestDyingCgroups(t *testing.T) {
	lab.NeedRoot(t)
	jobs := lab.NewCgroup(t, "kubepods/besteffort")
	check := watch(t, "dying-cgroups")
	check.wantOK(t)
	free := jobs.LeaveDying(t, 3000)
	check.wantProblem(t, append(wantParent(jobs.Path), "deleted cgroups are not freed by the kernel")...)
	free()
	wantFreed(t, check)
}

// A busy node has some hundred, of jobs whose files are still in the page cache.
func TestDyingCgroupsOfBusyNode(t *testing.T) {
	lab.NeedRoot(t)
	jobs := lab.NewCgroup(t, "kubepods/besteffort")
	jobs.LeaveDying(t, 100)
	watch(t, "dying-cgroups").wantOK(t)
	// That they are there shows with a lower threshold.
	watch(t, "dying-cgroups", "--count=100").wantProblem(t, "deleted cgroups")
}

// Many live cgroups are not deleted ones.
func TestManyLiveCgroups(t *testing.T) {
	lab.NeedRoot(t)
	node := lab.NewCgroup(t, "kubepods")
	for i := range 1000 { // more than other tests leave behind
		node.Child(t, fmt.Sprintf("pod%d", i))
	}
	watch(t, "dying-cgroups", "--count=900").wantOK(t)
}

// Through mounts of the host's files, as in a pod, it sees what it sees outside. A container that has its own part of
// the cgroups only must not take that for all.
func TestDyingCgroupsFromContainer(t *testing.T) {
	lab.NeedRoot(t)
	jobs := lab.NewCgroup(t, "kubepods/besteffort")
	jobs.LeaveDying(t, 500)
	root := t.TempDir()
	bindHost(t, root)
	check := watch(t, "dying-cgroups", "--host-root="+root, "--count=400")
	check.wantProblem(t, "deleted cgroups")

	memory := "/sys/fs/cgroup"
	if _, err := os.Stat(memory + "/cgroup.controllers"); err != nil {
		memory += "/memory"
	}
	if err := unix.Mount(memory+jobs.Path, filepath.Join(root, memory), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(root, memory), unix.MNT_DETACH) })
	if result := watch(t, "dying-cgroups", "--host-root="+root).look(t); result.Status != npd.Unknown || !strings.Contains(result.Message, "mount the host's /sys/fs/cgroup") {
		t.Errorf("want Unknown; stderr:\n%s", result.Stderr)
	}
}

// bindHost mounts this machine's /proc and /sys/fs/cgroup below root, as a pod mounts those of its node.
func bindHost(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"/proc", "/sys/fs/cgroup"} {
		to := filepath.Join(root, dir)
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(dir, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
	}
}

// A node that is itself a container with a cgroup namespace: no mount shows the root cgroup, and none is advised.
func TestRootCgroupOfNestedNode(t *testing.T) {
	notInGuest(t)
	lab.NeedRoot(t)
	lab.NeedCommand(t, "unshare", "util-linux")
	group := lab.NewCgroup(t, "machine")
	const enter = `set -e
group=$1; shift
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then dir=/sys/fs/cgroup; type=cgroup2; else dir=/sys/fs/cgroup/memory; type="cgroup -o memory"; fi
echo $$ >$dir$group/cgroup.procs
exec unshare --cgroup --mount --pid --fork --mount-proc sh -ec '
  dir=$1; type=$2; shift 2
  mount -t tmpfs none /sys/fs/cgroup; mkdir -p $dir; mount -t $type none $dir
  exec "$@"' sh $dir "$type" "$@"`
	for _, name := range []string{"dying-cgroups", "eviction"} {
		check := watch(t, name)
		if name == "eviction" {
			check.args = append(check.args, kubeletFile(t, "evictionHard: {memory.available: 100Mi}\n"))
		}
		check.through = []string{"sh", "-c", enter, "sh", group.Path}
		result := check.look(t)
		if result.Status != npd.Unknown {
			t.Errorf("%s: want Unknown", result.Status)
		}
		wantWords(t, result.Message, "the node itself is a container (kind, LXC) with a cgroup namespace", "no mount helps", "docker: --cgroupns=host")
	}
}
