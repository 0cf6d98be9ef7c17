package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

// The names of the tables whose holders can be found.
const (
	openFiles    = "open files"
	instances    = "inotify instances of uid 0"
	mountsOfInit = "mounts of PID 1"
)

// openFiles reads file-nr: files in use, 0, fs.file-max
// (Documentation/admin-guide/sysctl/fs.rst). The kernel lets CAP_SYS_ADMIN
// open files beyond the limit (alloc_empty_file in fs/file_table.c), so only
// the numbers tell a privileged reader.
func (s *survey) openFiles() {
	const file = "/proc/sys/fs/file-nr"
	b, err := s.look.Host.ReadFile(file)
	if host.Gone(err) {
		return
	}
	n, err := numbers(b, err)
	if err == nil && len(n) != 3 {
		err = fmt.Errorf("%q is not three numbers", plugin.Safe(strings.TrimSpace(string(b)), 40))
	}
	if err != nil {
		s.fail("open files are not known: read %s: %w", s.look.Host.Path(file), err)
		return
	}
	s.add(newTable(openFiles, "open_files", "files", n[0], n[2], "fs.file-max"))
}

// numbers reads the decimal numbers of a file, unless it could not be read.
func numbers(b []byte, err error) ([]uint64, error) {
	if err != nil {
		return nil, err
	}
	var all []uint64
	for field := range bytes.FieldsSeq(b) {
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", plugin.Safe(string(field), 40))
		}
		all = append(all, n)
	}
	return all, nil
}

// sysctl reads a number. there is false where the kernel has no such file; what
// cannot be read is put on record.
func (s *survey) sysctl(name string) (n uint64, there bool) {
	n, ok, err := s.look.Host.ReadUint(sysctlPath(name))
	switch {
	case host.Gone(err):
		return 0, false
	case err != nil:
		s.fail("%s is not known: %w", name, err)
	}
	return n, err == nil && ok
}

func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// requests are those that io_setup(2) has reserved room for (fs/aio.c).
func (s *survey) requests() {
	used, there := s.sysctl("fs.aio-nr")
	limit, limited := s.sysctl("fs.aio-max-nr")
	if there && limited {
		s.add(newTable("AIO requests", "aio_requests", "requests", used, limit, "fs.aio-max-nr"))
	}
}

// terminals are the pseudo-terminals of all devpts file systems together. Only
// those of the host itself may use the last kernel.pty.reserve of them
// (devpts_new_index in fs/devpts/inode.c), so that for a container the rest is
// the limit.
func (s *survey) terminals() {
	const most = 1 << 20 // NR_UNIX98_PTY_MAX in include/linux/tty_driver.h
	used, there := s.sysctl("kernel.pty.nr")
	limit, limited := s.sysctl("kernel.pty.max")
	reserve, _ := s.sysctl("kernel.pty.reserve")
	if !there || !limited {
		return
	}
	t := newTable("pseudo-terminals", "ptys", "terminals", used, limit-min(reserve, limit), "kernel.pty.max")
	t.setTo = min(2*max(used, limit), most)
	s.add(t)
}

// keyUser is a line of /proc/key-users: what of a user's quota is used
// (Documentation/security/keys/core.rst).
type keyUser struct {
	uid                            uint64
	keys, maxKeys, bytes, maxBytes uint64
}

// parseKeyUser reads "uid: references keys/instantiated keys/limit bytes/limit",
// in which only the last two pairs are the quota.
func parseKeyUser(line []byte) (keyUser, error) {
	n, err := numbers(bytes.Map(func(r rune) rune {
		if r == ':' || r == '/' {
			return ' '
		}
		return r
	}, line), nil)
	if err == nil && len(n) != 8 {
		err = fmt.Errorf("%q is no user's quota", plugin.Safe(strings.TrimSpace(string(line)), 40))
	}
	if err != nil {
		return keyUser{}, err
	}
	return keyUser{n[0], n[4], n[5], n[6], n[7]}, nil
}

// keys has the quota of uid 0, which is high, and of the other user who has
// used most of the much smaller one: runc needs a key for each container, of
// the user whom the container's root is on the host.
func (s *survey) keys() {
	const file = "/proc/key-users"
	b, err := s.look.Host.ReadFile(file)
	if host.Gone(err) {
		return
	}
	if err != nil {
		s.fail("keys are not known: %w", err)
		return
	}
	var keys, bytesOf table // of the fullest other user
	for line := range bytes.Lines(b) {
		u, err := parseKeyUser(line)
		if err != nil {
			s.fail("keys are not known: read %s: %w", s.look.Host.Path(file), err)
			return
		}
		if u.uid == 0 {
			s.add(newTable("keys of uid 0", "keys", "keys", u.keys, u.maxKeys, "kernel.keys.root_maxkeys"))
			s.add(newTable("key bytes of uid 0", "key_bytes", "bytes", u.bytes, u.maxBytes, "kernel.keys.root_maxbytes"))
			continue
		}
		keys = fuller(keys, newTable(fmt.Sprintf("keys of uid %d", u.uid), "keys_fullest_user", "keys", u.keys, u.maxKeys, "kernel.keys.maxkeys"))
		bytesOf = fuller(bytesOf, newTable(fmt.Sprintf("key bytes of uid %d", u.uid), "key_bytes_fullest_user", "bytes", u.bytes, u.maxBytes, "kernel.keys.maxbytes"))
	}
	for _, t := range []table{keys, bytesOf} {
		if t.name != "" {
			s.add(t)
		}
	}
}

func fuller(a, b table) table {
	if a.name == "" || b.share() > a.share() {
		return b
	}
	return a
}

// mounts counts those of the mount namespace of PID 1. Linux before 4.9 has no
// limit for them.
func (s *survey) mounts(ctx context.Context) {
	const file = "/proc/1/mountinfo"
	limit, limited := s.sysctl("fs.mount-max")
	if !limited {
		return
	}
	f, err := s.look.Host.Open(file)
	if err != nil {
		s.fail("mounts are not known: %w: mount the host's /proc there, or set --host-root", err)
		return
	}
	defer f.Close()
	count, err := countLines(ctx, f)
	t := newTable(mountsOfInit, "mounts", "mounts", count, limit, "fs.mount-max")
	if err != nil && !t.near(s.percent) {
		s.fail("%d mounts of PID 1 or more, not all counted: read %s: %w: give more CPU, or a longer --timeout", count, s.look.Host.Path(file), err)
		return
	}
	s.add(t)
}

// countLines counts those that it reads until ctx ends. What stands in them is
// left alone: there may be 100,000 (BenchmarkCountLines).
func countLines(ctx context.Context, r io.Reader) (count uint64, err error) {
	buf := make([]byte, 16<<10)
	for err == nil {
		var n int
		n, err = r.Read(buf)
		count += uint64(bytes.Count(buf[:n], []byte("\n")))
		if err == nil {
			err = ctx.Err()
		}
	}
	if err == io.EOF {
		err = nil
	}
	return count, err
}
