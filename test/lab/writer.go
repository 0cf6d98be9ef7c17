package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Writer is a process that writes to a file system, in uninterruptible sleep when that hangs.
type Writer struct {
	// Comm is its name, of at most 15 bytes.
	Comm string
	// Dir is its working directory, that of the test when it is empty.
	Dir string
	// File is what it makes and writes to, past the page cache.
	File string
	// Size is that of one write in bytes, a multiple of 4096. With 0 it only makes the file, and ends.
	Size int
	// Forever makes it write again and again.
	Forever bool
	// Thread makes another thread than the first do it.
	Thread bool

	// Pid is set by Start.
	Pid int

	cmd *exec.Cmd
}

// Start starts the process in these cgroups. It is killed when the test ends, and goes when what it hangs on lets it. The
// test binary's TestMain must call RunCulprit.
func (w *Writer) Start(t testing.TB, groups ...*Cgroup) {
	t.Helper()
	w.cmd = self("write")
	w.cmd.Args = []string{w.cmd.Path, w.Comm, w.File, strconv.Itoa(w.Size), strconv.FormatBool(w.Forever), strconv.FormatBool(w.Thread)}
	w.cmd.Dir = w.Dir
	begin, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatalf("start a writer: %v", err)
	}
	w.Pid = w.cmd.Process.Pid
	t.Cleanup(func() {
		if w.cmd.ProcessState == nil {
			w.cmd.Process.Kill()
			go w.cmd.Wait() // it may have to be freed by a Cleanup that comes later
		}
	})
	for _, g := range groups {
		g.Add(t, w.Pid)
	}
	begin.Close()
}

// WaitBlocked waits until the process, or a thread of it, stays in state D.
func (w *Writer) WaitBlocked(t testing.TB) {
	t.Helper()
	if !w.Thread {
		waitBlocked(t, w.Pid, "D")
		return
	}
	holds(t, fmt.Sprintf("a thread of process %d is in state D", w.Pid), func() bool {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", w.Pid))
		return slices.ContainsFunc(stats, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(stat), ") D ")
		})
	})
}

// Wait waits until the process has ended.
func (w *Writer) Wait() {
	w.cmd.Wait()
}

// Kill kills the process and waits until it has ended.
func (w *Writer) Kill() {
	w.cmd.Process.Kill()
	w.cmd.Wait()
}

func init() {
	if mode := os.Getenv(envCulprit); mode == "write" || mode == "vfork" {
		runtime.LockOSThread() // the main goroutine is the first thread, whose state is that of the process
	}
}

// writeFile is the process: comm, file, size, forever, thread.
func writeFile(args []string) error {
	if err := os.WriteFile("/proc/self/comm", []byte(args[0]), 0); err != nil {
		return err
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	os.Stdin.Read(make([]byte, 1)) // until Start has put it into its cgroups
	done := make(chan error)
	write := func() error { return writeDirect(args[1], size, args[3] == "true") }
	if args[4] != "true" {
		return write()
	}
	go func() { done <- write() }()
	return <-done
}

func writeDirect(file string, size int, forever bool) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CREAT|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err != nil || size == 0 {
		return err
	}
	const page = 4096 // O_DIRECT wants memory that begins at a multiple
	memory := make([]byte, size+page)
	memory = memory[-uintptr(unsafe.Pointer(&memory[0]))&(page-1):][:size]
	for {
		if _, err := unix.Pwrite(fd, memory, 0); err != nil || !forever {
			return err
		}
	}
}

// StartVfork starts a process that has made a child with vfork(2) which neither executes a program nor ends: until it
// does, the parent is in state D, as it should be. Both are killed when the test ends.
func StartVfork(t testing.TB) (pid int) {
	t.Helper()
	parent := self("vfork")
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		parent.Process.Kill()
		parent.Wait()
	})
	waitBlocked(t, parent.Process.Pid, "D")
	return parent.Process.Pid
}

// vfork makes the child, and returns when that ends. As with fork, nothing of Go's runtime may run in the child.
//
//go:nosplit
//go:norace
func vfork() {
	pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_VFORK, 0, 0, 0, 0, 0)
	if pid != 0 {
		return
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	for {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}
