package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// isExt4 is whether the driver of ext4 has it, which is that of the older two
// as well.
func (fs *filesystem) isExt4() bool {
	return slices.Contains([]string{"ext4", "ext3", "ext2"}, fs.kind)
}

// ext4Stopped is for kernels on which ext4 refuses writes without a word in
// mountinfo: those that have "ext4: don't set SB_RDONLY after filesystem errors"
// and do not show emergency_ro yet, such as Debian's 6.1.176 and 6.12.107. It stops
// at an error when it is mounted with errors=remount-ro, and whenever its journal
// is aborted. It counts its errors until the next fsck: those matter that came
// after it was mounted.
func (fs *filesystem) ext4Stopped(l *plugin.Look) bool {
	device, err := l.Host.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", fs.major, fs.minor))
	if err != nil {
		l.Log.Infof("errors of %s are not known: %v", fs.name(), err)
		return false
	}
	e := ext4{l: l, device: path.Base(device)}
	errorCount, ok, err := e.number("errors_count")
	if err != nil || !ok || errorCount == 0 {
		return false
	}
	if !e.stopsAtErrors() && !e.aborted() {
		return false
	}
	since, err := e.sinceMounted()
	if err != nil {
		l.Log.Warnf("%s has had %d errors, and it is not known whether before it was mounted: %v", fs.name(), errorCount, err)
		return false
	}
	seconds, ok, err := e.number("last_error_time")
	const unit = time.Second // of that time
	return err == nil && ok && l.Now.Sub(time.Unix(int64(seconds), 0)) <= since+unit
}

// ext4 is a mounted file system of that driver in /sys and /proc.
type ext4 struct {
	l      *plugin.Look
	device string // sda1, dm-0
}

func (e ext4) attribute(name string) string { return "/sys/fs/ext4/" + e.device + "/" + name }

func (e ext4) number(attribute string) (uint64, bool, error) {
	return e.l.Host.ReadUint(e.attribute(attribute))
}

// stopsAtErrors reads all options. mountinfo leaves out one that stands in the
// file system as the default of its mounts.
func (e ext4) stopsAtErrors() bool {
	options, err := e.l.Host.ReadFile("/proc/fs/ext4/" + e.device + "/options")
	if err != nil {
		e.l.Log.Warnf("whether ext4 on %s stops at errors is not known: %v", e.device, err)
	}
	return slices.Contains(strings.Split(string(options), "\n"), "errors=remount-ro")
}

// Errors of ext4, from fs/ext4/ext4.h, that only one has whose journal was
// aborted.
const (
	errReadOnly = 8  // EXT4_ERR_EROFS
	errShutDown = 16 // EXT4_ERR_ESHUTDOWN
)

// aborted is whether the last error was that the journal is aborted, which
// happens when it cannot be written.
func (e ext4) aborted() bool {
	code, _, err := e.number("last_error_errcode")
	if err == nil && (code == errReadOnly || code == errShutDown) {
		return true
	}
	function, err := e.l.Host.ReadFile(e.attribute("last_error_func"))
	return err == nil && strings.TrimSpace(string(function)) == "ext4_journal_check_start"
}

// sinceMounted is the age of the journal's kernel thread, which begins with the
// mount.
func (e ext4) sinceMounted() (time.Duration, error) {
	thread, ok := e.journalThread()
	if !ok {
		err := procfs.EachStat(e.l.Host, func(s procfs.Stat) bool {
			ok = e.isJournalThread(s)
			thread = s
			return !ok
		})
		if err != nil {
			return 0, err
		}
	}
	if !ok {
		return 0, errors.New("it has no journal")
	}
	uptime, err := procfs.Uptime(e.l.Host)
	if err != nil {
		return 0, err
	}
	return thread.Age(uptime), nil
}

// journalThread asks the file system for its thread, which knows it only in the
// PID namespace of the host.
func (e ext4) journalThread() (procfs.Stat, bool) {
	pid, ok, err := e.number("journal_task")
	if err != nil || !ok || pid == 0 {
		return procfs.Stat{}, false
	}
	s, err := procfs.Of(e.l.Host, int(pid)).Stat()
	return s, err == nil && e.isJournalThread(s)
}

func (e ext4) isJournalThread(s procfs.Stat) bool {
	const maxComm = 15 // of kernel threads too, on older kernels
	name := "jbd2/" + e.device + "-"
	return s.PPID <= 2 && (strings.HasPrefix(s.Comm, name) || len(s.Comm) == maxComm && strings.HasPrefix(name, s.Comm))
}
