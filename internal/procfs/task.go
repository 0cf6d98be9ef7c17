package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host"
)

// EachBlocked calls visit with the stat of every task in uninterruptible sleep
// (state D), of the threads of a process too, and with the pid of the process.
// It ends with the error of ctx when that ends. It is an error when there is
// not one process that can be read.
//
// The stat of a process tells the state of its first thread only, so that each
// thread of a process that has more is read, from task/TID/stat: the stat that
// /proc/TID has adds up the times of all threads, each time.
func EachBlocked(ctx context.Context, h *host.Root, visit func(pid int, s Stat)) error {
	dir, err := h.Open("/proc")
	if err != nil {
		return mended(err)
	}
	defer dir.Close()
	r := blockedReader{visit: visit, stat: make([]byte, 4096), list: make([]byte, 32<<10)}
	err = eachPID(dir, func(name string) bool {
		r.process(int(dir.Fd()), name)
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return noneRead(h, r.read, r.broken)
}

type blockedReader struct {
	visit        func(pid int, s Stat)
	stat, list   []byte // buffers
	names        []string
	read, broken int // processes
}

func (r *blockedReader) process(proc int, name string) {
	n := readAt(proc, name+"/stat", r.stat)
	if n <= 0 {
		return
	}
	s, err := ParseStat(r.stat[:n])
	if err != nil {
		r.broken++
		return
	}
	r.read++
	if s.State == 'D' {
		r.visit(s.PID, s)
	}
	if s.Threads > 1 {
		r.threads(proc, name, s.PID)
	}
}

// threads reads the stat files of all threads but the first.
func (r *blockedReader) threads(proc int, name string, pid int) {
	tasks, err := unix.Openat(proc, name+"/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // ended meanwhile
	}
	defer unix.Close(tasks)
	for {
		n, err := unix.ReadDirent(tasks, r.list)
		if err != nil || n <= 0 {
			return
		}
		_, _, r.names = unix.ParseDirent(r.list[:n], -1, r.names[:0])
		for _, tid := range r.names {
			if tid != name {
				r.thread(tasks, tid, pid)
			}
		}
	}
}

func (r *blockedReader) thread(tasks int, tid string, pid int) {
	n := readAt(tasks, tid+"/stat", r.stat)
	// Of most threads no more than the state matters.
	end := bytes.LastIndexByte(r.stat[:max(n, 0)], ')')
	if end < 0 || end+2 >= n || r.stat[end+2] != 'D' {
		return
	}
	if s, err := ParseStat(r.stat[:n]); err == nil {
		r.visit(pid, s)
	}
}

// Thread returns a thread of the process. Its files are read as those of a
// process are.
func Thread(h *host.Root, pid, tid int) Process {
	return Process{h, "/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid)}
}

// WorkingDirectory is the path to which the link cwd leads, in the mount
// namespace of the process. Reading it takes CAP_SYS_PTRACE, and asks no file
// system.
func (p Process) WorkingDirectory() (string, error) {
	return p.host.Readlink(p.dir + "/cwd")
}

// Sleep is what the status file tells of a task that sleeps.
type Sleep struct {
	Switches uint64 // context switches so far: as many as before means that it slept all the time
	Dumping  bool   // its process writes a core dump, for which the other threads wait (since Linux 4.15)
}

// Sleep reads the status file.
func (p Process) Sleep() (Sleep, error) {
	b, err := p.host.ReadFile(p.dir + "/status")
	if err != nil {
		return Sleep{}, err
	}
	return parseSleep(b)
}

func parseSleep(b []byte) (Sleep, error) {
	var s Sleep
	counters := 0
	for line := range bytes.Lines(b) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		value = bytes.TrimSpace(value)
		switch string(name) {
		case "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches":
			n, ok := number(value)
			if !ok {
				return Sleep{}, fmt.Errorf("status: %s is no number", name)
			}
			s.Switches += n
			counters++
		case "CoreDumping":
			s.Dumping = string(value) == "1"
		}
	}
	if counters != 2 {
		return Sleep{}, errors.New("status: no context switches")
	}
	return s, nil
}

// Load is the load average of the last minute: the number of tasks that run,
// wait for a CPU, or sleep uninterruptibly (kernel/sched/loadavg.c).
func Load(h *host.Root) (float64, error) {
	b, err := h.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, mended(err)
	}
	return parseLoad(b)
}

func parseLoad(b []byte) (float64, error) {
	field, _, ok := bytes.Cut(b, []byte(" "))
	load, err := strconv.ParseFloat(string(field), 64)
	if !ok || err != nil || math.IsNaN(load) || load < 0 || load > 1<<31 {
		return 0, errors.New("/proc/loadavg: the first field is no load average")
	}
	return load, nil
}
