package faults

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// slowDisk is the disk of the runtime. Its file lies on another one, which is slow for the processes of the cgroup.
type slowDisk struct {
	*lab.Disk
	behind *lab.Disk
	group  *lab.Cgroup
}

func newSlowDisk(t *testing.T) slowDisk {
	t.Helper()
	group := inPod(t)
	behind := lab.NewDisk(t, lab.DiskDir(t), "")
	return slowDisk{lab.NewDisk(t, behind.Dir, ""), behind, group}
}

// write starts a process of the pod that writes to the disk all the time.
func (d slowDisk) write(t *testing.T) *lab.Writer {
	t.Helper()
	w := &lab.Writer{Comm: "etcd", File: filepath.Join(d.Dir, "new"), Size: 4096, Forever: true}
	w.Start(t, d.group)
	return w
}

// watchIO looks at the disk of dir. The share of a minute is as high as a few seconds make it.
func watchIO(t *testing.T, dir string) *watcher {
	t.Helper()
	return watch(t, "io-stall", "--percent=5", "--dirs="+filepath.Join(dir, "containerd"))
}

// wantStall looks every two seconds until the kernel's average of a minute is above the threshold, and demands a Problem
// then whose message holds all of the words.
func (w *watcher) wantStall(t *testing.T, words ...string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		time.Sleep(2 * time.Second)
		result := w.look(t)
		if result.Status == npd.OK && time.Now().Before(deadline) {
			continue
		}
		if result.Status != npd.NonOK {
			t.Fatalf("want Problem; stderr:\n%s", result.Stderr)
		}
		for _, word := range words {
			if !strings.Contains(result.Message, word) {
				t.Errorf("the message does not say %q", word)
			}
		}
		return
	}
}

// A disk that completes twelve requests a second, 80 ms each, under the directory of the runtime.
func TestIOStall(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	disk := newSlowDisk(t)
	check, elsewhere := watchIO(t, disk.Dir), watchIO(t, lab.NewDisk(t, lab.DiskDir(t), "").Dir)
	check.wantOK(t)
	elsewhere.wantOK(t)

	release := disk.group.Throttle(t, disk.behind, 12)
	writer := disk.write(t)
	check.wantStall(t, "disk "+disk.Device+" is too slow: ", " requests a second, ", "; mount "+disk.Dir+"; tasks wait for IO in ", "waits most: ", podUID)
	elsewhere.wantOK(t) // its first reading of the disks
	time.Sleep(2 * time.Second)
	elsewhere.wantOK(t)

	release()
	time.Sleep(time.Second)
	check.look(t) // half of the time since the last look it was slow
	time.Sleep(2 * time.Second)
	check.wantOK(t)
	writer.Kill()
}

// A disk that completes nothing any more.
func TestIOStallHung(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	disk := newSlowDisk(t)
	check := watchIO(t, disk.Dir)
	check.wantOK(t)
	writer := disk.write(t)
	release := disk.group.Starve(t, disk.behind)
	check.wantStall(t, "disk "+disk.Device+" hangs: none of ", " was completed in ", "; mount "+disk.Dir, podUID)
	release()
	writer.Kill()
	check.look(t) // what was completed since the last look had taken long
	time.Sleep(2 * time.Second)
	check.wantOK(t)
}

// The disk of a real containerd that starts pods all the time, as nodes do under churn. While a batch job keeps the disk
// busy with a long queue and containerd is served, all is well. Then containerd waits in that queue.
func TestIOStallOverloaded(t *testing.T) {
	notInGuest(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	node := lab.NewCgroup(t, "node")
	service, pod := node.Child(t, "system.slice/containerd.service"), node.Child(t, podCgroup+"/"+containerID)
	behind := lab.NewDiskOf(t, lab.DiskDir(t), 256, "")
	disk := lab.NewDiskOf(t, behind.Dir, 200, "")
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Root: filepath.Join(disk.Dir, "containerd")})
	service.Add(t, containerd.PID(t))
	check := watch(t, "io-stall", "--percent=20", "--host-root="+lab.HostWithCgroups(t, node), "--dirs="+filepath.Join(disk.Dir, "containerd"), "--log-level=info")
	check.wantOK(t)

	ctx, stop := context.WithCancel(t.Context())
	var churn sync.WaitGroup
	defer func() { stop(); churn.Wait() }()
	churn.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			containerd.RunPod(ctx, lab.PodConfig("web-7d9c5b8f6d", i, 0), "")
			t.Logf("a pod was started in %v", time.Since(began).Round(time.Millisecond))
			time.Sleep(time.Second)
		}
	})
	release := pod.Throttle(t, behind, 60)
	for i := range 16 {
		w := &lab.Writer{Comm: "import", File: filepath.Join(disk.Dir, fmt.Sprint("new", i)), Size: 4096, Forever: true}
		w.Start(t, pod)
	}
	for range 10 {
		time.Sleep(2 * time.Second)
		if result := check.look(t); result.Status != npd.OK {
			t.Errorf("containerd is served; want OK")
		}
	}
	releaseService := service.Throttle(t, behind, 4)
	check.wantStall(t, "disk "+disk.Device+" is overloaded: ", " requests a second, ", "; mount "+disk.Dir, ", containerd in ")
	release()
	releaseService()
	lab.Eventually(t, 90*time.Second, "containerd waits no more", func() bool { return check.look(t).Status == npd.OK })
}

// A pod that its own limit slows down waits as much, but the disk does not.
func TestIOStallThrottledPod(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	disk := newSlowDisk(t)
	check := watchIO(t, disk.Dir)
	release := disk.group.Throttle(t, disk.Disk, 5)
	disk.write(t)
	for range 5 {
		check.wantOK(t)
		time.Sleep(2 * time.Second)
	}
	release()
}

// The configurations of stuck-tasks and io-stall on the real node-problem-detector, with their faults made and healed.
func TestStallsOnDetector(t *testing.T) {
	notInGuest(t)
	lab.NeedDetector(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	slow, frozen := newSlowDisk(t), lab.NewDisk(t, lab.DiskDir(t), "")
	d := startDetector(t, map[string][]string{
		"stuck-tasks": {"--age=1s"},
		"io-stall":    {"--percent=5", "--dirs=" + slow.Dir},
	})
	healthy := func() {
		t.Helper()
		d.wait(t, "TasksStuck", "TaskInUninterruptibleSleep", false)
		d.wait(t, "IOStalled", "DiskTooSlow", false)
	}
	healthy()

	release := slow.group.Throttle(t, slow.behind, 5)
	writer := slow.write(t)
	d.wait(t, "IOStalled", "DiskTooSlow", true)
	d.wantSaid(t, "IOStalled", "disk "+slow.Device+" ", "mount "+slow.Dir)

	frozen.Freeze(t)
	stuck := &lab.Writer{Comm: "mysqld", File: filepath.Join(frozen.Dir, "new")}
	stuck.Start(t, slow.group)
	d.wait(t, "TasksStuck", "TaskInUninterruptibleSleep", true)
	d.wantSaid(t, "TasksStuck", fmt.Sprintf("mysqld (pid %d) of pod %s", stuck.Pid, podUID))

	frozen.Thaw(t)
	release()
	writer.Kill()
	healthy()
}
