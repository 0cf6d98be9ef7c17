package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const (
	uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	id  = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
	pod = "/kubepods/burstable/pod" + uid + "/" + id
)

// stat is a stat line as the kernel writes it.
func stat(tid int, comm string, state byte, parent, threads int) string {
	return fmt.Sprintf("%d (%s) %c %d 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 %d 0 900 0 0 18446744073709551615 0 0\n", tid, comm, state, parent, threads)
}

// status is the part of a status file that matters, as Linux 6.1 writes it.
func status(comm string, switches int) string {
	return fmt.Sprintf("Name:\t%s\nUmask:\t0022\nState:\tD (disk sleep)\nCoreDumping:\t0\nThreads:\t1\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t3\n", comm, switches)
}

// node is a node with some load, so many seconds after its boot.
func node(uptime int) hosttest.Tree {
	return hosttest.Tree{
		"proc/loadavg":                          "1.20 0.38 0.41 2/744 32012\n",
		"proc/uptime":                           fmt.Sprintf("%d.00 170000.00\n", uptime),
		"proc/1/stat":                           stat(1, "systemd", 'S', 0, 1),
		"proc/1/mountinfo":                      "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n",
		"proc/2/stat":                           stat(2, "kthreadd", 'S', 0, 1),
		"proc/50/stat":                          stat(50, "rcu_tasks_kthre", 'I', 2, 1),
		"proc/100/stat":                         stat(100, "mysqld", 'S', 1, 2),
		"proc/100/cgroup":                       "0::" + pod + "\n",
		"proc/100/task/100/stat":                "never read, as proc/100/stat has it\n",
		"proc/100/task/101/stat":                stat(101, "ib_io_wr-1", 'S', 1, 2),
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
}

// with returns the node with more files.
func with(tree hosttest.Tree, more ...hosttest.Tree) hosttest.Tree {
	for _, m := range more {
		maps.Copy(tree, m)
	}
	return tree
}

// asleep is a process in state D in a kernel function.
func asleep(pid int, comm, function string, switches int) hosttest.Tree {
	dir := fmt.Sprintf("proc/%d/", pid)
	task := fmt.Sprintf("%stask/%d/", dir, pid)
	return hosttest.Tree{
		dir + "stat": stat(pid, comm, 'D', 1, 1), dir + "cgroup": "0::/system.slice/" + comm + ".service\n",
		task + "status": status(comm, switches), task + "wchan": function, task + "cgroup": "0::/system.slice/" + comm + ".service\n",
	}
}

// looks are two looks, or more, a minute apart.
func looks(t *testing.T, c *check, trees ...hosttest.Tree) plugin.Verdict {
	t.Helper()
	l := plugintest.Look(t, trees[0].Open(t))
	v := c.look(context.Background(), l)
	for _, tree := range trees[1:] {
		plugintest.Want(t, v, plugin.OK)
		l = l.Next()
		l.Host = tree.Open(t)
		v = c.look(context.Background(), l)
	}
	return v
}

// twice looks 2 minutes apart, with the same files at both looks.
func twice(t *testing.T, files ...hosttest.Tree) plugin.Verdict {
	t.Helper()
	return looks(t, &check{age: 2 * time.Minute}, with(node(5000), files...), with(node(5120), files...))
}

func TestStuck(t *testing.T) {
	d := func(pid int) hosttest.Tree { return asleep(pid, "dd", "percpu_rwsem_wait", 7) }
	for name, tt := range map[string]struct {
		trees  []hosttest.Tree
		status plugin.Status
		words  string
	}{
		"none":                      {[]hosttest.Tree{node(5000), node(5060)}, plugin.OK, "no task is stuck: 0 tasks in uninterruptible sleep now, none of them for 2m0s"},
		"seen once":                 {[]hosttest.Tree{with(node(5000), d(700))}, plugin.OK, "1 task in uninterruptible sleep now"},
		"a minute":                  {[]hosttest.Tree{with(node(5000), d(700)), with(node(5060), d(700))}, plugin.OK, "1 task in uninterruptible sleep now"},
		"two minutes":               {[]hosttest.Tree{with(node(5000), d(700)), with(node(5060), d(700)), with(node(5120), d(700))}, plugin.Problem, "a task is stuck in uninterruptible sleep: dd (pid 700) for 2m0s in percpu_rwsem_wait"},
		"a second short":            {[]hosttest.Tree{with(node(5000), d(700)), with(node(5119), d(700))}, plugin.Problem, "for 1m59s in percpu_rwsem_wait"},
		"two seconds short":         {[]hosttest.Tree{with(node(5000), d(700)), with(node(5118), d(700))}, plugin.OK, "1 task in uninterruptible sleep now"},
		"went on":                   {[]hosttest.Tree{with(node(5000), d(700)), with(node(5060), asleep(700, "dd", "percpu_rwsem_wait", 8)), with(node(5120), asleep(700, "dd", "percpu_rwsem_wait", 8))}, plugin.OK, "1 task in uninterruptible sleep now"},
		"woken and asleep again":    {[]hosttest.Tree{with(node(5000), d(700)), node(5060), with(node(5120), d(700))}, plugin.OK, "1 task in uninterruptible sleep now"},
		"ended":                     {[]hosttest.Tree{with(node(5000), d(700)), node(5120)}, plugin.OK, "0 tasks in uninterruptible sleep now"},
		"another of the same pid":   {[]hosttest.Tree{with(node(5000), d(700)), with(node(5120), d(700), hosttest.Tree{"proc/700/stat": strings.Replace(stat(700, "dd", 'D', 1, 1), " 900 ", " 512000 ", 1)})}, plugin.OK, "1 task in uninterruptible sleep now"},
		"load of a stuck task only": {[]hosttest.Tree{with(node(5000), d(700)), with(node(5120), d(700), hosttest.Tree{"proc/loadavg": "0.84 0.40 0.20 2/744 1\n"})}, plugin.Problem, "dd (pid 700)"},
		"no load":                   {[]hosttest.Tree{with(node(5000), d(700)), with(node(5120), d(700), hosttest.Tree{"proc/loadavg": "0.82 0.40 0.20 2/744 1\n"})}, plugin.OK, "load average 0.82, and one would make it 0.83"},
		"many":                      {[]hosttest.Tree{with(node(5000), d(700), d(701)), with(node(5060), d(700), d(701), d(702)), with(node(5120), d(700), d(701), d(702))}, plugin.Problem, "2 tasks of 2 processes are stuck in uninterruptible sleep: dd (pid 70"},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.Want(t, looks(t, &check{age: 2 * time.Minute}, tt.trees...), tt.status, tt.words)
		})
	}
}

