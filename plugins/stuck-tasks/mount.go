package main

import (
	"fmt"
	"slices"
	"strings"

	"npd-plugins/internal/containerd"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// remote is a kind of file system that another process or machine answers for,
// and that therefore hangs when that does not.
type remote struct {
	kind     string
	types    []string // as in mountinfo, without what follows a "."
	prefixes []string // of the kernel functions that a task has called which waits for one
}

var remotes = []remote{
	{"FUSE", []string{"fuse", "fuseblk", "virtiofs"}, []string{"fuse_", "__fuse_", "request_wait_answer"}},
	{"NFS", []string{"nfs", "nfs4"}, []string{"nfs_", "nfs3_", "nfs4_", "rpc_", "__rpc_"}},
	{"CIFS", []string{"cifs", "smb3"}, []string{"cifs_", "smb2_", "SMB2_"}},
	{"Ceph", []string{"ceph"}, []string{"ceph_"}},
	{"9p", []string{"9p"}, []string{"v9fs_", "p9_"}},
}

// mount names the mount that the task waits for, as far as it can be told
// without asking the mount: "" where the kernel stack, which takes CAP_SYS_ADMIN
// to read, has none of a remote file system, and the task is no shim. A umount
// that waits for a disk has taken its mount from the table before it waits.
func (t *task) mount(l *plugin.Look) string {
	for _, r := range remotes {
		if !t.called(r.prefixes) {
			continue
		}
		mounts, total := r.mounts(l)
		switch {
		case total == 0:
			return "a mount of type " + r.kind
		case total == 1:
			return mounts
		}
		return fmt.Sprintf("one of %d %s mounts: %s", total, r.kind, mounts)
	}
	if bundle := containerd.Bundle(l.Host, t.pid); t.isShim() && bundle != "" {
		point := ""
		procfs.EachMount(l.Host, func(m procfs.Mount) bool {
			if strings.HasPrefix(m.Point, bundle+"/") {
				point = fmt.Sprintf("%s (%s)", plugin.Safe(strings.TrimPrefix(m.Point, bundle+"/"), 80), plugin.Safe(m.Type, 20))
			}
			return point == ""
		})
		return point
	}
	return ""
}

func (t *task) called(prefixes []string) bool {
	return slices.ContainsFunc(t.stack, func(function string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(function, prefix) })
	})
}

// mounts names up to three mounts of the kind on the node, and counts all. Of
// FUSE only those count for which requests wait, where the kernel tells.
func (r remote) mounts(l *plugin.Look) (names string, total int) {
	var waiting, silent []string
	procfs.EachMount(l.Host, func(m procfs.Mount) bool {
		if kind, _, _ := strings.Cut(m.Type, "."); !slices.Contains(r.types, kind) {
			return true
		}
		name := fmt.Sprintf("%s (%s)", l.Mount(m.Point), plugin.Safe(m.Type, 20))
		// The connection is named for the device number (fs/fuse/control.c).
		requests, _, err := l.Host.ReadUint(fmt.Sprintf("/sys/fs/fuse/connections/%d/waiting", m.Minor))
		if err == nil && requests == 0 {
			silent = append(silent, name)
		} else {
			waiting = append(waiting, name)
		}
		return true
	})
	if len(waiting) == 0 {
		waiting = silent
	}
	return strings.Join(waiting[:min(len(waiting), 3)], ", "), len(waiting)
}
