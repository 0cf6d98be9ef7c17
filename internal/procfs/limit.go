package procfs

import (
	"bytes"
	"errors"
	"fmt"

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
// above 0 stands for what the kernel says.
func TaskLimit(h *host.Root, pidMax uint64) (Limit, error) {
	threads, err := sysctl(h, "threads-max")
	if err != nil {
		return Limit{}, err
	}
	if pidMax == 0 {
		if foreignNamespace(h) && limitPerNamespace(h) {
			return Limit{}, ErrForeignNamespace
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

// foreignNamespace says whether the reader is in another PID namespace than
// the host's /proc: it then has a pid in more than one.
func foreignNamespace(h *host.Root) bool {
	b, err := h.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if pids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			return len(bytes.Fields(pids)) > 1
		}
	}
	return false
}

func limitPerNamespace(h *host.Root) bool {
	k, err := KernelOf(h)
	return err == nil && !k.Before(6, 14)
}