func TestThread(t *testing.T) {
	v := twice(t, hosttest.Tree{
		"proc/100/task/101/stat": stat(101, "ib_io_wr-1", 'D', 1, 2), "proc/100/task/101/status": status("ib_io_wr-1", 4711),
		"proc/100/task/101/wchan": "0", "proc/100/task/101/stack": "[<0>] jbd2_log_wait_commit+0xa0/0xf0\n[<0>] ext4_fsync_journal+0x20/0x30\n", "proc/100/task/101/cgroup": "0::" + pod + "\n",
	})
	plugintest.Want(t, v, plugin.Problem, "a task is stuck in uninterruptible sleep: mysqld (pid 100) of pod shop/cart-0 thread 101 for 2m0s in jbd2_log_wait_commit")
}

// The first thread of a process may have ended: the process is a zombie whose other threads hang.
func TestThreadOfZombie(t *testing.T) {
	v := twice(t, hosttest.Tree{
		"proc/100/stat":          stat(100, "mysqld", 'Z', 1, 2),
		"proc/100/task/101/stat": stat(101, "ib_io_wr-1", 'D', 1, 2), "proc/100/task/101/status": status("ib_io_wr-1", 4711),
	})
	plugintest.Want(t, v, plugin.Problem, "mysqld (pid 100) of pod shop/cart-0 thread 101 for 2m0s")
}

