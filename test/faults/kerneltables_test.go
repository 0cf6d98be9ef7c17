package faults

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// parameter reads a kernel parameter ("fs.mount-max").
func parameter(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("needs a kernel with %s", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// nearly is 85 percent, and some for what rounding takes.
func nearly(limit int) int { return limit*85/100 + 2 }

// brim demands that a table was filled until the kernel refused more with that error.
func brim(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the table is not full: %v, want %v", err, want)
	}
}

// inOtherNetwork calls f on a thread in the mount namespace of this one and in a fresh network namespace, as that of a
// pod without hostNetwork.
func inOtherNetwork(t *testing.T, f func()) {
	t.Helper()
	mounts, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/mnt", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer mounts.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(mounts.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("enter another network namespace: %v", err)
	}
}

// The connections of the host's network namespace, looked at from another one that has none.
func TestKernelTablesConntrack(t *testing.T) {
	lab.NeedRoot(t)
	limit := parameter(t, "net.netfilter.nf_conntrack_max")
	lab.OwnNamespaces(t, unix.CLONE_NEWNET|unix.CLONE_NEWNS)
	root := lab.HostProc(t)
	inHost, inOther := watch(t, "kernel-tables", "--host-root", root), watch(t, "kernel-tables", "--host-root", root)
	inHost.wantOK(t)
	flush, err := lab.FillConntrack(t, nearly(limit))
	if err != nil {
		t.Fatal(err)
	}
	full := []string{"conntrack entries: ", fmt.Sprintf(" of %d, 85 percent; raise net.netfilter.nf_conntrack_max to %d", limit, 2*limit)}
	inHost.wantProblem(t, full...)
	inOtherNetwork(t, func() { inOther.wantProblem(t, full...) })
	elsewhere(func() { watch(t, "kernel-tables").wantOK(t) }) // to the machine it is as a pod's namespace
	flush()
	inHost.wantOK(t)
	inOtherNetwork(t, func() { inOther.wantOK(t) })
}

// A user namespace has limits of its own for inotify, beside those of the node.
func TestKernelTablesInotify(t *testing.T) {
	lab.NeedRoot(t)
	if !lab.InUserNamespace(t, binaries) {
		return
	}
	own := func(limit, value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/user/"+limit, []byte(value), 0); err != nil {
			t.Skipf("needs limits of user namespaces: %v", err)
		}
	}
	own("max_inotify_instances", "40")
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	release, err := lab.HoldInotify(t, 34)
	if err != nil {
		t.Fatal(err)
	}
	check.wantProblem(t, "inotify instances of uid 0: 34 of 40, 85 percent; raise user.max_inotify_instances to 80", fmt.Sprintf("(pid %d)", os.Getpid()))
	more, err := lab.HoldInotify(t, 100)
	brim(t, err, unix.EMFILE)
	check.wantProblem(t, "inotify instances of uid 0: 40 of 40, 100 percent")
	more()
	release()
	check.wantOK(t)

	own("max_inotify_watches", "50")
	release, err = lab.HoldWatches(t, 100)
	brim(t, err, unix.ENOSPC)
	check.wantProblem(t, "inotify watches of uid 0: 50 of 50, 100 percent; raise user.max_inotify_watches to 100")
	release()
	check.wantOK(t)
}

// The quota of keys that a container's user has, which nobody else of this machine uses.
func TestKernelTablesKeysOfUser(t *testing.T) {
	lab.NeedRoot(t)
	const uid = 61234
	limit := parameter(t, "kernel.keys.maxkeys")
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	release, err := lab.HoldKeys(t, uid, nearly(limit), 8)
	if err != nil {
		t.Fatal(err)
	}
	check.wantProblem(t, fmt.Sprintf("keys of uid %d: %d of %d, 8", uid, nearly(limit), limit), fmt.Sprintf("raise kernel.keys.maxkeys to %d", 2*limit))
	release()
	lab.Eventually(t, 30*time.Second, "the keys are collected", func() bool { return check.look(t).Status == npd.OK })

	release, err = lab.HoldKeys(t, uid, limit, 1000)
	brim(t, err, unix.EDQUOT)
	check.wantProblem(t, fmt.Sprintf("key bytes of uid %d: ", uid), "raise kernel.keys.maxbytes to ")
	release()
	lab.Eventually(t, 30*time.Second, "the keys are collected", func() bool { return check.look(t).Status == npd.OK })
}

