// Command pipe-pages tells that root's pipes have outgrown
// fs.pipe-user-pages-soft, so that new pipes are small and an old runc hangs
// when it starts a container.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

func main() {
	plugin.Main(plugin.Check{
		Name:      "pipe-pages",
		Condition: "PipePagesExhausted",
		Purpose: "When the pipes of a user hold more pages than fs.pipe-user-pages-soft, the kernel gives each new pipe of that user\n" +
			"two pages instead of 16, and runc before 1.0.0 hangs in \"runc init\" while it writes its seccomp filter.\n" +
			"Makes one pipe on a thread without CAP_SYS_RESOURCE and CAP_SYS_ADMIN, as runc init has none, and asks for its size.",
		Reads:            []string{"a pipe of its own", "only when it is small: /proc/*/{stat,status,cgroup,fd}, /proc/sys/fs/{pipe-user-pages-soft,pipe-max-size}"},
		Needs:            "uid 0 of the host's user namespace; to name the holders the host's /proc below --host-root and CAP_SYS_PTRACE",
		LookAlikes:       "many pipes of another user: the kernel counts them for each user",
		Example:          "--host-root=/host",
		FailureThreshold: 1,
		Timeout:          8 * time.Second,
		Look:             look,
	})
}

// defaultPages is what a new pipe gets below the soft limit
// (PIPE_DEF_BUFFERS in include/linux/pipe_fs_i.h).
const defaultPages = 16

func look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	if uid, err := procfs.HostUID(); err != nil || uid != 0 {
		return plugin.Unknownf("runs as uid %d of the host, and pipes are counted for each user: run as root without a user namespace", uid)
	}
	size, err := pipeSize()
	if err != nil {
		return plugin.Unknownf("cannot make a pipe without capabilities: %v", err)
	}
	return judge(ctx, l, size)
}

// judge says what the size in bytes of a new pipe means.
func judge(ctx context.Context, l *plugin.Look, size int) plugin.Verdict {
	want := defaultPages * os.Getpagesize()
	v := plugin.Verdict{Measurements: []plugin.Measurement{{Name: "pipe_size", Value: float64(size), Unit: "bytes"}}}
	if size >= want {
		v.Message = fmt.Sprintf("a new pipe of uid 0 has its full %d bytes", size)
		return v
	}
	v.Status = plugin.Problem
	v.Message = fmt.Sprintf("new pipes of uid 0 get %d of %d bytes: ", size, want)
	if most, _, err := l.Host.ReadUint("/proc/sys/fs/pipe-max-size"); err == nil && most < uint64(want) {
		v.Message += fmt.Sprintf("fs.pipe-max-size is %d; runc before 1.0.0 hangs: raise the sysctl", most)
		return v
	}
	v.Message += "fs.pipe-user-pages-soft"
	if soft, _, err := l.Host.ReadUint("/proc/sys/fs/pipe-user-pages-soft"); err == nil {
		v.Message += fmt.Sprintf(" (%d)", soft)
	}
	v.Message += " is exceeded"
	// When the time is over the finding stands, with the holders known by then.
	holders, err := procfs.Holders(ctx, l.Host, pipesOfRoot)
	if err != nil {
		l.Log.Warnf("cannot name the holders of pipes: %v", err)
	}
	for i, h := range holders {
		line := fmt.Sprintf("%s holds %s", l.Process(h.PID), plugin.Count(h.Held, "pipe"))
		if i == 0 {
			v.Message += "; " + line
		}
		v.Details = append(v.Details, line)
	}
	v.Message += "; runc before 1.0.0 hangs: raise the sysctl"
	return v
}

// pipeSize is the size in bytes of a new pipe of a task without the
// capabilities that exempt from the limit (too_many_pipe_buffers_soft and
// pipe_is_unprivileged_user in fs/pipe.c).
func pipeSize() (size int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread without capabilities ends with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err = unix.Capget(&header, &data[0]); err != nil {
			return
		}
		data[0].Effective &^= 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN
		if err = unix.Capset(&header, &data[0]); err != nil {
			return
		}
		var ends [2]int
		if err = unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return
		}
		size, err = unix.FcntlInt(uintptr(ends[0]), unix.F_GETPIPE_SZ, 0)
		unix.Close(ends[0])
		unix.Close(ends[1])
	}()
	<-done
	return size, err
}

// pipesOfRoot counts the pipes of a process of uid 0.
func pipesOfRoot(p procfs.Process) (int, error) {
	if uid, err := p.UID(); err != nil || uid != 0 {
		return 0, err
	}
	return p.Pipes()
}