func TestLookAlikes(t *testing.T) {
	kernelThread := func(comm string) hosttest.Tree {
		return with(asleep(60, comm, "md_thread", 7), hosttest.Tree{"proc/60/stat": stat(60, comm, 'D', 2, 1), "proc/60/cgroup": "0::/\n", "proc/60/task/60/cgroup": "0::/\n"})
	}
	dumping := func(function string, yes int) hosttest.Tree {
		return with(asleep(700, "java", function, 7), hosttest.Tree{"proc/700/task/700/status": strings.Replace(status("java", 7), "CoreDumping:\t0", fmt.Sprintf("CoreDumping:\t%d", yes), 1)})
	}
	inFreezer := func(state string) hosttest.Tree {
		return hosttest.Tree{"proc/700/task/700/cgroup": "7:freezer:" + pod + "\n0::/\n", "sys/fs/cgroup/freezer" + pod + "/freezer.state": state + "\n"}
	}
	for name, tt := range map[string]struct {
		files  []hosttest.Tree
		status plugin.Status
		words  string
	}{
		"frozen, Linux 6.0 and before": {[]hosttest.Tree{asleep(700, "sleep", "__refrigerator", 7)}, plugin.OK, "none of them for 2m"},
		"frozen, wchan not readable":   {[]hosttest.Tree{asleep(700, "sleep", "0", 7), {"proc/700/task/700/stack": "[<0>] __refrigerator+0xac/0xd0\n[<0>] get_signal+0x5c0/0x840\n"}}, plugin.OK, ""},
		"frozen where it slept":        {[]hosttest.Tree{asleep(700, "sleep", "hrtimer_nanosleep", 7), inFreezer("FROZEN")}, plugin.OK, "1 task in uninterruptible sleep now"},
		"what the freezer waits for":   {[]hosttest.Tree{asleep(700, "dd", "percpu_rwsem_wait", 7), inFreezer("FREEZING")}, plugin.Problem, "dd (pid 700)"},
		"thawed":                       {[]hosttest.Tree{asleep(700, "dd", "percpu_rwsem_wait", 7), inFreezer("THAWED")}, plugin.Problem, "dd (pid 700)"},
		"vfork, 3.10":                  {[]hosttest.Tree{asleep(700, "make", "do_fork", 7)}, plugin.OK, ""},
		"vfork, 4.19":                  {[]hosttest.Tree{asleep(700, "make", "_do_fork", 7)}, plugin.OK, ""},
		"vfork, 6.18":                  {[]hosttest.Tree{asleep(700, "make", "kernel_clone", 7)}, plugin.OK, ""},
		"waits for a core dump":        {[]hosttest.Tree{dumping("do_exit", 1)}, plugin.OK, ""},
		"hangs while it dumps":         {[]hosttest.Tree{dumping("percpu_rwsem_wait", 1)}, plugin.Problem, "java (pid 700)"},
		"hangs while it ends":          {[]hosttest.Tree{dumping("do_exit", 0)}, plugin.Problem, "java (pid 700)"},
		"a kernel thread":              {[]hosttest.Tree{kernelThread("vchiq-slot/0")}, plugin.OK, "none of them for 2m0s but 1 kernel thread"},
		"a worker of the kernel":       {[]hosttest.Tree{kernelThread("kworker/u4:2+flush-8:0")}, plugin.Problem, "kworker/u4:2+f.. (pid 60)"},
		"of that name":                 {[]hosttest.Tree{asleep(700, "vchiq-slot/0", "md_thread", 7)}, plugin.Problem, "vchiq-slot/0 (pid 700)"},
		"no status":                    {[]hosttest.Tree{asleep(700, "dd", "x", 7), {"proc/700/task/700/status": "Name:\tdd\n"}}, plugin.OK, "0 tasks in uninterruptible sleep now"},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.Want(t, twice(t, tt.files...), tt.status, tt.words)
		})
	}
}

