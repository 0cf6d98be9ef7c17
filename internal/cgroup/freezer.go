package cgroup

import (
	"slices"
	"strings"

	"npd-plugins/internal/host"
)

// Frozen says whether the freezer of cgroup v1 holds the process with that
// /proc/PID/cgroup file. Its tasks are in state D then, like those that wait
// for a disk. Since Linux 6.1 they stay in the kernel function in which they
// slept, so that the wait channel does not tell.
//
// The freezer of cgroup v2 holds tasks in state S.
func Frozen(h *host.Root, file []byte) bool {
	for line := range strings.Lines(string(file)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), "freezer") {
			state, err := h.ReadFile(mount + "/freezer" + strings.TrimSuffix(f[2], "/") + "/freezer.state")
			return err == nil && strings.TrimSpace(string(state)) == "FROZEN"
		}
	}
	return false
}
