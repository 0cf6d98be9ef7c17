package lab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// envCulprit makes a test binary run as one of the processes of the lab, see RunCulprit, instead of running tests.
const envCulprit = "NPD_LAB_CULPRIT"

// Culprit is a process that does on request what makes a node sick: it leaves zombies, starts tasks, holds pipes. It
// is the test binary executed once more. What it made goes away with it, at once, also where init is slow to reap
// orphans or does not: above it stands a process that does nothing else.
type Culprit struct {
	// Comm is the process's name as the kernel knows it.
	Comm string
	Pid  int

	reaper  *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

// RunCulprit turns this process into a culprit when it was started as one, and does not return then. TestMain calls
// it before anything else.
func RunCulprit() {
	switch os.Getenv(envCulprit) {
	case "":
		return
	case "reap":
		if err := serveAndReap(); err != nil {
			fmt.Println("failed:", err)
		}
	case "serve":
		serveOrders()
	case "fuse":
		if err := serveFuse(os.Args[1]); err != nil {
			fmt.Println("failed:", err)
		}
	case "call":
		_ = makeCall(os.Args[1:]) // it fails when the file system is gone, as it should
	case "write":
		_ = writeFile(os.Args[1:]) // likewise
	case "vfork":
		vfork()
	case "systemd":
		fmt.Println("failed:", bootSystemd(os.Args[1], os.Args[2], os.Args[3]))
	case "namespace":
		code, err := serveNamespace()
		if err != nil {
			fmt.Println("failed:", err)
		}
		os.Exit(code)
	case "thrash":
		if err := thrash(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "charge":
		if err := chargeAndDelete(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// StartCulprit starts a culprit, which is stopped when the test ends. The test binary's TestMain must call RunCulprit.
func StartCulprit(t testing.TB) *Culprit {
	t.Helper()
	reaper := self("reap")
	orders, err := reaper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := reaper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reaper.Start(); err != nil {
		t.Fatalf("start culprit: %v", err)
	}
	c := &Culprit{reaper: reaper, orders: orders, answers: bufio.NewReader(answers)}
	t.Cleanup(c.Stop)
	c.Pid = c.order(t, "pid", 0)
	comm, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(c.Pid), "comm"))
	if err != nil {
		t.Fatal(err)
	}
	c.Comm = strings.TrimSpace(string(comm))
	return c
}

// Stop kills the culprit and returns when its zombies, tasks and pipes are gone with it. A second call does nothing.
func (c *Culprit) Stop() {
	if c.reaper.ProcessState != nil {
		return
	}
	if c.Pid != 0 {
		unix.Kill(c.Pid, unix.SIGKILL)
	}
	c.orders.Close()
	c.reaper.Wait()
}

// Zombies makes the culprit start n children that end at once and are not waited for.
func (c *Culprit) Zombies(t testing.TB, n int) { t.Helper(); c.order(t, "zombies", n) }

// Reap makes the culprit wait for all of its zombies.
func (c *Culprit) Reap(t testing.TB) { t.Helper(); c.order(t, "reap", 0) }

// Tasks makes the culprit start n children that sleep.
func (c *Culprit) Tasks(t testing.TB, n int) { t.Helper(); c.order(t, "tasks", n) }

// Threads makes the culprit start n threads that sleep, at most 9,000.
func (c *Culprit) Threads(t testing.TB, n int) { t.Helper(); c.order(t, "threads", n) }

// ExhaustTasks makes the culprit start sleeping children until the kernel refuses one with EAGAIN, then end room of
// them, so that the machine can still be looked at. It returns how many there were when the kernel refused.
func (c *Culprit) ExhaustTasks(t testing.TB, room int) int {
	t.Helper()
	return c.order(t, "exhaust", room)
}

// Pipes makes the culprit open n pipes without CAP_SYS_RESOURCE and CAP_SYS_ADMIN, so that the soft limit of its user
// holds for it. It returns how many of them are smaller than 64 KiB.
func (c *Culprit) Pipes(t testing.TB, n int) int {
	t.Helper()
	return c.order(t, "pipes", n)
}

func (c *Culprit) order(t testing.TB, what string, n int) (result int) {
	t.Helper()
	if _, err := fmt.Fprintln(c.orders, what, n); err != nil {
		t.Fatalf("culprit is gone: %v", err)
	}
	answer, err := c.answers.ReadString('\n')
	if err != nil {
		t.Fatalf("culprit gave no answer to %q: %v", what, err)
	}
	if _, err := fmt.Sscanf(answer, "done %d", &result); err != nil {
		t.Fatalf("culprit could not do %q: %s", what, answer)
	}
	return result
}

// self returns the command that runs this test binary in one of the modes of envCulprit.
func self(mode string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	if path, err := os.Executable(); err == nil {
		cmd.Path = path // its last part becomes the process's name
	}
	// GOMAXPROCS bounds the threads, which count as tasks.
	cmd.Env = append(os.Environ(), envCulprit+"="+mode, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	return cmd
}

// serveAndReap starts the culprit with this process's stdin and stdout, and waits until it and all of its orphans,
// which come here instead of to init, are reaped.
func serveAndReap() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	culprit := self("serve")
	culprit.Stdin, culprit.Stdout = os.Stdin, os.Stdout
	if err := culprit.Start(); err != nil {
		return err
	}
	waitForAll()
	return nil
}

// waitForAll reaps children until there are none.
func waitForAll() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && err != unix.EINTR {
			return // ECHILD
		}
	}
}

// serveOrders does what is ordered on stdin until that ends, with one line of answer for each order.
func serveOrders() {
	// Children die with the thread that made them, so one thread makes all and lasts as long as the process.
	runtime.LockOSThread()
	var what string
	var n int
	for {
		if _, err := fmt.Scanln(&what, &n); err != nil {
			return
		}
		result, err := obey(what, n)
		if err != nil {
			fmt.Println("failed:", err)
			continue
		}
		fmt.Println("done", result)
	}
}

func obey(what string, n int) (int, error) {
	switch what {
	case "pid":
		return os.Getpid(), nil
	case "zombies":
		return n, forkMany(n, exits)
	case "reap":
		waitForAll()
		return 0, nil
	case "tasks":
		return n, forkMany(n, sleeps)
	case "threads":
		startThreads(n)
		return n, nil
	case "exhaust":
		return exhaust(n)
	case "pipes":
		return holdPipes(n)
	}
	return 0, fmt.Errorf("unknown order %q", what)
}

type childKind bool

const (
	exits  childKind = false
	sleeps childKind = true
)

func forkMany(n int, kind childKind) error {
	for range n {
		pid, errno := fork(kind)
		if errno != 0 {
			return fmt.Errorf("fork: %w", errno)
		}
		if kind == exits { // wait for the end without reaping
			if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				return fmt.Errorf("wait for a zombie: %w", err)
			}
		}
	}
	return nil
}

