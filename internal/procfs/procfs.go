// Package procfs reads the files of /proc that name tasks, as proc(5)
// describes them. It opens only files that never wait for the task: stat,
// comm, cgroup, wchan, stack, status and the links of fd.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// ClockTick is the unit of the times in stat. USER_HZ is 100 on every
// architecture that Kubernetes runs on (include/asm-generic/param.h).
const ClockTick = time.Second / 100

// Stat is what checks need of /proc/PID/stat.
type Stat struct {
	PID     int
	Comm    string
	State   byte // R, S, D, Z, T, t, I, ...
	PPID    int
	Threads int
	Start   uint64 // after the boot, in ClockTicks
	Exiting bool   // past exit(2), and gone in a moment unless that hangs
}

// ParseStat reads one stat line. The comm may hold spaces and parentheses, so
// it ends at the last ")".
func ParseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || end+4 > len(b) {
		return Stat{}, errors.New("stat: no comm in parentheses")
	}
	pid, ok := number(b[:open-1])
	if !ok {
		return Stat{}, errors.New("stat: no pid")
	}
	s := Stat{PID: int(pid), State: b[end+2]}
	// Fields count from 1 in proc(5); state is the third.
	rest := b[end+3:]
	for field := 4; field <= 22; field++ {
		rest = bytes.TrimLeft(rest, " ")
		n := bytes.IndexAny(rest, " \n")
		if n < 0 {
			n = len(rest)
		}
		value, ok := number(rest[:n])
		switch field {
		case 4:
			s.PPID = int(value)
		case 9:
			const exiting = 4 // PF_EXITING of include/linux/sched.h
			s.Exiting = value&exiting != 0
		case 20:
			s.Threads = int(value)
		case 22:
			s.Start = value
		default:
			ok = true // may be negative, and nobody asks
		}
		if !ok {
			return Stat{}, fmt.Errorf("stat: field %d is no number", field)
		}
		rest = rest[n:]
	}
	s.Comm = string(b[open+1 : end])
	return s, nil
}

