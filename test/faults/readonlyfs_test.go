package faults

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// mountAgain unmounts the disk and mounts it again, which heals it unless it is really broken. The file system ends only when it
// is mounted nowhere: another mount namespace that was made meanwhile has it too.
func mountAgain(t *testing.T, d *lab.Disk, flags uintptr, options string) {
	t.Helper()
	if err := unix.Unmount(d.Dir, 0); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, time.Minute, "nothing has the file system mounted", func() bool {
		_, err := os.Stat("/sys/fs/ext4/" + d.Device)
		return err != nil
	})
	if err := unix.Mount("/dev/"+d.Device, d.Dir, "ext4", flags, options); err != nil {
		t.Fatal(err)
	}
}

// bind mounts a directory at another place.
func bind(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
}

func remountBind(t *testing.T, point string, flags uintptr) {
	t.Helper()
	if err := unix.Mount("", point, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		t.Fatal(err)
	}
}

// hitError makes the kernel's ext4 meet an error in that file system.
func hitError(t *testing.T, d *lab.Disk) {
	t.Helper()
	if err := os.WriteFile("/sys/fs/ext4/"+d.Device+"/trigger_fs_error", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

func writeTo(d *lab.Disk) error {
	return os.WriteFile(filepath.Join(d.Dir, "file"), []byte("x"), 0o600)
}

// waitUnwritable waits until the file system refuses writes: the kernel counts an error before it acts, or after.
func waitUnwritable(t *testing.T, d *lab.Disk) {
	t.Helper()
	lab.Eventually(t, 10*time.Second, "the file system refuses writes", func() bool { return writeTo(d) != nil })
}

// watchMounts needs PID 1 to see the mounts that the test makes.
func watchMounts(t *testing.T) *watcher {
	t.Helper()
	first := func(path string) string { // ID of a mount, which is another in another mount namespace
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		id, _, _ := strings.Cut(string(text), " ")
		return id
	}
	if first("/proc/self/mountinfo") != first("/proc/1/mountinfo") {
		t.Skip("needs the mount namespace of PID 1, whose mounts the check reads")
	}
	return watch(t, "readonly-fs")
}

func TestReadOnlyAfterError(t *testing.T) {
	d := lab.NewDisk(t, lab.DiskDir(t), "errors=remount-ro")
	volume := filepath.Join(t.TempDir(), "pods", podUID, "volumes/kubernetes.io~csi/pvc-1/mount")
	bind(t, d.Dir, volume)
	check := watchMounts(t)
	check.wantOK(t)
	hitError(t, d)
	waitUnwritable(t, d)
	check.wantProblem(t, "ext4 on /dev/"+d.Device+" turned read-only", "pod "+podUID, volume)
	if err := unix.Unmount(volume, 0); err != nil {
		t.Fatal(err)
	}
	check.wantProblem(t, "ext4 on /dev/"+d.Device+" turned read-only", d.Dir)

	time.Sleep(1100 * time.Millisecond) // the time of an error is kept in seconds
	mountAgain(t, d, 0, "errors=remount-ro")
	if err := writeTo(d); err != nil {
		t.Fatalf("not healed: %v", err)
	}
	check.wantOK(t) // though the error is still counted
}

// A disk whose writes fail, with an ext4 on it that goes on after errors: it cannot go on without its journal.
func TestReadOnlyWhenDiskFails(t *testing.T) {
	lab.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=12m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	d := lab.NewDisk(t, dir, "errors=continue")
	check := watchMounts(t)
	check.wantOK(t)

	filler := filepath.Join(dir, "filler")
	os.WriteFile(filler, make([]byte, 12<<20), 0o600) // until there is no room
	lab.Eventually(t, 30*time.Second, "the journal is aborted", func() bool {
		f, err := os.Create(filepath.Join(d.Dir, "file"))
		if err != nil {
			return true
		}
		defer f.Close()
		f.Write(make([]byte, 64<<10))
		f.Sync()
		return false
	})
	check.wantProblem(t, "ext4 on /dev/"+d.Device+" turned read-only", d.Dir)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	mountAgain(t, d, 0, "errors=continue")
	check.wantOK(t)
}

func TestReadOnlyLookAlikes(t *testing.T) {
	d := lab.NewDisk(t, lab.DiskDir(t), "errors=continue")
	check := watchMounts(t)
	other := t.TempDir()

	bind(t, d.Dir, other)
	remountBind(t, other, unix.MS_RDONLY)
	check.wantOK(t) // a read-only bind mount

	hitError(t, d)
	if err := writeTo(d); err != nil {
		t.Fatalf("errors=continue did not go on: %v", err)
	}
	check.wantOK(t)

	if err := unix.Unmount(other, 0); err != nil {
		t.Fatal(err)
	}
	mountAgain(t, d, unix.MS_RDONLY, "")
	check.wantOK(t)
	bind(t, d.Dir, other)
	remountBind(t, other, 0)
	check.wantOK(t) // mounted read-only, and read-write in another place: as read-only volumes are in pods

	if err := unix.Unmount(other, 0); err != nil {
		t.Fatal(err)
	}
	mountAgain(t, d, 0, "")
	if err := unix.Mount("", d.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	check.wantOK(t) // remounted by hand
}

// shutDownXFS is what an XFS does to itself after an error: XFS_IOC_GOINGDOWN of fs/xfs/xfs_fs.h without a last write of
// the log.
func shutDownXFS(t *testing.T, point string) {
	t.Helper()
	const goingDown, noLogFlush = 0x8004587d, 2
	dir, err := unix.Open(point, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if err := unix.IoctlSetPointerInt(dir, goingDown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}

func TestXFSShutDown(t *testing.T) {
	lab.NeedRoot(t)
	mkfs := lab.NeedCommand(t, "mkfs.xfs", "xfsprogs")
	file, point := filepath.Join(t.TempDir(), "xfs"), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 320<<20); err != nil { // no smaller one can be made
		t.Fatal(err)
	}
	run(mkfs, "-q", file)
	run("mount", "-o", "loop", file, point)
	t.Cleanup(func() { unix.Unmount(point, unix.MNT_DETACH) })
	check := watchMounts(t)
	check.wantOK(t)
	shutDownXFS(t, point)
	check.wantProblem(t, "xfs on /dev/loop", "has shut down", point)
	run("umount", point)
	check.wantOK(t)
	run("mount", "-o", "loop", file, point)
	check.wantOK(t)
}

func TestReadOnlyOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	const condition, reason = "FilesystemRemountedReadOnly", "FilesystemTurnedReadOnly"
	disk := lab.NewDisk(t, t.TempDir(), "errors=remount-ro")
	d := startDetector(t, map[string][]string{"readonly-fs": nil})
	d.wait(t, condition, reason, false)
	hitError(t, disk)
	d.wait(t, condition, reason, true)
	d.wantSaid(t, condition, disk.Device, disk.Dir)
	time.Sleep(1100 * time.Millisecond)
	mountAgain(t, disk, 0, "")
	d.wait(t, condition, reason, false)
}