func TestMounts(t *testing.T) {
	const fuse = "90 27 0:45 / /mnt/s3\\040data rw - fuse.s3fs bucket rw\n"
	const other = "91 27 0:46 / /mnt/ssh rw - fuse.sshfs host: rw\n"
	const nfs = "92 27 0:47 / /var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~nfs/export rw - nfs4 10.0.0.1:/export rw,hard\n"
	const csi = "93 27 0:48 / /var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~csi/s3-data/mount rw - fuse.s3fs bucket rw\n"
	const subPath = "93 27 0:48 / /data/k/pods/" + uid + "/volume-subpaths/s3-data/web/0 rw - fuse.s3fs bucket rw\n"
	stacks := map[string]string{
		"FUSE": "[<0>] request_wait_answer+0x1a0/0x250\n[<0>] fuse_simple_request+0x1/0x2\n[<0>] fuse_statfs+0xd0/0x150\n",
		"NFS":  "[<0>] rpc_wait_bit_killable+0x1a/0xb0\n[<0>] __rpc_execute+0xf1/0x3f0\n[<0>] nfs4_proc_getattr+0x1/0x2\n",
		"ext4": "[<0>] jbd2_log_wait_commit+0xa0/0xf0\n",
	}
	for name, tt := range map[string]struct {
		stack, mounts string
		more          hosttest.Tree
		words, not    string
	}{
		"the only one":         {"FUSE", fuse + nfs, nil, "umount (pid 700) for 2m0s in fuse_statfs (request_wait_answer), on /mnt/s3 data (fuse.s3fs)", "nfs"},
		"one of two":           {"FUSE", fuse + other, nil, "one of 2 FUSE mounts: /mnt/s3 data (fuse.s3fs), /mnt/ssh (fuse.sshfs)", ""},
		"the one with waiters": {"FUSE", fuse + other, hosttest.Tree{"sys/fs/fuse/connections/45/waiting": "0\n", "sys/fs/fuse/connections/46/waiting": "3\n"}, ", on /mnt/ssh (fuse.sshfs)", "s3fs"},
		"nobody waits":         {"FUSE", fuse + other, hosttest.Tree{"sys/fs/fuse/connections/45/waiting": "0\n", "sys/fs/fuse/connections/46/waiting": "0\n"}, "one of 2 FUSE mounts", ""},
		"NFS":                  {"NFS", fuse + nfs, nil, ", on volume export of pod shop/cart-0 (nfs4)", "s3fs"},
		"a volume":             {"FUSE", csi, nil, ", on volume s3-data of pod shop/cart-0 (fuse.s3fs)", ""},
		"a subpath":            {"FUSE", subPath, nil, ", on volume s3-data of pod shop/cart-0 (fuse.s3fs)", ""},
		"gone":                 {"NFS", fuse, nil, ", on a mount of type NFS", "s3fs"},
		"of a disk":            {"ext4", fuse + nfs, nil, "umount (pid 700) for 2m0s in request_wait_answer", "mount /"},
		"no stack":             {"", fuse + nfs, nil, ", on /mnt/s3 data (fuse.s3fs)", ""},
	} {
		t.Run(name, func(t *testing.T) {
			wchan := "request_wait_answer"
			if tt.stack == "NFS" || tt.stack == "ext4" {
				wchan, _, _ = strings.Cut(strings.TrimPrefix(stacks[tt.stack], "[<0>] "), "+")
				tt.words = strings.Replace(tt.words, "request_wait_answer", wchan, 1)
			}
			v := twice(t, asleep(700, "umount", wchan, 7), hosttest.Tree{"proc/700/task/700/stack": stacks[tt.stack], "proc/1/mountinfo": tt.mounts}, tt.more)
			plugintest.Want(t, v, plugin.Problem, tt.words)
			if tt.not != "" && strings.Contains(v.Message, tt.not) {
				t.Errorf("names %q: %s", tt.not, v.Message)
			}
		})
	}
}

func TestShim(t *testing.T) {
	const bundle = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id
	spec := hosttest.Tree{bundle[1:] + "/config.json": `{"process":{"env":["TOKEN=secret"]},"linux":{"cgroupsPath":"kubepods-burstable-pod` + strings.ReplaceAll(uid, "-", "_") + `.slice:cri-containerd:` + id + `"}}`}
	cwd := func(dir string) hosttest.Tree { return hosttest.Tree{"proc/700/cwd": "-> " + dir} }
	rootfs := hosttest.Tree{"proc/1/mountinfo": "99 27 0:60 / " + bundle + "/rootfs rw - overlay overlay rw,lowerdir=/x\n"}
	for name, tt := range map[string]struct {
		comm  string
		files []hosttest.Tree
		words string
	}{
		"containerd":             {"containerd-shim", []hosttest.Tree{cwd(bundle), spec, rootfs}, "containerd-shim (pid 700) for 2m0s in d_wait: container 3f8a1c5e7d9b of pod shop/cart-0 cannot be deleted, on rootfs (overlay)"},
		"without its config":     {"containerd-shim", []hosttest.Tree{cwd(bundle)}, ": container 3f8a1c5e7d9b cannot be deleted"},
		"config of another":      {"containerd-shim", []hosttest.Tree{cwd(bundle), {bundle[1:] + "/config.json": "\x00"}}, ": container 3f8a1c5e7d9b cannot be deleted"},
		"not where it should be": {"containerd-shim", []hosttest.Tree{cwd("/mnt/dead/" + id)}, ": its container cannot be deleted"},
		"cwd not readable":       {"containerd-shim", nil, ": its container cannot be deleted"},
		"conmon":                 {"conmon", []hosttest.Tree{{"proc/700/task/700/cgroup": "0::/kubepods.slice/kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice/crio-conmon-" + id + ".scope\n"}}, "container 3f8a1c5e7d9b of pod shop/cart-0 cannot be deleted"},
	} {
		t.Run(name, func(t *testing.T) {
			files := append([]hosttest.Tree{asleep(700, tt.comm, "d_wait", 7), asleep(300, "older", "x", 7)}, tt.files...)
			v := twice(t, files...)
			plugintest.Want(t, v, plugin.Problem, "2 tasks of 2 processes are stuck", tt.words)
			if strings.Contains(fmt.Sprint(v), "secret") {
				t.Errorf("tells the environment: %v", v)
			}
		})
	}
}

