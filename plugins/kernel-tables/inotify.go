package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// maxProbe is the most instances that a look makes. With a limit above 1280
// Problem begins when fewer than these are left, later than at 80 percent, but
// still well before the end.
const maxProbe = 256

// inotifyProbe tries how many inotify instances of the caller's user fit, up to
// most, and whether one more watch does.
type inotifyProbe func(most int) (fit int, watch bool, err error)

// inotify asks the kernel, which tells the limit for each user and not how much
// of it is used; root is not exempt. Counting descriptors instead would take
// reading every descriptor of the node, and would count an instance once for
// each process that inherited it. The probe holds at most what is left, for
// less than a millisecond, and only when that is little anyway.
func (s *survey) inotify(probe inotifyProbe) {
	limit, sysctl, there := s.inotifyLimit("instances")
	watches, watchSysctl, watched := s.inotifyLimit("watches")
	if !there || !watched || unlimited(limit) {
		return
	}
	if uid, err := procfs.HostUID(); err != nil || uid != 0 {
		s.fail("inotify instances of uid 0 are not known as uid %d of the host: run as root without a user namespace", uid)
		return
	}
	room := limit - (limit*uint64(s.percent)+99)/100 // with this many free it is just near the limit
	most := int(min(room+1, maxProbe))
	fit, watch, err := probe(most)
	if err != nil {
		s.fail("inotify instances of uid 0 are not known: %w", err)
		return
	}
	s.measurements = append(s.measurements, plugin.Measurement{Name: "inotify_instances_free_at_least", Value: float64(fit), Unit: "instances"})
	if fit < most {
		s.add(newTable(instances, "inotify_instances", "instances", limit-min(uint64(fit), limit), limit, sysctl))
	}
	if fit > 0 && !watch {
		s.add(newTable("inotify watches of uid 0", "inotify_watches", "watches", watches, watches, watchSysctl))
	}
}

// inotifyLimit is the smaller of the limit for each user of the node and that
// of the reader's user namespace, which are one and the same on the host.
func (s *survey) inotifyLimit(what string) (limit uint64, sysctl string, there bool) {
	sysctl = "fs.inotify.max_user_" + what
	limit, there = s.sysctl(sysctl)
	if own, also := s.sysctl("user.max_inotify_" + what); also && own < limit {
		return own, "user.max_inotify_" + what, there
	}
	return limit, sysctl, there
}

func probeInotify(most int) (fit int, watch bool, err error) {
	made := make([]int, 0, most)
	for len(made) < most && err == nil {
		var fd int
		if fd, err = unix.InotifyInit1(unix.IN_CLOEXEC); err == nil {
			made = append(made, fd)
		}
	}
	ownLimit := errors.Is(err, unix.EMFILE) && descriptorsExhausted()
	for i := 1; i < len(made); i++ {
		unix.Close(made[i])
	}
	var watchErr error
	if len(made) > 0 {
		_, watchErr = unix.InotifyAddWatch(made[0], "/", unix.IN_DELETE_SELF)
	}
	// To close an instance that has a watch waits for a grace period of the kernel, some 10 ms in which Go's runtime keeps
	// waking up. When there is room it closes with the process.
	if len(made) > 0 && (err != nil || watchErr != nil) {
		unix.Close(made[0])
	}
	switch {
	case ownLimit:
		return 0, false, fmt.Errorf("this process may open %d more files and needs %d: raise its limit (ulimit -n)", len(made), most)
	case err != nil && !errors.Is(err, unix.EMFILE):
		return 0, false, fmt.Errorf("inotify_init: %w", err)
	case watchErr != nil && !errors.Is(watchErr, unix.ENOSPC):
		return 0, false, fmt.Errorf("inotify_add_watch: %w", watchErr)
	}
	return len(made), len(made) > 0 && watchErr == nil, nil
}

// descriptorsExhausted tells the limit of this process from that of the user:
// both give EMFILE.
func descriptorsExhausted() bool {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EMFILE)
}
