package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// EnvExt4 names an empty ext4 file system in a file, for machines without mkfs.ext4.
const EnvExt4 = "NPD_TEST_EXT4"

// Disk is an ext4 file system on a loop device, with a file of another file system behind it.
type Disk struct {
	// Dir is where it is mounted.
	Dir string
	// Device is the loop device's name, as in /proc/diskstats.
	Device string
	// Major and Minor are its number.
	Major, Minor uint32

	loop *os.File
}

// NewDisk makes a file system of 16 MiB in a file of dir and mounts it with these options (errors=remount-ro). The loop
// device reads and writes the file without the page cache where that can be, so that it is as slow as what is behind,
// which may be the Dir of another Disk. All is taken back when the test ends.
func NewDisk(t testing.TB, dir, options string) *Disk {
	t.Helper()
	return NewDiskOf(t, dir, 16, options)
}

// NewDiskOf is NewDisk with that many MiB, except where EnvExt4 gives the file system.
func NewDiskOf(t testing.TB, dir string, mib int, options string) *Disk {
	t.Helper()
	NeedRoot(t)
	file := filepath.Join(dir, "ext4")
	makeExt4(t, file, mib)
	d := &Disk{Dir: t.TempDir()}
	d.attach(t, file)
	if err := unix.Mount(d.loop.Name(), d.Dir, "ext4", 0, options); err != nil {
		t.Fatalf("mount %s: %v", d.loop.Name(), err)
	}
	t.Cleanup(func() {
		d.Thaw(t)
		if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return d
}

// makeExt4 makes a file of that size with holes for all that is zero, so that it fits into a file system of its own size.
func makeExt4(t testing.TB, file string, mib int) {
	t.Helper()
	image := os.Getenv(EnvExt4)
	if image == "" {
		mkfs := NeedCommand(t, "mkfs.ext4", "e2fsprogs")
		if out, err := exec.Command(mkfs, "-q", "-F", file, fmt.Sprintf("%dM", mib)).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v\n%s", err, out)
		}
		return
	}
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	copied, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	const block = 4096
	zeros := make([]byte, block)
	for at := 0; at < len(content); at += block {
		if part := content[at:min(at+block, len(content))]; !bytes.Equal(part, zeros) {
			if _, err := copied.WriteAt(part, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := copied.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
}

// attach makes a loop device of the file. The kernel takes it away when nobody has it open or mounted any more.
func (d *Disk) attach(t testing.TB, file string) {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs loop devices: %v (modprobe loop)", err)
	}
	defer control.Close()
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	for range 10 { // another may take the free one first
		var n int
		if n, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			t.Fatalf("find a free loop device: %v", err)
		}
		d.Device = fmt.Sprintf("loop%d", n)
		if d.loop, err = os.OpenFile("/dev/"+d.Device, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		if err = unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_SET_FD, int(backing.Fd())); err == nil {
			break
		}
		d.loop.Close()
	}
	if err != nil {
		t.Fatalf("attach a loop device: %v", err)
	}
	t.Cleanup(func() { d.loop.Close() })
	if err := d.setUp(); err != nil {
		t.Fatalf("set up /dev/%s: %v", d.Device, err)
	}
}

func (d *Disk) setUp() error {
	fd := int(d.loop.Fd())
	if err := unix.IoctlLoopSetStatus64(fd, &unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_DIRECT_IO, 1); err != nil && err != unix.EINVAL { // tmpfs has none
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	d.Major, d.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	return nil
}

// The ioctls of fsfreeze(8), from include/uapi/linux/fs.h.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// Freeze lets everybody who writes to the file system sleep uninterruptibly, until Thaw.
func (d *Disk) Freeze(t testing.TB) {
	t.Helper()
	if err := d.ioctl(fiFreeze); err != nil {
		t.Fatalf("freeze %s: %v", d.Dir, err)
	}
}

// Thaw undoes Freeze. Nothing happens to one that is not frozen.
func (d *Disk) Thaw(t testing.TB) {
	t.Helper()
	if err := d.ioctl(fiThaw); err != nil && err != unix.EINVAL {
		t.Errorf("thaw %s: %v", d.Dir, err)
	}
}

func (d *Disk) ioctl(request uint) error {
	dir, err := unix.Open(d.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.IoctlSetInt(dir, request, 0)
}
