package cgroup

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"npd-plugins/internal/host"
)

// PathIn is the path of a process in the hierarchy of a controller, as its
// /proc/PID/cgroup file tells it; "/" when that does not.
func PathIn(file []byte, controller string) string {
	group := "/"
	for line := range strings.Lines(string(file)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if slices.Contains(strings.Split(f[1], ","), controller) {
			return path.Clean("/" + f[2])
		}
		if f[0] == "0" {
			group = path.Clean("/" + f[2])
		}
	}
	return group
}

// TimesThrottled is in how many periods the tasks below the directory of a
// cgroup used up their CPU quota (nr_throttled in cpu.stat), 0 without a quota.
func TimesThrottled(h *host.Root, dir string) uint64 {
	stat, err := h.ReadFile(dir + "/cpu.stat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(stat)) {
		if value, ok := strings.CutPrefix(line, "nr_throttled "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}