func number(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 18 { // 18 digits fit an int64
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// EachStat calls visit with the stat of every process, as long as it says
// true. Processes that end meanwhile are left out. It is an error when there
// is not one process that can be read.
//
// It reads the files itself because a node has tens of thousands of processes:
// one openat, read and close for each, and little allocation (test/bench).
func EachStat(h *host.Root, visit func(Stat) bool) error {
	dir, err := h.Open("/proc")
	if err != nil {
		return mended(err)
	}
	defer dir.Close()
	buf := make([]byte, 4096)
	read, broken := 0, 0
	err = eachPID(dir, func(name string) bool {
		n := readAt(int(dir.Fd()), name+"/stat", buf)
		if n <= 0 {
			return true
		}
		s, err := ParseStat(buf[:n])
		if err != nil {
			broken++
			return true
		}
		read++
		return visit(s)
	})
	if err != nil {
		return err
	}
	return noneRead(h, read, broken)
}

// eachPID calls visit with the names of the processes' directories in /proc,
// as long as it says true.
func eachPID(proc *os.File, visit func(name string) bool) error {
	for {
		names, err := proc.Readdirnames(512)
		for _, name := range names {
			if name[0] >= '1' && name[0] <= '9' && !visit(name) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// noneRead is the error of a /proc in which not one stat file could be read.
func noneRead(h *host.Root, read, broken int) error {
	switch {
	case read > 0:
		return nil
	case broken > 0:
		return fmt.Errorf("%d stat files in %s are not what proc(5) describes", broken, h.Path("/proc"))
	default:
		return fmt.Errorf("no process in %s: mount the host's /proc there", h.Path("/proc"))
	}
}

// mended tells what to do about the error of a file that every /proc has.
func mended(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: mount the host's /proc there, or set --host-root", err)
	}
	return err
}

func readAt(dir int, path string, buf []byte) int {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0
	}
	n, _ := unix.Read(fd, buf)
	unix.Close(fd)
	return n
}

// Process is the directory of one process.
type Process struct {
	host *host.Root
	dir  string
}

// Of returns the process with that pid in the PID namespace of the host's /proc.
func Of(h *host.Root, pid int) Process {
	return Process{h, "/proc/" + strconv.Itoa(pid)}
}

// Stat reads the stat file.
func (p Process) Stat() (Stat, error) {
	b, err := p.host.ReadFile(p.dir + "/stat")
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(b)
}

// WaitChannel is the kernel function that the main thread sleeps in, "" when
// it runs or the reader may not know. Where the wchan file tells nothing (x86
// before Linux 5.16) it is the topmost function of the stack file, which takes
// CAP_SYS_ADMIN to read.
func (p Process) WaitChannel() string {
	b, err := p.host.ReadFile(p.dir + "/wchan")
	if s := strings.TrimSpace(string(b)); err == nil && s != "" && s != "0" {
		return s
	}
	if stack := p.Stack(); len(stack) > 0 {
		return stack[0]
	}
	return ""
}

// Stack is the kernel functions that a task that sleeps has called, the last
// one first. It takes CAP_SYS_ADMIN to read them; nil without.
func (p Process) Stack() (functions []string) {
	b, err := p.host.ReadFile(p.dir + "/stack")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		_, frame, _ := strings.Cut(line, "] ") // "[<0>] pipe_write+0x2f/0x5c0"
		if function, _, ok := strings.Cut(frame, "+"); ok {
			functions = append(functions, function)
		}
	}
	return functions
}

// Cgroups reads the cgroup file: a line "id:controllers:path" for each
// hierarchy.
func (p Process) Cgroups() ([]byte, error) {
	return p.host.ReadFile(p.dir + "/cgroup")
}

// UID is the real user of the process in the reader's user namespace.
func (p Process) UID() (int, error) {
	value, err := p.status("Uid:")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(value)
}

// status is the first value of a line of the status file.
func (p Process) status(line string) (string, error) {
	b, err := p.host.ReadFile(p.dir + "/status")
	if err != nil {
		return "", err
	}
	for l := range bytes.Lines(b) {
		if value, ok := bytes.CutPrefix(l, []byte(line)); ok {
			if f := bytes.Fields(value); len(f) > 0 {
				return string(f[0]), nil
			}
		}
	}
	return "", fmt.Errorf("status: no %s", strings.TrimSuffix(line, ":"))
}

// Pipes counts the pipes of which the process holds an end, at most among its
// first 65,536 descriptors. Reading them takes CAP_SYS_PTRACE.
func (p Process) Pipes() (int, error) {
	pipes := map[string]bool{}
	err := p.eachLink(func(link []byte) {
		if bytes.HasPrefix(link, []byte("pipe:")) {
			pipes[string(link)] = true
		}
	})
	return len(pipes), err
}

// Tasks is the number of tasks (processes and their threads) of the whole
// kernel: the second number of the fourth field of /proc/loadavg.
func Tasks(h *host.Root) (int, error) {
	b, err := h.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, mended(err)
	}
	return parseTasks(b)
}

func parseTasks(b []byte) (int, error) {
	f := bytes.Fields(b)
	if len(f) >= 4 {
		if _, total, ok := bytes.Cut(f[3], []byte("/")); ok {
			if n, ok := number(total); ok && n > 0 && n < 1<<31 {
				return int(n), nil
			}
		}
	}
	return 0, errors.New("/proc/loadavg: no running/total in the fourth field")
}

// Uptime is the time since the boot.
func Uptime(h *host.Root) (time.Duration, error) {
	b, err := h.ReadFile("/proc/uptime")
	if err != nil {
		return 0, mended(err)
	}
	f := bytes.Fields(b)
	if len(f) == 0 {
		return 0, errors.New("/proc/uptime: empty")
	}
	seconds, err := strconv.ParseFloat(string(f[0]), 64)
	if err != nil || !(seconds >= 0 && seconds < 1e10) {
		return 0, errors.New("/proc/uptime: the first field is no time")
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// Age is the time since the process began, for an uptime read after its stat.
func (s Stat) Age(uptime time.Duration) time.Duration {
	return uptime - time.Duration(s.Start)*ClockTick
}
