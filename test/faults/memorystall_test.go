package faults

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
	"npd-plugins/internal/npd"
	"npd-plugins/internal/procfs"
	"npd-plugins/test/lab"
)

// A container that thrashes inside its own limit makes all tasks of the machine wait, where little else runs. But the
// node has memory: that is this container's problem, which the log names.
func TestMemoryStallInsideLimit(t *testing.T) {
	lab.NeedRoot(t)
	machine := machineRoot(t)
	if _, err := procfs.ReadPressure(machine, "/proc/pressure/memory"); err != nil {
		t.Skipf("needs a kernel with pressure stall information: %v", err)
	}
	container := lab.NewCgroup(t, podCgroup+"/"+containerID)
	container.LimitMemory(t, 48<<20)
	file := lab.ColdFile(t, lab.DiskDir(t), 24<<20)
	thrasher := lab.StartThrasher(t, file, 36<<20, 0)
	container.Add(t, thrasher.Pid)
	if lab.InGuest() {
		container.SlowReads(t, file, 1000) // the emulated processor is slower than its disk
	}
	thrasher.Begin(t)
	const full = 2 // percent; other work on the machine keeps it low
	lab.Eventually(t, 3*time.Minute, "all tasks wait for memory", func() bool {
		kind := "memory"
		if b, err := machine.ReadFile("/sys/kernel/mm/lru_gen/enabled"); err == nil && strings.TrimSpace(string(b)) != "0x0000" {
			kind = "io"
		}
		p, err := procfs.ReadPressure(machine, "/proc/pressure/"+kind)
		return err == nil && p.Full.Avg60 >= full+1
	})
	lab.Eventually(t, time.Minute, "the log names the pod", func() bool {
		result := watch(t, "memory-stall", "--full=2").look(t)
		if result.Status != npd.OK {
			t.Errorf("want OK")
		}
		return strings.Contains(result.Stderr, "thrashes inside its own limit: pod "+podUID)
	})
}

// The machine itself thrashes, until the kernel kills: the check must say so well before, also where the kernel has no
// pressure stall information. It lies on the disk, so that the kernel drops its pages too.
func TestMemoryStallOfNode(t *testing.T) {
	lab.NeedOwnGuest(t, 512)
	dir := lab.DiskDir(t)
	file := lab.ColdFile(t, dir, 160<<20)
	program, err := os.ReadFile(filepath.Join(binaries, "memory-stall"))
	if err != nil {
		t.Fatal(err)
	}
	check := filepath.Join(dir, "memory-stall")
	if err := os.WriteFile(check, program, 0o755); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]*thrashWatch{
		"with pressure":    {args: []string{"--state-dir", t.TempDir()}},
		"without pressure": {args: []string{"--state-dir", t.TempDir(), "--host-root", withoutPressure(t)}},
	}
	for kind, w := range kinds {
		if result := npd.RunPlugin(context.Background(), check, w.args, 30*time.Second, 256); result.Status != npd.OK {
			t.Errorf("%s: %s before anything was done: %s", kind, result.Status, result.Message)
		}
	}

	container := lab.NewCgroup(t, podCgroup+"/"+containerID)
	thrasher := lab.StartThrasher(t, file, 200<<20, 2<<20)
	container.Add(t, thrasher.Pid)
	thrasher.Begin(t)
	machine := machineRoot(t)
	lab.Eventually(t, time.Minute, "the page cache takes all memory", func() bool {
		b, err := machine.ReadFile("/proc/meminfo")
		free, ok := procfs.Counter(b, "MemFree:")
		return err == nil && ok && free < 20<<10
	})
	container.SlowReads(t, file, 1000)

	began := time.Now()
	killed := make(chan time.Duration, 1)
	go func() {
		if err := thrasher.Killed(4 * time.Minute); err != nil {
			t.Errorf("want the kernel to kill the process: %v", err)
		}
		killed <- time.Since(began)
	}()
	for end := time.Duration(0); end == 0; time.Sleep(time.Second) {
		for kind, w := range kinds {
			result := npd.RunPlugin(context.Background(), check, w.args, 30*time.Second, 256)
			if result.Status == npd.NonOK && w.first == 0 {
				w.first, w.said = time.Since(began), result.Message
			}
			if result.Status == npd.Unknown {
				t.Errorf("%s after %v: Unknown: %s", kind, time.Since(began).Round(time.Second), result.Message)
			}
		}
		select {
		case end = <-killed:
		default:
			continue
		}
		for kind, w := range kinds {
			t.Logf("%s: Problem after %v, killed after %v: %s", kind, w.first.Round(time.Second), end.Round(time.Second), w.said)
			if w.first == 0 || end-w.first < wellBefore {
				t.Errorf("%s: want the Problem %v before the kernel kills", kind, wellBefore)
			}
			if !strings.Contains(w.said, podUID) {
				t.Errorf("%s: the message does not name the pod", kind)
			}
		}
	}
	b, err := machine.ReadFile("/proc/vmstat")
	if kills, ok := procfs.Counter(b, "oom_kill"); err != nil || !ok || kills == 0 {
		t.Errorf("the kernel's OOM killer did not act: %d, %v", kills, err)
	}
	for kind, w := range kinds {
		if result := npd.RunPlugin(context.Background(), check, w.args, 30*time.Second, 256); result.Status != npd.OK {
			t.Errorf("%s: %s after the end: %s", kind, result.Status, result.Message)
		}
	}
}

