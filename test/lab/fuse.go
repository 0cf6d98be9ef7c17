package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Fuse is a file system with one file, whose server stops answering on request: what a dead NFS server, a hung storage
// daemon or a broken disk does to a node, taken back at any time. The server is a process of its own, because one that
// hangs on its own file system cannot be helped.
type Fuse struct {
	// Dir is where it is mounted.
	Dir string
	// File is its one file, of 1 MiB.
	File string
	// Pid is the server's process.
	Pid int

	server  *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
	callers []*exec.Cmd
}

// The answers of a healthy server to statfs(2).
const (
	FuseBlocks, FuseBlocksFree, FuseBlocksAvailable = 1000, 400, 300 // of FuseBlockSize bytes
	FuseBlockSize                                   = 4096
	FuseFiles, FuseFilesFree                        = 100, 50
)

// FuseCall is a system call on the file system that blocks once the server does not answer it.
type FuseCall string

const (
	// FuseStatfs blocks when the server is silent: in state S until a signal comes, which Go's runtime sends too, then in
	// state D, not to be killed. This is also where umount(8) hangs, which looks at the mount before it calls umount(2).
	FuseStatfs FuseCall = "statfs"
	// FuseRead blocks in state D when the server holds reads, and keeps pages of the file locked, even when it is
	// killed, which it allows.
	FuseRead FuseCall = "read"
	// FuseOpen blocks in state D, not to be killed, when pages of the file are locked.
	FuseOpen FuseCall = "open"
	// FuseMap is the same in mmap(2): the process holds its mmap lock for writing, so whoever reads its cmdline,
	// environ or smaps hangs too.
	FuseMap FuseCall = "mmap"
)

// StartFuse mounts a file system whose server answers everything. Server, callers and mount are gone when the test ends.
// The test binary's TestMain must call RunCulprit.
func StartFuse(t testing.TB) *Fuse {
	t.Helper()
	NeedRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("needs FUSE: %v (modprobe fuse)", err)
	}
	f := &Fuse{Dir: t.TempDir(), server: self("fuse")}
	f.File = filepath.Join(f.Dir, "file")
	f.server.Args = []string{f.server.Path, f.Dir}
	var err error
	if f.orders, err = f.server.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	answers, err := f.server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	f.answers = bufio.NewReader(answers)
	if err := f.server.Start(); err != nil {
		t.Fatalf("start the FUSE server: %v", err)
	}
	f.Pid = f.server.Process.Pid
	t.Cleanup(func() { f.Stop(t) })
	f.answered(t)
	return f
}

// Silence makes the server read requests and answer none from now on.
func (f *Fuse) Silence(t testing.TB) { t.Helper(); f.order(t, "silence") }

// HoldReads makes the server leave reads of the file unanswered from now on; it answers all else.
func (f *Fuse) HoldReads(t testing.TB) { t.Helper(); f.order(t, "hold-reads") }

// Call starts a process with that comm whose first thread makes the call, and returns its pid once it is blocked in it.
// The process ends when the call returns. It has /dev/null as stdin, stdout and stderr.
func (f *Fuse) Call(t testing.TB, call FuseCall, comm string) int {
	t.Helper()
	path := f.File
	if call == FuseStatfs {
		path = f.Dir
	}
	caller := self("call")
	caller.Args = []string{caller.Path, string(call), path, comm}
	caller.Stderr = nil
	if err := caller.Start(); err != nil {
		t.Fatalf("start a process that calls %s: %v", call, err)
	}
	f.callers = append(f.callers, caller)
	pid := caller.Process.Pid
	inCall := fmt.Sprintf("%d 0x", fuseCallNumbers[call])
	holds(t, fmt.Sprintf("process %d is blocked in %s", pid, call), func() bool {
		blocked, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		return err == nil && strings.HasPrefix(string(blocked), inCall)
	})
	return pid
}

var fuseCallNumbers = map[FuseCall]int{FuseStatfs: unix.SYS_STATFS, FuseRead: unix.SYS_READ, FuseOpen: unix.SYS_OPENAT, FuseMap: unix.SYS_MMAP}

// HoldMmapLock returns a process with that comm which holds its mmap lock in state D until the server is stopped.
func (f *Fuse) HoldMmapLock(t testing.TB, comm string) int {
	t.Helper()
	f.HoldReads(t)
	f.Call(t, FuseRead, "reader")
	return f.Call(t, FuseMap, comm)
}

// waitBlocked waits until a process stays in that state.
func waitBlocked(t testing.TB, pid int, state string) {
	t.Helper()
	holds(t, fmt.Sprintf("process %d is in state %s", pid, state), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && strings.Contains(string(stat), ") "+state+" ")
	})
}

