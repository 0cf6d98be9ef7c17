package plugin

import (
	"fmt"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/procfs"
)

// Process names a process of the host for a message: comm, pid, and the pod
// that its cgroup tells. Never its command line, which may hold secrets and
// cannot be read while the process hangs.
func (l *Look) Process(pid int) string {
	p := procfs.Of(l.Host, pid)
	s, err := p.Stat()
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	name := fmt.Sprintf("%s (pid %d)", Safe(s.Comm, 16), pid)
	if b, err := p.Cgroups(); err == nil {
		if owner := l.Owner(cgroup.OwnerOfProcess(b)); owner != "" {
			name += " of " + owner
		}
	}
	return name
}

// Owner names the pod or container of a cgroup for a message, "" for neither.
func (l *Look) Owner(o cgroup.Owner) string { return Safe(o.Name(l.Host), 100) }
