package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// runtime is a container runtime that pulls images.
type runtime int

const (
	containerdRuntime runtime = iota
	crioRuntime
)

// runs says whether the process is a daemon of the runtime. k3s and MicroK8s
// call theirs containerd too. CRI-O may pull in a child, which it starts as
// /proc/self/exe (separate_pull_cgroup).
func (r runtime) runs(s procfs.Stat, crio map[int]bool) bool {
	if r == crioRuntime {
		return s.Comm == "crio" || s.Comm == "exe" && crio[s.PPID]
	}
	return strings.Contains(s.Comm, "containerd") && !strings.HasPrefix(s.Comm, "containerd-shim")
}

// held returns those of the downloads whose file a runtime has open for
// writing, with the process. What a killed runtime left behind nobody has open;
// a layer that has arrived and is being unpacked is open for reading.
func (c *check) held(l *plugin.Look, quiet []download) (stalled []download, err error) {
	uptime, err := procfs.Uptime(l.Host)
	if err != nil {
		return nil, err
	}
	var all []procfs.Stat
	crio := map[int]bool{}
	if err := procfs.EachStat(l.Host, func(s procfs.Stat) bool {
		all = append(all, s)
		crio[s.PID] = s.Comm == "crio"
		return true
	}); err != nil {
		return nil, err
	}
	var errs []error
	for _, r := range []runtime{containerdRuntime, crioRuntime} {
		var files []*download
		for i := range quiet {
			if quiet[i].runtime == r {
				files = append(files, &quiet[i])
			}
		}
		if len(files) > 0 {
			errs = append(errs, findWriters(l.Host, r, files, all, crio))
		}
	}
	for _, d := range quiet {
		// A pull that takes up what a killed daemon left behind has not hung for longer than there is the daemon.
		d.idle = min(d.idle, d.writer.Age(uptime))
		if d.writer.PID > 0 && d.idle >= c.age {
			stalled = append(stalled, d)
		}
	}
	return stalled, errors.Join(errs...)
}

// findWriters sets the writer of each file. Where no process has the name of a
// containerd, it may have another name, and all processes are looked at.
func findWriters(h *host.Root, r runtime, files []*download, all []procfs.Stat, crio map[int]bool) error {
	var daemons []procfs.Stat
	for _, s := range all {
		if r.runs(s, crio) && !inPod(h, s.PID) {
			daemons = append(daemons, s)
		}
	}
	renamed := len(daemons) == 0 && r == containerdRuntime
	if renamed {
		daemons = all
	}
	var unreadable error
	for _, s := range daemons {
		if renamed && inPod(h, s.PID) {
			continue
		}
		if err := markWritten(h, s, files); err != nil && !host.Gone(err) {
			unreadable = fmt.Errorf("%w: give the check CAP_SYS_PTRACE (privileged)", err)
		}
	}
	if renamed && unreadable == nil && !hostProcesses(all) {
		return fmt.Errorf("no containerd in %s, which has no kernel threads: mount the host's /proc there", h.Path("/proc"))
	}
	return unreadable
}

// inPod says whether the process is in a pod, where a name is what a tenant
// chose, and some run a runtime of their own.
func inPod(h *host.Root, pid int) bool {
	file, err := procfs.Of(h, pid).Cgroups()
	return err == nil && cgroup.OwnerOfProcess(file).PodUID != ""
}

// hostProcesses says whether these are the processes of a whole machine: those
// of a PID namespace lack the kernel's threads.
func hostProcesses(all []procfs.Stat) bool {
	for _, s := range all {
		if s.PID == 2 && s.Comm == "kthreadd" {
			return true
		}
	}
	return false
}

// maxDescriptors bounds how many descriptors of a process are looked at.
const maxDescriptors = 1 << 18

// markWritten sets the process as the writer of those of the files that it has
// open for writing. It compares the text of the links, because to follow them
// is to touch the file system behind them, and tells the access by the mode of
// the link.
func markWritten(h *host.Root, s procfs.Stat, files []*download) error {
	dir, err := h.Open("/proc/" + strconv.Itoa(s.PID) + "/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	link := make([]byte, unix.PathMax)
	for seen := 0; seen < maxDescriptors; {
		names, err := dir.Readdirnames(1024)
		for _, name := range names {
			n, err := unix.Readlinkat(int(dir.Fd()), name, link)
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				return fmt.Errorf("read the links of %s: %w", dir.Name(), err)
			}
			if err != nil {
				continue
			}
			for _, d := range files {
				if bytes.HasSuffix(link[:n], []byte(d.DataFile)) && openForWriting(dir.Fd(), name) {
					d.writer = s
				}
			}
		}
		seen += len(names)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openForWriting reads the mode of the link itself: r and w are the access with
// which the file was opened (fs/proc/fd.c).
func openForWriting(dir uintptr, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(dir), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&0o200 != 0
}