// wellBefore is long for a process that takes 2 MiB a second of the 80 MiB that are left when it begins to thrash.
const wellBefore = 10 * time.Second

type thrashWatch struct {
	args  []string
	first time.Duration // Problem, after the page cache took all memory
	said  string
}

func machineRoot(t *testing.T) *host.Root {
	t.Helper()
	root, err := host.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// withoutPressure is a host root that shows this machine as if its kernel had no pressure stall information.
func withoutPressure(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	bindHost(t, root)
	pressure := filepath.Join(root, "proc/pressure")
	if _, err := os.Stat(pressure); err != nil {
		return root // it has none
	}
	if err := unix.Mount("tmpfs", pressure, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(pressure, unix.MNT_DETACH) })
	return root
}

// Both configurations on the real node-problem-detector. That this machine has next to no memory is told by a file; that
// its tasks wait for it is real.
func TestMemoryConfigsOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	lab.NeedDetector(t)
	machine := machineRoot(t)
	root := t.TempDir()
	bindHost(t, root)
	meminfo := filepath.Join(t.TempDir(), "meminfo")
	tell := func(available string) {
		t.Helper()
		content := "MemTotal: 16384000 kB\nMemAvailable: " + available + " kB\nActive(file): 5000 kB\n"
		if err := os.WriteFile(meminfo, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tell("9000000")
	told := filepath.Join(root, "proc/meminfo")
	if err := unix.Mount(meminfo, told, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(told, unix.MNT_DETACH) })
	d := startDetector(t, map[string][]string{"memory-stall": {"--full=1", "--host-root=" + root}, "dying-cgroups": nil})
	healthy := func() {
		t.Helper()
		d.wait(t, "MemoryThrashing", "NodeMemoryThrashing", false)
		d.wait(t, "DyingCgroups", "DeletedCgroupsNotFreed", false)
	}
	healthy()

	free := lab.NewCgroup(t, "kubepods/besteffort").LeaveDying(t, 3000)
	d.wait(t, "DyingCgroups", "DeletedCgroupsNotFreed", true)
	d.wantSaid(t, "DyingCgroups", "deleted cgroups are not freed")

	container := lab.NewCgroup(t, podCgroup+"/"+containerID)
	container.LimitMemory(t, 48<<20)
	file := lab.ColdFile(t, lab.DiskDir(t), 24<<20)
	thrasher := lab.StartThrasher(t, file, 36<<20, 0)
	container.Add(t, thrasher.Pid)
	thrasher.Begin(t)
	lab.Eventually(t, 3*time.Minute, "all tasks wait for memory", func() bool {
		p, err := procfs.ReadPressure(machine, "/proc/pressure/memory")
		return err == nil && p.Full.Avg60 >= 3
	})
	d.wait(t, "MemoryThrashing", "NodeMemoryThrashing", false) // the node has memory
	tell("400000")
	d.wait(t, "MemoryThrashing", "NodeMemoryThrashing", true)
	d.wantSaid(t, "MemoryThrashing", "all tasks wait for memory", podUID)

	tell("9000000")
	free()
	healthy()
}