// holds waits until a condition has been there at five looks in a row, some 100 ms: a process blocks for moments while it
// starts.
func holds(t testing.TB, what string, condition func() bool) {
	t.Helper()
	seen := 0
	Eventually(t, 20*time.Second, what, func() bool {
		if seen++; !condition() {
			seen = 0
		}
		return seen == 5
	})
}

// Stop kills the server, which aborts the connection: whatever hangs on the file system returns with an error. It
// waits for the processes started by Call and unmounts. A second call does nothing.
func (f *Fuse) Stop(t testing.TB) {
	t.Helper()
	if f.server.ProcessState != nil {
		return
	}
	f.server.Process.Kill()
	f.orders.Close()
	f.server.Wait()
	for _, caller := range f.callers {
		caller.Wait()
	}
	if err := unix.Unmount(f.Dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: unmounted by the test
		t.Errorf("unmount %s: %v", f.Dir, err)
	}
}

func (f *Fuse) order(t testing.TB, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(f.orders, what); err != nil {
		t.Fatalf("the FUSE server is gone: %v", err)
	}
	f.answered(t)
}

func (f *Fuse) answered(t testing.TB) {
	t.Helper()
	if answer, err := f.answers.ReadString('\n'); err != nil || answer != "done\n" {
		t.Fatalf("the FUSE server: %q, %v", answer, err)
	}
}

func init() {
	if os.Getenv(envCulprit) == "call" {
		runtime.LockOSThread() // to the first thread, whose state is that of the process
	}
}

// makeCall makes a FuseCall in this process: call, path, comm.
func makeCall(args []string) error {
	if err := os.WriteFile("/proc/self/comm", []byte(args[2]), 0); err != nil {
		return err
	}
	var open int
	switch FuseCall(args[0]) {
	case FuseStatfs:
		return unix.Statfs(args[1], new(unix.Statfs_t))
	case FuseRead:
		open = unix.O_RDONLY
	case FuseOpen:
		open = unix.O_WRONLY
	case FuseMap:
		open = unix.O_RDWR
	}
	fd, err := unix.Open(args[1], open, 0)
	if err != nil {
		return err
	}
	if open == unix.O_RDONLY {
		_, err = unix.Read(fd, make([]byte, os.Getpagesize()))
	} else {
		_, err = unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	}
	return err
}

// serveFuse mounts at dir and serves until its stdin ends, which is when the test does.
func serveFuse(dir string) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("npd-lab", dir, "fuse.npd-lab", 0, options); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	s := &fuseServer{fd: fd, buffer: make([]byte, fuseMaxRequest)}
	if err := s.serveOne(); err != nil { // fuseInit, which an order shall not overtake
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- s.serve() }()
	go func() {
		err := s.takeOrders()
		unix.Unmount(dir, unix.MNT_DETACH) // the test is gone; what hangs is freed when this process ends
		failed <- err
	}()
	return <-failed
}

type fuseServer struct {
	fd                int
	buffer            []byte
	silent, holdReads atomic.Bool
}

func (s *fuseServer) takeOrders() error {
	fmt.Println("done") // mounted
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		switch orders.Text() {
		case "silence":
			s.silent.Store(true)
		case "hold-reads":
			s.holdReads.Store(true)
		default:
			return fmt.Errorf("unknown order %q", orders.Text())
		}
		fmt.Println("done")
	}
	return nil
}

// The FUSE protocol, from include/uapi/linux/fuse.h. Numbers are in the byte order of the machine.
const (
	fuseLookup, fuseForget, fuseGetattr, fuseOpen, fuseRead, fuseStatfs    = 1, 2, 3, 14, 15, 17
	fuseRelease, fuseFlush, fuseInit, fuseOpendir, fuseReaddir, fuseRelDir = 18, 25, 26, 27, 28, 29
	fuseInterrupt, fuseBatchForget                                         = 36, 42

	fuseMajor, fuseMinor         = 7, 31
	fuseAsyncRead                = 1 << 0 // of init: a reader may wait for the page instead of for the answer
	fuseDirectIO, fuseKeepCache  = 1 << 0, 1 << 1
	fuseRequestHead              = 40 // bytes before a request's own fields
	fuseRootNode, fuseFileNode   = 1, 2
	fuseFileSize, fuseMaxRequest = 1 << 20, 1<<20 + 4096
)

func (s *fuseServer) serve() error {
	for {
		err := s.serveOne()
		switch {
		case errors.Is(err, unix.ENODEV): // unmounted
			return nil
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOENT): // ENOENT: the request was taken back
			return err
		}
	}
}

