package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetSysctl writes a kernel parameter ("fs.mount-max") until the test ends. It ends the test where that is not a guest,
// for the parameter is the whole machine's.
func SetSysctl(t testing.TB, name, value string) {
	t.Helper()
	if !InGuest() {
		t.Fatalf("%s would be set for the whole machine", name)
	}
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0); err != nil {
			t.Error(err)
		}
	})
}

// HoldKeys adds keys of the given size in bytes to the quota of a user, until release is called. It returns the
// kernel's error when the quota is used up.
func HoldKeys(t testing.TB, uid, n, size int) (release func(), err error) {
	t.Helper()
	done, released := make(chan error), make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: nobody else shall have this thread's user and keyring
		done <- addKeys(uid, n, size)
		<-released
		// The keyring would go with the thread, but the process's first thread stays.
		unix.KeyctlInt(unix.KEYCTL_CLEAR, unix.KEY_SPEC_THREAD_KEYRING, 0, 0, 0)
	}()
	err = <-done
	return func() { close(released) }, err
}

func addKeys(uid, n, size int) error {
	// The quota is that of the user for the file system, which a thread may have to itself.
	if _, err := unix.SetfsuidRetUid(uid); err != nil {
		return err
	}
	payload := make([]byte, size)
	for i := range n {
		if _, err := unix.AddKey("user", fmt.Sprintf("npd-lab-%d", i), payload, unix.KEY_SPEC_THREAD_KEYRING); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
	}
	return nil
}

// HoldTerminals opens that many pseudo-terminals of a devpts file system of its own, until release is called. The test
// must be in a mount namespace of its own. It returns the kernel's error when there are no more.
func HoldTerminals(t testing.TB, n int) (release func(), err error) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("devpts", dir, "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		t.Fatalf("mount devpts: %v", err)
	}
	var open []int
	release = func() { closeAll(open) }
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for range n {
		fd, err := unix.Open(dir+"/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			return release, err
		}
		open = append(open, fd)
	}
	return release, nil
}

// HoldInotify makes that many inotify instances, until release is called. It returns the kernel's error when there are
// no more.
func HoldInotify(t testing.TB, n int) (release func(), err error) {
	t.Helper()
	var open []int
	release = func() { closeAll(open) }
	for range n {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return release, err
		}
		open = append(open, fd)
	}
	return release, nil
}

// HoldWatches makes one inotify instance with that many watches, on files of its own, until release is called. It
// returns the kernel's error when there are no more.
func HoldWatches(t testing.TB, n int) (release func(), err error) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range n {
		path := fmt.Sprintf("%s/%d", dir, i)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.InotifyAddWatch(fd, path, unix.IN_DELETE_SELF); err != nil {
			return func() { unix.Close(fd) }, err
		}
	}
	return func() { unix.Close(fd) }, nil
}

// HoldFiles opens that many files, until release is called, with the right to open more than the kernel's limit
// (CAP_SYS_ADMIN) or without. It returns the kernel's error when there are no more.
func HoldFiles(t testing.TB, n int, privileged bool) (release func(), err error) {
	t.Helper()
	done := make(chan error)
	var open []int
	go func() {
		runtime.LockOSThread() // never unlocked: the thread without the capability ends with the goroutine
		if !privileged {
			if err := dropCapabilities(unix.CAP_SYS_ADMIN); err != nil {
				done <- err
				return
			}
		}
		for range n {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				done <- err
				return
			}
			open = append(open, fd)
		}
		done <- nil
	}()
	err = <-done
	return func() { closeAll(open) }, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// HoldRequests reserves room for that many AIO requests, until release is called. It returns the kernel's error when
// there is no more.
func HoldRequests(t testing.TB, n int) (release func(), err error) {
	t.Helper()
	var aio uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(n), uintptr(unsafe.Pointer(&aio)), 0); errno != 0 {
		return func() {}, errno
	}
	return func() {
		if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, aio, 0, 0); errno != 0 {
			t.Errorf("io_destroy: %v", errno)
		}
	}, nil
}

// HoldMounts makes n mounts, or as many as the kernel allows, whose error it then returns. The test must be in a mount
// namespace of its own.
func HoldMounts(t testing.TB, n int) (release func(), err error) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	release = func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	mount := func(source, point string, flags uintptr) error {
		if err := os.MkdirAll(point, 0o700); err != nil {
			return err
		}
		return unix.Mount(source, point, "", unix.MS_BIND|flags, "")
	}
	// A block of mounts, doubled until it has 64, and as many copies of it as there is room for, then single ones.
	const doublings, block = 6, 1 << 6
	blockDir := dir + "/block"
	if err := mount(dir, blockDir, 0); err != nil {
		return release, err
	}
	for i := range doublings {
		if err := mount(blockDir, fmt.Sprintf("%s/%d", blockDir, i), unix.MS_REC); err != nil {
			return release, err
		}
	}
	flags, added := uintptr(unix.MS_REC), block
	for i, mounts := 0, 1+block; mounts < n; i, mounts = i+1, mounts+added {
		err := mount(blockDir, fmt.Sprintf("%s/copy/%d", dir, i), flags)
		if errors.Is(err, unix.ENOSPC) && flags != 0 {
			flags, added = 0, 1
		} else if err != nil {
			return release, err
		}
	}
	return release, nil
}
