package main

import (
	"errors"
	"fmt"
	"strings"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// units are the services of kubelet and of container runtimes.
var units = distribution.Every(func(d *distribution.Distribution) []string { return d.Units })

// waiting is how much tasks wait for IO, in percent of the last minute.
type waiting struct {
	blind  bool    // the kernel has no pressure stall information; the rest is zero then
	some   float64 // any task of the node
	soon   float64 // the same, or of the last ten seconds when that is more: the first reading of the disks is then due
	daemon daemon  // the one that waits most
}

// daemon is a service of the runtime or kubelet.
type daemon struct {
	unit  string // "" when the kernel does not tell of them alone
	share float64
}

// readWaiting reads the pressure of the node and of the services. Only root can make
// a cgroup in which services are looked for: those of pods are left out.
func readWaiting(h *host.Root) (waiting, error) {
	p, err := procfs.ReadPressure(h, "/proc/pressure/io")
	if errors.Is(err, procfs.ErrNoPressure) {
		return waiting{blind: true}, nil
	}
	w := waiting{some: p.Some.Avg60, soon: max(p.Some.Avg10, p.Some.Avg60)}
	if err != nil {
		return w, err
	}
	for _, hierarchy := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} { // v2, and the v2 beside v1
		names, _ := h.ReadNames(hierarchy, 1000) // not there, or not mounted
		for _, slice := range names {
			if !strings.HasSuffix(slice, ".slice") || strings.HasPrefix(slice, "kubepods") {
				continue
			}
			for _, unit := range units {
				p, err := procfs.ReadPressure(h, hierarchy+"/"+slice+"/"+unit+".service/io.pressure")
				if err == nil && (w.daemon.unit == "" || p.Some.Avg60 > w.daemon.share) {
					w.daemon = daemon{unit, p.Some.Avg60}
				}
			}
		}
	}
	return w, nil
}

// any is the share in which a task waits, of the node or of a service. The
// kernel weighs that of the node by how busy each CPU is (kernel/sched/psi.c,
// collect_percpu_times), that of a service by the CPUs of the service alone.
func (w waiting) any() float64 { return max(w.some, w.daemon.share) }

// served is the share in which the runtime or kubelet waits, as far as it is
// known.
func (w waiting) served() float64 {
	if w.daemon.unit == "" {
		return w.some
	}
	return w.daemon.share
}

func (w waiting) String() string {
	if w.blind {
		return procfs.ErrNoPressure.Error()
	}
	s := fmt.Sprintf("tasks wait for IO in %.0f percent of a minute", w.some)
	if w.daemon.unit != "" {
		s += fmt.Sprintf(", %s in %.0f", plugin.Safe(w.daemon.unit, 30), w.daemon.share)
	}
	return s
}

func (w waiting) measurements() []plugin.Measurement {
	if w.blind {
		return nil
	}
	m := []plugin.Measurement{{Name: "io_pressure_some_avg60", Value: w.some, Unit: "percent"}}
	if w.daemon.unit != "" {
		m = append(m, plugin.Measurement{Name: "io_pressure_daemon_avg60", Value: w.daemon.share, Unit: "percent"})
	}
	return m
}
