package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npd-plugins/test/lab"
)

// The culprit itself has some five threads, which count too.
const (
	taskLimit = 100
	nearLimit = 85
)

func TestTaskLimitOfService(t *testing.T) {
	lab.NeedRoot(t)
	service := lab.NewCgroup(t, "containerd.service")
	service.LimitTasks(t, taskLimit)
	culprit := lab.StartCulprit(t)
	service.Add(t, culprit.Pid)
	check := watch(t, "task-limit")
	check.wantOK(t)
	culprit.Tasks(t, nearLimit)
	check.wantProblem(t, "containerd.service", "pids.max 100")
	culprit.Stop()
	check.wantOK(t)
}

// A node whose pods together reach the limit that kubelet set for all of them: the pod that takes most is named.
func TestTaskLimitOfAllPods(t *testing.T) {
	lab.NeedRoot(t)
	kubepods := lab.NewCgroup(t, "kubepods")
	kubepods.LimitTasks(t, taskLimit)
	container := kubepods.Child(t, "burstable/pod"+podUID+"/"+containerID)
	culprit := lab.StartCulprit(t)
	container.Add(t, culprit.Pid)
	check := watch(t, "task-limit")
	culprit.Tasks(t, nearLimit)
	check.wantProblem(t, "kubepods", podUID)
	culprit.Stop()
	check.wantOK(t)
}

// A pod at its own limit is that pod's problem, not the node's.
func TestTaskLimitOfOnePod(t *testing.T) {
	lab.NeedRoot(t)
	container := lab.NewCgroup(t, podCgroup+"/"+containerID)
	container.LimitTasks(t, taskLimit)
	culprit := lab.StartCulprit(t)
	container.Add(t, culprit.Pid)
	culprit.Tasks(t, nearLimit)
	watch(t, "task-limit").wantOK(t)
}

// A node's kernel.pid_max nearly full, told by the files of a captured host, and by a host with room.
func TestTaskLimitOfCapturedNode(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/loadavg", "12.20 11.04 9.31 3/31744 32012")
	write("proc/sys/kernel/pid_max", "32768")
	write("proc/sys/kernel/threads-max", "192730")
	write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids")
	container := "sys/fs/cgroup/" + podCgroup + "/" + containerID
	for dir, tasks := range map[string]string{"sys/fs/cgroup/kubepods": "31400", filepath.Dir(container): "31200", container: "31199"} {
		write(dir+"/pids.current", tasks)
		write(dir+"/pids.max", "max")
	}
	write("var/log/pods/production_crawler-5d8f9c7b64-x2x7q_"+podUID+"/crawler/0.log", "")

	check := watch(t, "task-limit", "--host-root", root)
	check.wantProblem(t, "31744", "32768", "kernel.pid_max", "production/crawler-5d8f9c7b64-x2x7q")
	write("proc/loadavg", "0.20 1.04 2.31 3/744 32012")
	check.wantOK(t)
	write("proc/sys/kernel/threads-max", "800")
	check.wantProblem(t, "744", "800", "kernel.threads-max")
}

// Every PID of the kernel taken, until fork fails. Only an emulated machine may be treated so.
func TestTaskLimitOfKernel(t *testing.T) {
	if !lab.InGuest() {
		t.Skip("would exhaust this machine's PIDs: runs in an emulated guest (make kernels)")
	}
	const pidMax = "/proc/sys/kernel/pid_max"
	before, err := os.ReadFile(pidMax)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(pidMax, before, 0); err != nil {
			t.Error(err)
		}
	})
	check := watch(t, "task-limit")
	check.wantOK(t)
	culprit := startCulpritInPod(t)
	// Not much lower: the kernel keeps the 300 lowest PIDs for itself (RESERVED_PIDS in kernel/pid.c), so that fork
	// fails at some 1,800 tasks here.
	if err := os.WriteFile(pidMax, []byte("2048"), 0); err != nil {
		t.Fatal(err)
	}
	forked := culprit.ExhaustTasks(t, 40)
	loadavg, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("fork failed after %d; 40 of them ended, then /proc/loadavg: %s", forked, strings.TrimSpace(string(loadavg)))
	check.wantProblem(t, "kernel.pid_max 2048", podUID)
	culprit.Stop()
	check.wantOK(t)
}