func TestCountedByKernel(t *testing.T) {
	count := func(n int) hosttest.Tree {
		return hosttest.Tree{"proc/sys/kernel/hung_task_detect_count": fmt.Sprintf("%d\n", n), "proc/loadavg": "0.10 0.20 0.20 1/744 1\n"}
	}
	d := asleep(700, "dd", "percpu_rwsem_wait", 7)
	busy := hosttest.Tree{"proc/loadavg": "2.00 0.20 0.20 1/744 1\n"}
	frozen := asleep(701, "java", "__refrigerator", 7)
	thread := with(asleep(60, "jbd2/vda1-8", "jbd2_log_wait_commit", 7), hosttest.Tree{"proc/60/stat": stat(60, "jbd2/vda1-8", 'D', 2, 1)})
	for name, tt := range map[string]struct {
		trees  []hosttest.Tree
		status plugin.Status
		words  string
	}{
		"not more":         {[]hosttest.Tree{with(node(5000), count(3)), with(node(5060), count(3), d)}, plugin.OK, "load average 0.10"},
		"more, none there": {[]hosttest.Tree{with(node(5000), count(3)), with(node(5060), count(5))}, plugin.Problem, "a task was stuck in uninterruptible sleep and is gone: kernel.hung_task_detect_count 5, was 3; dmesg has it"},
		"more, an innocent one there": {[]hosttest.Tree{with(node(5000), count(3), busy), with(node(5060), count(4), d)}, plugin.Problem,
			"a task was stuck in uninterruptible sleep and is gone: kernel.hung_task_detect_count 4, was 3"},
		"more, one there that nobody looked for": {[]hosttest.Tree{with(node(5000), count(3)), with(node(5060), count(4), d)}, plugin.Problem,
			"a task was stuck in uninterruptible sleep; if it still is, the next look names it: kernel.hung_task_detect_count 4, was 3"},
		"more, one that was there": {[]hosttest.Tree{with(node(5000), count(3), d, busy), with(node(5060), count(4), d)}, plugin.Problem,
			"a task is stuck in uninterruptible sleep: dd (pid 700) for 1m0s in percpu_rwsem_wait; kernel.hung_task_detect_count 4, was 3"},
		"more, one that was there for a moment": {[]hosttest.Tree{with(node(5000), count(3), d, busy), with(node(5010), count(4), d)}, plugin.Problem, "is gone: kernel"},
		"more, one frozen":                      {[]hosttest.Tree{with(node(5000), count(3), frozen, busy), with(node(5060), count(4), frozen)}, plugin.Problem, "is gone: kernel"},
		"more, a kernel thread": {[]hosttest.Tree{with(node(5000), count(3), thread, busy), with(node(5060), count(4), thread)}, plugin.Problem,
			"a task is stuck in uninterruptible sleep: jbd2/vda1-8 (pid 60) for 1m0s in jbd2_log_wait_commit; kernel"},
		"first look": {[]hosttest.Tree{with(node(5000), count(3))}, plugin.OK, "load average 0.10"},
		"new kernel": {[]hosttest.Tree{with(node(5000), count(3)), with(node(5060), hosttest.Tree{"proc/loadavg": "0.10 0.20 0.20 1/744 1\n"})}, plugin.OK, "load average 0.10"},
		"broken":     {[]hosttest.Tree{with(node(5000), count(3)), with(node(5060), count(4), hosttest.Tree{"proc/sys/kernel/hung_task_detect_count": "many\n"})}, plugin.OK, "load average 0.10"},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.Want(t, looks(t, &check{age: 2 * time.Minute}, tt.trees...), tt.status, tt.words)
		})
	}
}