func (s *fuseServer) serveOne() error {
	n, err := unix.Read(s.fd, s.buffer)
	if err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	if n < fuseRequestHead {
		return fmt.Errorf("a request of %d bytes", n)
	}
	if err := s.handle(s.buffer[:n]); err != nil {
		return fmt.Errorf("answer a request: %w", err)
	}
	return nil
}

// handle answers one request, or does not.
func (s *fuseServer) handle(request []byte) error {
	opcode := binary.NativeEndian.Uint32(request[4:])
	unique, node := binary.NativeEndian.Uint64(request[8:]), binary.NativeEndian.Uint64(request[16:])
	switch {
	case opcode == fuseForget || opcode == fuseBatchForget || opcode == fuseInterrupt: // want no answer
		return nil
	case s.silent.Load() || (s.holdReads.Load() && opcode == fuseRead):
		return nil
	}
	body, errno := fuseAnswer(opcode, node, request[fuseRequestHead:])
	answer := make([]byte, 16, 16+len(body)) // struct fuse_out_header
	binary.NativeEndian.PutUint32(answer, uint32(16+len(body)))
	binary.NativeEndian.PutUint32(answer[4:], uint32(-int32(errno)))
	binary.NativeEndian.PutUint64(answer[8:], unique)
	_, err := unix.Write(s.fd, append(answer, body...))
	return err
}

func fuseAnswer(opcode uint32, node uint64, fields []byte) ([]byte, unix.Errno) {
	switch opcode {
	case fuseInit:
		b := make([]byte, 64)
		binary.NativeEndian.PutUint32(b, fuseMajor)
		binary.NativeEndian.PutUint32(b[4:], fuseMinor)
		binary.NativeEndian.PutUint32(b[8:], 1<<16) // max_readahead
		binary.NativeEndian.PutUint32(b[12:], fuseAsyncRead)
		binary.NativeEndian.PutUint32(b[20:], 1<<16) // max_write
		return b, 0
	case fuseLookup:
		if string(fields) != "file\x00" {
			return nil, unix.ENOENT
		}
		b := make([]byte, 128)
		binary.NativeEndian.PutUint64(b, fuseFileNode)
		putFuseAttr(b[40:], fuseFileNode)
		return b, 0
	case fuseGetattr:
		b := make([]byte, 104)
		putFuseAttr(b[16:], node)
		return b, 0
	case fuseStatfs:
		b := make([]byte, 80)
		for i, v := range []uint64{FuseBlocks, FuseBlocksFree, FuseBlocksAvailable, FuseFiles, FuseFilesFree} {
			binary.NativeEndian.PutUint64(b[8*i:], v)
		}
		for i, v := range []uint32{FuseBlockSize, 255, FuseBlockSize} { // block size, name length, fragment size
			binary.NativeEndian.PutUint32(b[40+4*i:], v)
		}
		return b, 0
	case fuseOpen:
		b := make([]byte, 16)
		binary.NativeEndian.PutUint32(b[8:], fuseOpenFlags(binary.NativeEndian.Uint32(fields)))
		return b, 0
	case fuseOpendir:
		return make([]byte, 16), 0
	case fuseRead:
		offset, size := binary.NativeEndian.Uint64(fields[8:]), binary.NativeEndian.Uint32(fields[16:])
		return make([]byte, min(uint64(size), fuseFileSize-min(offset, fuseFileSize))), 0
	case fuseReaddir, fuseRelease, fuseRelDir, fuseFlush:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

// fuseOpenFlags makes the kernel wait for the pages that a reader has locked: in mmap of a file opened for reading and
// writing, in open of one opened for writing.
func fuseOpenFlags(open uint32) uint32 {
	switch open & unix.O_ACCMODE {
	case unix.O_RDWR:
		return fuseDirectIO | fuseKeepCache
	case unix.O_WRONLY:
		return fuseDirectIO
	}
	return 0
}

// putFuseAttr writes a struct fuse_attr.
func putFuseAttr(b []byte, node uint64) {
	mode, size := uint32(unix.S_IFDIR|0o755), uint64(0)
	if node != fuseRootNode {
		mode, size = unix.S_IFREG|0o755, fuseFileSize
	}
	binary.NativeEndian.PutUint64(b, node)
	binary.NativeEndian.PutUint64(b[8:], size)
	binary.NativeEndian.PutUint32(b[60:], mode)
	binary.NativeEndian.PutUint32(b[64:], 1) // links
	binary.NativeEndian.PutUint32(b[80:], FuseBlockSize)
}