// As many mounts as the kernel allows, in a mount namespace of their own.
func TestKernelTablesMounts(t *testing.T) {
	lab.NeedRoot(t)
	limit := parameter(t, "fs.mount-max")
	if lab.InGuest() {
		limit = 2000 // 100,000 take the emulated machine minutes
		lab.SetSysctl(t, "fs.mount-max", fmt.Sprint(limit))
	}
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
	check := watch(t, "kernel-tables", "--host-root", lab.HostProc(t))
	check.wantOK(t)
	release, err := lab.HoldMounts(t, nearly(limit))
	if err != nil {
		t.Fatal(err)
	}
	check.wantProblem(t, "mounts of PID 1: ", fmt.Sprintf(" of %d, 8", limit), fmt.Sprintf("; raise fs.mount-max to %d; most: below /tmp/", 2*limit))
	elsewhere(func() { watch(t, "kernel-tables").wantOK(t) })
	release()
	check.wantOK(t)
	_, err = lab.HoldMounts(t, limit)
	brim(t, err, unix.ENOSPC)
	check.wantProblem(t, "mounts of PID 1: ", fmt.Sprintf(" of %d, ", limit), fmt.Sprintf("; raise fs.mount-max to %d", 2*limit))
}

// Pseudo-terminals: those of the host may use what is reserved.
func TestKernelTablesTerminals(t *testing.T) {
	lab.NeedRoot(t)
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	limit := parameter(t, "kernel.pty.max") - parameter(t, "kernel.pty.reserve")
	release, err := lab.HoldTerminals(t, nearly(limit)-parameter(t, "kernel.pty.nr"))
	if err != nil {
		t.Fatal(err)
	}
	check.wantProblem(t, fmt.Sprintf("pseudo-terminals: %d of %d, 85 percent; raise kernel.pty.max to ", nearly(limit), limit))
	if lab.InGuest() {
		more, err := lab.HoldTerminals(t, limit)
		brim(t, err, unix.ENOSPC)
		check.wantProblem(t, "pseudo-terminals: ", fmt.Sprintf(" of %d, ", limit))
		more()
	}
	release()
	check.wantOK(t)
}