// The look after the one that saw the count grow names the task, if it sleeps on, and the condition stays.
func TestCountedByKernelSleepsOn(t *testing.T) {
	count := func(n int) hosttest.Tree {
		return hosttest.Tree{"proc/sys/kernel/hung_task_detect_count": fmt.Sprintf("%d\n", n), "proc/loadavg": "0.10 0.20 0.20 1/744 1\n"}
	}
	d, late := asleep(700, "dd", "percpu_rwsem_wait", 7), asleep(701, "rsync", "io_schedule", 7)
	c := &check{age: 5 * time.Minute}
	l := plugintest.Look(t, with(node(5000), count(3)).Open(t))
	plugintest.Want(t, c.look(context.Background(), l), plugin.OK)
	for _, look := range []struct {
		uptime int
		status plugin.Status
		words  string
	}{
		{5060, plugin.Problem, "if it still is, the next look names it"},
		{5120, plugin.Problem, "a task is stuck in uninterruptible sleep: dd (pid 700) for 1m0s in percpu_rwsem_wait"},
		{5240, plugin.Problem, "a task is stuck in uninterruptible sleep: dd (pid 700) for 3m0s in percpu_rwsem_wait"}, // and not the one that fell asleep later
		{5359, plugin.Problem, "a task is stuck in uninterruptible sleep: dd (pid 700) for 4m59s in percpu_rwsem_wait"},
	} {
		tree := with(node(look.uptime), count(4), d)
		if look.uptime > 5060 {
			with(tree, late)
		}
		l = l.Next()
		l.Host = tree.Open(t)
		plugintest.Want(t, c.look(context.Background(), l), look.status, look.words)
	}
}

