package cgroup

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/host"
)

// Frozen names the cgroup that holds the process with that /proc/PID/cgroup
// file, "" when none does: it, or one above it, was frozen.
//
// Under the freezer of cgroup v1 the tasks are in state D, like those that wait
// for a disk, and since Linux 6.1 they stay in the kernel function in which they
// slept, so that the wait channel does not tell. Under that of cgroup v2 they
// are in state S.
func Frozen(h *host.Root, file []byte) string {
	for line := range strings.Lines(string(file)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		group := path.Clean("/" + f[2]) // a reader in a cgroup namespace is told "/../../system.slice"
		switch {
		case slices.Contains(strings.Split(f[1], ","), "freezer"):
			state, err := h.ReadFile(mount + "/freezer" + group + "/freezer.state")
			if err == nil && strings.TrimSpace(string(state)) == "FROZEN" {
				return group
			}
		case f[0] == "0" && group != "/" && frozenV2(h, group):
			return group
		}
	}
	return ""
}

// frozenV2 reads cgroup.events, which the kernel has since Linux 5.2; on a hybrid
// host cgroup v2 is mounted beside the others.
func frozenV2(h *host.Root, group string) bool {
	for _, hierarchy := range []string{mount, mount + "/unified"} {
		if events, err := h.ReadFile(hierarchy + group + "/cgroup.events"); err == nil {
			return bytes.Contains(events, []byte("frozen 1\n"))
		}
	}
	return false
}