func TestKernelTablesAIO(t *testing.T) {
	lab.NeedRoot(t)
	limit := parameter(t, "fs.aio-max-nr")
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	release, err := lab.HoldRequests(t, nearly(limit))
	if err != nil {
		t.Fatal(err)
	}
	check.wantProblem(t, "AIO requests: ", fmt.Sprintf(" of %d, 85 percent; raise fs.aio-max-nr to %d", limit, 2*limit))
	if lab.InGuest() {
		rest, err := lab.HoldRequests(t, limit-parameter(t, "fs.aio-nr"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = lab.HoldRequests(t, 1)
		brim(t, err, unix.EAGAIN)
		check.wantProblem(t, fmt.Sprintf("AIO requests: %d of %d, 100 percent", limit, limit))
		rest()
	}
	release()
	check.wantOK(t)
}

// Permanent neighbours do not count against the limit: the table is full by the numbers, and nobody is harmed. Only a look
// that remembers none before cannot know that; by default a Problem takes two.
func TestKernelTablesPermanentNeighbours(t *testing.T) {
	lab.NeedRoot(t)
	limit := parameter(t, "net.ipv6.neigh.default.gc_thresh3")
	lab.OwnNamespaces(t, unix.CLONE_NEWNET)
	lab.LoopbackUp(t)
	check := watch(t, "kernel-tables")
	elsewhere(func() { check.wantOK(t) })
	if err := lab.AddNeighbours(t, 0, limit, true); err != nil {
		t.Fatal(err)
	}
	elsewhere(func() {
		check.wantOK(t)
		watch(t, "kernel-tables").wantProblem(t, "IPv6 neighbours: ", fmt.Sprintf(" of %d, 10", limit))
	})
	lab.RemoveNeighbours(t, 0, limit)
	elsewhere(func() { check.wantOK(t) })
}

// elsewhere calls f on another thread, in the namespaces in which the tests began.
func elsewhere(f func()) {
	done := make(chan bool)
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// needGuest skips a test that fills what the whole machine shares.
func needGuest(t *testing.T) {
	t.Helper()
	if !lab.InGuest() {
		t.Skip("would fill a table of this machine: runs in an emulated guest (make kernels)")
	}
}

// The tables of the host's own network namespace, full, looked at from another one through a mount of the host's /proc.
func TestKernelTablesOfHostNetwork(t *testing.T) {
	needGuest(t)
	lab.OwnNamespaces(t, unix.CLONE_NEWNS)
	lab.LoopbackUp(t)
	root := t.TempDir()
	if err := os.Mkdir(root+"/proc", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc", root+"/proc", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root+"/proc", unix.MNT_DETACH) })
	check := watch(t, "kernel-tables", "--host-root", root)
	want := func(words ...string) {
		t.Helper()
		inOtherNetwork(t, func() { check.wantProblem(t, words...) })
	}
	healed := func() {
		t.Helper()
		inOtherNetwork(t, func() { check.wantOK(t) })
	}
	healed()

	lab.SetSysctl(t, "net.netfilter.nf_conntrack_max", "1000")
	flush, err := lab.FillConntrack(t, 2000)
	brim(t, err, unix.ENOMEM)
	want("conntrack entries: 1000 of 1000, 100 percent; raise net.netfilter.nf_conntrack_max to 2000")
	flush()
	healed()

	lab.SetSysctl(t, "net.ipv6.neigh.default.gc_thresh2", "128")
	lab.SetSysctl(t, "net.ipv6.neigh.default.gc_thresh3", "256")
	brim(t, lab.AddNeighbours(t, 0, 300, false), unix.ENOBUFS)
	full := []string{"IPv6 neighbours: ", " of 256, ", "raise net.ipv6.neigh.default.gc_thresh3 to 512"}
	want(full...)
	brim(t, lab.AddNeighbours(t, 300, 301, false), unix.ENOBUFS)
	want(full...)
	lab.RemoveNeighbours(t, 0, 250)
	healed()
}

// No file can be opened by anybody but those with CAP_SYS_ADMIN.
func TestKernelTablesFilesFull(t *testing.T) {
	needGuest(t)
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	lab.SetSysctl(t, "fs.file-max", fmt.Sprint(parameter(t, "fs.file-nr")+500))
	release, err := lab.HoldFiles(t, 1000, false)
	brim(t, err, unix.ENFILE)
	check.wantProblem(t, "open files: ", "; raise fs.file-max to ", "most: ", fmt.Sprintf("(pid %d) ", os.Getpid()))
	beyond, err := lab.HoldFiles(t, 300, true)
	if err != nil {
		t.Fatalf("with CAP_SYS_ADMIN: %v", err)
	}
	check.wantProblem(t, "open files: ")
	beyond()
	release()
	check.wantOK(t)
}

// The inotify instances, and the watches, of the root of the machine.
func TestKernelTablesInotifyOfRoot(t *testing.T) {
	needGuest(t)
	limit := parameter(t, "fs.inotify.max_user_instances")
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	release, err := lab.HoldInotify(t, limit+1)
	brim(t, err, unix.EMFILE)
	check.wantProblem(t, fmt.Sprintf("inotify instances of uid 0: %d of %d, 100 percent; raise fs.inotify.max_user_instances to %d; most: ", limit, limit, 2*limit),
		fmt.Sprintf("(pid %d) ", os.Getpid()))
	release()
	check.wantOK(t)

	lab.SetSysctl(t, "fs.inotify.max_user_watches", "100")
	release, err = lab.HoldWatches(t, 200)
	brim(t, err, unix.ENOSPC)
	check.wantProblem(t, "inotify watches of uid 0: 100 of 100, 100 percent; raise fs.inotify.max_user_watches to 200")
	release()
	check.wantOK(t)
}

func TestKernelTablesKeysOfRoot(t *testing.T) {
	needGuest(t)
	check := watch(t, "kernel-tables")
	check.wantOK(t)
	lab.SetSysctl(t, "kernel.keys.root_maxkeys", "100")
	release, err := lab.HoldKeys(t, 0, 200, 8)
	brim(t, err, unix.EDQUOT)
	check.wantProblem(t, "keys of uid 0: 100 of 100, 100 percent; raise kernel.keys.root_maxkeys to 200")
	release()
	lab.Eventually(t, 30*time.Second, "the keys are collected", func() bool { return check.look(t).Status == npd.OK })
}

// The configuration on the real node-problem-detector, with a fault made and healed.
func TestKernelTablesOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	d := startDetector(t, map[string][]string{"kernel-tables": nil})
	d.wait(t, "KernelTableNearLimit", "KernelTableNearlyFull", false)
	limit := parameter(t, "fs.aio-max-nr")
	release, err := lab.HoldRequests(t, nearly(limit))
	if err != nil {
		t.Fatal(err)
	}
	d.wait(t, "KernelTableNearLimit", "KernelTableNearlyFull", true)
	d.wantSaid(t, "KernelTableNearLimit", "AIO requests: ", "raise fs.aio-max-nr to ")
	release()
	d.wait(t, "KernelTableNearLimit", "KernelTableNearlyFull", false)
}
