package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// watchStuck looks for tasks that sleep on at the second look. With this --age every load average is high enough.
func watchStuck(t *testing.T, args ...string) *watcher {
	t.Helper()
	return watch(t, "stuck-tasks", append([]string{"--age=1s"}, args...)...)
}

// inPod makes the cgroup of a container. Make it before the disk that will let its processes go.
func inPod(t *testing.T) *lab.Cgroup {
	t.Helper()
	return lab.NewCgroup(t, podCgroup+"/"+containerID)
}

// A frozen file system, which whoever writes to it waits for, like that of a dead disk.
func TestStuckTasks(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	for name, thread := range map[string]bool{"process": false, "thread": true} {
		t.Run(name, func(t *testing.T) {
			group := inPod(t)
			disk := lab.NewDisk(t, t.TempDir(), "")
			check := watchStuck(t)
			check.wantOK(t)

			disk.Freeze(t)
			writer := &lab.Writer{Comm: "mysqld", File: filepath.Join(disk.Dir, "new"), Thread: thread}
			writer.Start(t, group)
			writer.WaitBlocked(t)
			check.wantOK(t) // not seen before
			check.wantProblem(t, fmt.Sprintf("a task is stuck in uninterruptible sleep: mysqld (pid %d) of pod %s", writer.Pid, podUID), " for ", " in mnt_want_write (percpu_rwsem_wait)")

			disk.Thaw(t)
			writer.Wait()
			check.wantOK(t)
		})
	}
}

// A full state directory, which is a frequent fault of its own: what sleeps at every look is never OK.
func TestStuckTasksCannotRemember(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	disk := lab.NewDisk(t, t.TempDir(), "")
	full := lab.FullDir(t)
	check := watchStuck(t, "--state-dir="+full)
	check.wantOK(t)
	disk.Freeze(t)
	writer := &lab.Writer{Comm: "mysqld", File: filepath.Join(disk.Dir, "new")}
	writer.Start(t)
	writer.WaitBlocked(t)
	for range 3 {
		check.wantUnkept(t, "1 task in uninterruptible sleep")
	}
	if err := os.Remove(filepath.Join(full, "filler")); err != nil {
		t.Fatal(err)
	}
	check.wantOK(t) // not seen before
	check.wantProblem(t, fmt.Sprintf("mysqld (pid %d)", writer.Pid))
	disk.Thaw(t)
	writer.Wait()
	check.wantOK(t)
}

// With the default --age and the machine's own load average, which is as high as need be after the kernel's next count.
// Only the two minutes are not waited for.
func TestStuckTasksRaiseLoad(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	disk := lab.NewDisk(t, t.TempDir(), "")
	disk.Freeze(t)
	var writers [40]lab.Writer
	for i := range writers {
		writers[i] = lab.Writer{Comm: "writer", File: filepath.Join(disk.Dir, fmt.Sprint(i))}
		writers[i].Start(t)
	}
	for i := range writers {
		writers[i].WaitBlocked(t)
	}
	state := t.TempDir()
	check := watch(t, "stuck-tasks", "--state-dir", state)
	lab.Eventually(t, 30*time.Second, "the load average tells of 40 tasks", func() bool {
		return strings.Contains(check.look(t).Message, "in uninterruptible sleep now")
	})
	sleptSince(t, state, 2*time.Minute)
	check.wantProblem(t, "40 tasks of 40 processes are stuck in uninterruptible sleep: writer (pid ", "for 2m")
}

var since = regexp.MustCompile(`"since":[0-9.]+`)