// startThreads returns when they are there.
func startThreads(n int) {
	var started sync.WaitGroup
	started.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread()
			started.Done()
			unix.Select(0, nil, nil, nil, nil) // in the kernel, where the thread needs no other to go on
		}()
	}
	started.Wait()
}

func exhaust(room int) (int, error) {
	var pids []int
	var errno unix.Errno
	for errno == 0 {
		var pid int
		if pid, errno = fork(sleeps); errno == 0 {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids[max(0, len(pids)-room):] {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	if errno != unix.EAGAIN {
		return 0, fmt.Errorf("fork: %w", errno)
	}
	return len(pids), nil
}

// fork makes a child with one thread and without executing anything, a hundredth of the cost of a Go program each.
// The child dies with its parent. It must not enter Go's runtime, whose other threads it does not have: hence
// nosplit and raw system calls only.
//
//go:nosplit
//go:norace
func fork(kind childKind) (int, unix.Errno) {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return int(pid), errno
	}
	unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	for {
		if kind == exits {
			unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
}

// fullPipe is the size of a pipe, in bytes, that the soft limit does not cut: 16 pages of 4 KiB (PIPE_DEF_BUFFERS in
// include/linux/pipe_fs_i.h).
const fullPipe = 16 * 4096

func holdPipes(n int) (small int, err error) {
	if err := dropCapabilities(unix.CAP_SYS_RESOURCE, unix.CAP_SYS_ADMIN); err != nil {
		return 0, err
	}
	for range n {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return 0, fmt.Errorf("pipe: %w", err)
		}
		size, err := unix.FcntlInt(uintptr(ends[0]), unix.F_GETPIPE_SZ, 0)
		if err != nil {
			return 0, fmt.Errorf("pipe size: %w", err)
		}
		if size < fullPipe {
			small++
		}
	}
	return small, nil
}

// dropCapabilities takes capabilities below 32 from this thread.
func dropCapabilities(capabilities ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	for _, c := range capabilities {
		data[0].Effective &^= 1 << c
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
