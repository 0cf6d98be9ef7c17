package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"npd-plugins/internal/host"
)

// Limit is how many tasks the kernel can have.
type Limit struct {
	Tasks  uint64
	Sysctl string // that sets it: kernel.pid_max or kernel.threads-max
}

// ErrForeignNamespace says that the host's kernel.pid_max cannot be read.
// Since Linux 6.14 the sysctl belongs to the PID namespace of whoever reads
// it, even through a /proc of the host (kernel/pid.c, pid_table_root_lookup):
// a container without hostPID reads 4194304 whatever the host has, and the
// kernel lets nobody enter the PID namespace above its own.
var ErrForeignNamespace = errors.New("since Linux 6.14 kernel.pid_max of the host cannot be read from another PID namespace")

// TaskLimit is the smaller of kernel.pid_max and kernel.threads-max. A pidMax
// above 0 stands for what the kernel says. With ErrForeignNamespace the limit is
// kernel.threads-max, which all namespaces share.
func TaskLimit(h *host.Root, pidMax uint64) (Limit, error) {
	threads, err := sysctl(h, "threads-max")
	if err != nil {
		return Limit{}, err
	}
	if pidMax == 0 {
		if foreignNamespace(h) && limitPerNamespace(h) {
			return Limit{threads, "kernel.threads-max"}, ErrForeignNamespace
		}
		if pidMax, err = sysctl(h, "pid_max"); err != nil {
			return Limit{}, err
		}
	}
	if threads < pidMax {
		return Limit{threads, "kernel.threads-max"}, nil
	}
	return Limit{pidMax, "kernel.pid_max"}, nil
}

func sysctl(h *host.Root, name string) (uint64, error) {
	path := "/proc/sys/kernel/" + name
	n, ok, err := h.ReadUint(path)
	if err == nil && (!ok || n == 0) {
		err = fmt.Errorf("read %s: no limit in it", h.Path(path))
	}
	return n, mended(err)
}

// The defaults of include/linux/threads.h.
const (
	pidMaxDefault = 0x8000 // PID_MAX_DEFAULT
	pidsPerCPU    = 1024   // PIDS_PER_CPU_DEFAULT
)

// DefaultPIDMax is the kernel.pid_max that the kernel sets at boot
// (kernel/pid.c, pid_idr_init). systemd raises it to 4194304 where it may; only
// an administrator can have lowered it.
func DefaultPIDMax(h *host.Root) uint64 {
	possible, _ := h.ReadFile("/sys/devices/system/cpu/possible")
	return max(pidMaxDefault, pidsPerCPU*countCPUs(string(bytes.TrimSpace(possible))))
}

// countCPUs counts the CPUs of a list like 0-3,8: none of what is no list.
func countCPUs(list string) (n uint64) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		to := from
		if isRange && err == nil {
			to, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || to < from {
			return 0
		}
		n += to - from + 1
	}
	return n
}

// OwnPID is the PID of the caller as the host sees it, 0 when that is not
// known. The host's kernel.pid_max is above it.
func OwnPID(h *host.Root) uint64 {
	pids := namespacePIDs(h)
	if len(pids) == 0 {
		return 0
	}
	pid, _ := strconv.ParseUint(pids[0], 10, 32)
	return pid
}

// foreignNamespace says whether the reader is in another PID namespace than
// the host's /proc: it then has a pid in more than one.
func foreignNamespace(h *host.Root) bool { return len(namespacePIDs(h)) > 1 }

// namespacePIDs are the caller's PIDs in each PID namespace that it is in, that
// of the host's /proc first. None before Linux 4.1.
func namespacePIDs(h *host.Root) []string {
	b, err := h.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(b) {
		if pids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			return strings.Fields(string(pids))
		}
	}
	return nil
}

func limitPerNamespace(h *host.Root) bool {
	k, err := KernelOf(h)
	return err == nil && !k.Before(6, 14)
}