// sleptSince makes the sleeps older that the check remembers.
func sleptSince(t *testing.T, stateDir string, d time.Duration) {
	t.Helper()
	path := filepath.Join(stateDir, "stuck-tasks.state")
	state, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	older := since.ReplaceAllFunc(state, func(b []byte) []byte {
		seconds, err := strconv.ParseFloat(string(b[len(`"since":`):]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Appendf(nil, `"since":%f`, seconds-d.Seconds())
	})
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A disk that is so slow that one write takes for ever.
func TestStuckTasksThrottledDisk(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	group := inPod(t)
	disk := lab.NewDisk(t, t.TempDir(), "")
	check := watchStuck(t)
	release := group.Starve(t, disk)
	writer := &lab.Writer{Comm: "etcd", File: filepath.Join(disk.Dir, "new"), Size: 1 << 20}
	writer.Start(t, group)
	writer.WaitBlocked(t)
	check.wantOK(t)
	check.wantProblem(t, fmt.Sprintf("etcd (pid %d) of pod %s", writer.Pid, podUID))
	release()
	writer.Kill()
	check.wantOK(t)
}

// A shim that cannot go on has a container that cannot be deleted.
func TestStuckTasksShim(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	run, err := os.MkdirTemp("/run", "npd-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	bundle := filepath.Join(run, containerID)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	writeJSON(t, filepath.Join(bundle, "config.json"), map[string]any{"linux": map[string]any{"cgroupsPath": "/kubepods/burstable/pod" + podUID + "/" + containerID}})
	disk := lab.NewDisk(t, t.TempDir(), "")
	disk.Freeze(t)
	shim := &lab.Writer{Comm: "containerd-shim", Dir: bundle, File: filepath.Join(disk.Dir, "shim")}
	other := &lab.Writer{Comm: "logger", File: filepath.Join(disk.Dir, "log")}
	other.Start(t)
	other.WaitBlocked(t)
	check := watchStuck(t)
	check.wantOK(t)
	shim.Start(t)
	shim.WaitBlocked(t)
	check.wantProblem(t, "a task is stuck", "logger")
	check.wantProblem(t, "2 tasks of 2 processes are stuck", fmt.Sprintf("containerd-shim (pid %d)", shim.Pid), "container "+containerID[:12]+" of pod "+podUID+" cannot be deleted")
	disk.Thaw(t)
	shim.Wait()
	other.Wait()
	check.wantOK(t)
}

// umount(8) asks the file system first. When that is silent it sleeps interruptibly until it is killed, and cannot be then.
func TestStuckTasksUmount(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	fuse := lab.StartFuse(t)
	check := watchStuck(t)
	check.wantOK(t)
	fuse.Silence(t)
	pid := fuse.Call(t, lab.FuseStatfs, "umount")
	waitForState(t, pid, 'S')
	check.wantOK(t)
	check.wantOK(t)
	unix.Kill(pid, unix.SIGKILL)
	waitForState(t, pid, 'D')
	check.wantOK(t)
	check.wantProblem(t, fmt.Sprintf("umount (pid %d)", pid), " in fuse_statfs (request_wait_answer), on "+fuse.Dir+" (fuse.npd-lab)")
	fuse.Stop(t)
	check.wantOK(t)
}

// A task that holds its mmap lock: whoever reads its command line hangs too.
func TestStuckTasksHoldingMmapLock(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	fuse := lab.StartFuse(t)
	pid := fuse.HoldMmapLock(t, "java")
	check := watchStuck(t)
	check.look(t)
	result := check.look(t)
	if result.Status != npd.NonOK || !strings.Contains(strings.Join(strings.Fields(result.Message+result.Stderr), " "), fmt.Sprintf("java (pid %d)", pid)) {
		t.Errorf("want a Problem that names java (pid %d); stderr:\n%s", pid, result.Stderr)
	}
	if result.Took > 10*time.Second {
		t.Errorf("took %v", result.Took)
	}
	fuse.Stop(t)
	check.wantOK(t)
}

// waitForState waits until a process has slept in that state for a while.
func waitForState(t *testing.T, pid int, state byte) {
	t.Helper()
	since := time.Now()
	lab.Eventually(t, 20*time.Second, fmt.Sprintf("process %d is in state %c", pid, state), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || !strings.Contains(string(stat), fmt.Sprintf(") %c ", state)) {
			since = time.Now()
		}
		return time.Since(since) > 200*time.Millisecond
	})
}

// What is in state D for long as well, and as it should be.
func TestStuckTasksLookAlikes(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	t.Run("frozen", func(t *testing.T) {
		group := inPod(t)
		culprit := lab.StartCulprit(t)
		group.Add(t, culprit.Pid)
		culprit.Tasks(t, 5)
		group.Freeze(t)
		wantNeverStuck(t)
	})
	t.Run("in and out", func(t *testing.T) {
		group := inPod(t)
		disk := lab.NewDisk(t, t.TempDir(), "")
		group.Throttle(t, disk, 20)
		writer := &lab.Writer{Comm: "rsync", File: filepath.Join(disk.Dir, "new"), Size: 4096, Forever: true}
		writer.Start(t, group)
		writer.WaitBlocked(t)
		wantNeverStuck(t)
	})
	t.Run("vfork", func(t *testing.T) {
		lab.StartVfork(t)
		wantNeverStuck(t)
	})
	t.Run("CPU only", func(t *testing.T) {
		var stop atomic.Bool
		defer stop.Store(true)
		for range 3 {
			go func() {
				for !stop.Load() {
				}
			}()
		}
		wantNeverStuck(t)
	})
}

// wantNeverStuck looks five times in two seconds.
func wantNeverStuck(t *testing.T) {
	t.Helper()
	check := watchStuck(t)
	for range 5 {
		check.wantOK(t)
		time.Sleep(400 * time.Millisecond)
	}
}

// The kernel's own count of hung tasks, told without waiting for --age. What grew because of another task names no
// innocent one. In a guest the kernel counts; elsewhere a file stands for its count, which is the whole machine's.
func TestStuckTasksCountedByKernel(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	const count = "/proc/sys/kernel/hung_task_detect_count"
	if _, err := os.Stat(count); err != nil {
		t.Skipf("needs Linux 6.13: %v", err)
	}
	disk := lab.NewDisk(t, t.TempDir(), "")
	check := watchStuck(t)
	var grow func()
	if lab.InGuest() {
		lab.SetSysctl(t, "kernel.hung_task_timeout_secs", "1")
		grow = func() {
			before := parameter(t, "kernel.hung_task_detect_count")
			lab.Eventually(t, 20*time.Second, "the kernel counts a hung task", func() bool { return parameter(t, "kernel.hung_task_detect_count") != before })
		}
	} else {
		file, counted := filepath.Join(t.TempDir(), "count"), 0
		grow = func() {
			counted++
			if err := os.WriteFile(file, fmt.Appendln(nil, counted), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		grow()
		if err := unix.Mount(file, count, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(count, unix.MNT_DETACH) })
	}
	check.wantOK(t)
	disk.Freeze(t)
	writer := &lab.Writer{Comm: "mysqld", File: filepath.Join(disk.Dir, "new")}
	writer.Start(t)
	writer.WaitBlocked(t)
	grow()
	result := check.look(t)
	if result.Status != npd.NonOK || !strings.Contains(result.Message, "and is gone: kernel.hung_task_detect_count") || strings.Contains(result.Message, "mysqld") {
		t.Errorf("want a Problem that does not name what is seen for the first time; stderr:\n%s", result.Stderr)
	}
	grow()
	check.wantProblem(t, fmt.Sprintf("a task is stuck in uninterruptible sleep: mysqld (pid %d)", writer.Pid), "; kernel.hung_task_detect_count")
	disk.Thaw(t)
	writer.Wait()
	lab.Eventually(t, 20*time.Second, "the check recovers", func() bool { return check.look(t).Status == npd.OK })
}
