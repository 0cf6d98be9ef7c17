package plugin

import (
	"fmt"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/procfs"
)

// Process names a process of the host for a message: comm, pid, and the pod or
// the unit of systemd that its cgroup tells. Never its command line, which may
// hold secrets and cannot be read while the process hangs.
func (l *Look) Process(pid int) string {
	p := procfs.Of(l.Host, pid)
	s, err := p.Stat()
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	name := fmt.Sprintf("%s (pid %d)", Safe(s.Comm, 16), pid)
	b, err := p.Cgroups()
	if err != nil {
		return name
	}
	if owner := l.Owner(cgroup.OwnerOfProcess(b)); owner != "" {
		return name + " of " + owner
	}
	if unit := cgroup.UnitOfProcess(b); unit != "" && unit != "init.scope" && unit != s.Comm+".service" {
		name += " of " + Safe(unit, 60)
	}
	return name
}

// Mount names a mount of the host for a message: below kubelet's directory of
// pods the volume and its pod, else where it is.
func (l *Look) Mount(point string) string {
	owner, volume := cgroup.VolumeOf(point)
	if volume == "" {
		return Safe(point, 80)
	}
	return "volume " + Safe(volume, 63) + " of " + l.Owner(owner)
}

// Owner names the pod or container of a cgroup for a message, "" for neither.
func (l *Look) Owner(o cgroup.Owner) string { return Safe(o.Name(l.Host), 100) }