// Without load nothing of a process is opened: each file of one is a FIFO here, which blocks whoever opens it.
func TestIdleReadsNoProcess(t *testing.T) {
	tree := node(5000)
	tree["proc/loadavg"] = "0.20 0.38 0.41 2/744 32012\n"
	dir := t.TempDir()
	for name := range tree {
		if strings.HasPrefix(name, "proc/1") || strings.HasPrefix(name, "proc/2") || strings.HasPrefix(name, "proc/50") {
			delete(tree, name)
		}
	}
	tree["proc/1/task/1/"] = ""
	tree.Write(t, dir)
	for _, file := range []string{"stat", "status", "comm", "cgroup", "mountinfo", "wchan", "task/1/stat", "task/1/status"} {
		if err := unix.Mkfifo(dir+"/proc/1/"+file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan plugin.Verdict, 1)
	go func() {
		done <- (&check{age: 2 * time.Minute}).look(context.Background(), plugintest.Look(t, hosttest.Open(t, dir)))
	}()
	select {
	case v := <-done:
		plugintest.Want(t, v, plugin.OK, "no task is stuck: load average 0.20, and one would make it 0.83")
	case <-time.After(10 * time.Second):
		t.Fatal("opens files of processes")
	}
}

// calcLoad is calc_load of kernel/sched/loadavg.c: since Linux 4.4 it rounds up while the load rises, before it rounds to
// the nearest.
func calcLoad(load, active uint64, since44 bool) uint64 {
	const fixed1, exp1 = 2048, 1884
	next := load*exp1 + active*(fixed1-exp1)
	switch {
	case !since44:
		next += fixed1 / 2
	case active >= load:
		next += fixed1 - 1
	}
	return next / fixed1
}

// shown is the number as /proc/loadavg has it (fs/proc/loadavg.c).
func shown(load uint64) float64 {
	load += 2048 / 200
	return math.Floor(float64(load)/2048*100) / 100
}

// Whatever the load was, when the kernel counts and how it rounds: after that time one task has made it as high.
func TestLeastLoad(t *testing.T) {
	for _, age := range []time.Duration{time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, time.Hour} {
		least := leastLoad(age)
		for _, hz := range []int{100, 250, 300, 1000} {
			period := time.Duration(5*hz+1) * time.Second / time.Duration(hz)
			for _, since44 := range []bool{true, false} {
				for before := uint64(0); before <= 4096; before += 128 {
					// The first count comes up to a period after the task fell asleep, and one CPU may miss it.
					load := before
					for at := 2 * period; at <= age; at += period {
						load = calcLoad(load, 2048, since44)
					}
					if shown(load) < least {
						t.Errorf("age %v, HZ %d, since 4.4 %v, load before %.2f: load average %.2f, want at least %.2f", age, hz, since44, float64(before)/2048, shown(load), least)
					}
				}
			}
		}
	}
	if least := leastLoad(2 * time.Minute); least < 0.82 || least >= 1 {
		t.Errorf("two minutes: %.3f", least)
	}
}

func TestUnknown(t *testing.T) {
	for name, tt := range map[string]struct {
		tree hosttest.Tree
		want string
	}{
		"no /proc":     {hosttest.Tree{}, "mount the host's /proc there"},
		"no uptime":    {with(node(1), hosttest.Tree{"proc/uptime": "soon"}), "/proc/uptime: the first field is no time"},
		"no load":      {with(node(1), hosttest.Tree{"proc/loadavg": "high"}), "/proc/loadavg: the first field is no load average"},
		"no processes": {hosttest.Tree{"proc/loadavg": "2.00 1 1 1/2 3", "proc/uptime": "5 5"}, "no process in "},
		"all broken":   {hosttest.Tree{"proc/loadavg": "2.00 1 1 1/2 3", "proc/uptime": "5 5", "proc/1/stat": "\x00"}, "1 stat files in "},
	} {
		t.Run(name, func(t *testing.T) {
			v := (&check{age: 2 * time.Minute}).look(context.Background(), plugintest.Look(t, tt.tree.Open(t)))
			plugintest.Want(t, v, plugin.Unknown, "cannot look for stuck tasks: ", tt.want)
		})
	}
}

func TestSuspicion(t *testing.T) {
	l := plugintest.Look(t, with(node(5000), asleep(700, "dd", "x", 7)).Open(t))
	c := &check{age: 2 * time.Minute}
	plugintest.WantSuspicion(t, c.look(context.Background(), l), "1 task in uninterruptible sleep")
	l.Host = node(5000).Open(t)
	plugintest.WantSuspicion(t, c.look(context.Background(), l), "")
}

// What could not be read in time is not OK; what was seen to be stuck is a Problem even so.
func TestOutOfTime(t *testing.T) {
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	c := &check{age: 2 * time.Minute}
	v := c.look(ctx, plugintest.Look(t, node(5000).Open(t)))
	plugintest.Want(t, v, plugin.Unknown, "not all were read in time; raise --timeout")
}

func TestDetailsAndMeasurements(t *testing.T) {
	var files []hosttest.Tree
	for pid := 700; pid < 714; pid++ {
		files = append(files, asleep(pid, "w%\x1b[31m", "x", pid))
	}
	files = append(files, with(asleep(60, "jbd2/vda1-8", "jbd2_log_wait_commit", 7), hosttest.Tree{"proc/60/stat": stat(60, "jbd2/vda1-8", 'D', 2, 1)}))
	v := twice(t, files...)
	plugintest.Want(t, v, plugin.Problem, "14 tasks of 14 processes are stuck in uninterruptible sleep: w??[31m (pid 7")
	if len(v.Details) != 11 || !strings.HasPrefix(v.Details[10], "jbd2/vda1-8 (pid 60) for 2m0s in jbd2_log_wait_commit") {
		t.Errorf("want ten tasks and the kernel thread: %q", v.Details)
	}
	if m := v.Measurements; m[0].Value != 14 || m[1].Value != 15 || m[2].Value != 1 {
		t.Errorf("%+v", m)
	}
}

// What four kernels show of a process in a pod that writes to a frozen file system. On 5.10 the wait channel is only on
// the stack.
func TestCaptured(t *testing.T) {
	for kernel, pid := range map[string]int{"5.10": 104, "6.1": 106, "6.12": 160, "6.18": 8816} {
		t.Run(kernel, func(t *testing.T) {
			l := plugintest.Look(t, hosttest.Open(t, "testdata/"+kernel))
			c := &check{age: time.Second}
			plugintest.Want(t, c.look(context.Background(), l), plugin.OK)
			v := c.look(context.Background(), l.Next())
			plugintest.Want(t, v, plugin.Problem, fmt.Sprintf("a task is stuck in uninterruptible sleep: mysqld (pid %d) of pod 3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13 for 0s in mnt_want_write (percpu_rwsem_wait)", pid))
		})
	}
}
