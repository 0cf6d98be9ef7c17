package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// population is how many memory cgroups the kernel has.
type population struct {
	dying int
	bound bool // there may be fewer dying ones than that, which is below --count
	all   int  // with the live ones; 0 on v2, where nobody needs it
}

// population asks the kernel: cgroup v2 counts what is deleted, v1 only what
// there is in all, of which the directories are the live ones. These are
// counted as far as it takes to know that the others are too few.
func (c *check) population(h *host.Root, hierarchy string) (population, error) {
	if cgroup.IsV2(hierarchy) {
		n, err := dyingBelow(h, hierarchy)
		return population{dying: n}, err
	}
	all, err := memoryCgroups(h)
	if err != nil {
		return population{}, err
	}
	enough := all - c.count + 1
	live, err := cgroup.CountTo(h, hierarchy, enough)
	return population{dying: max(0, all-live), bound: live >= enough, all: all}, err
}

// dyingBelow is how many deleted cgroups are kept below a cgroup, at any depth.
func dyingBelow(h *host.Root, dir string) (int, error) {
	b, err := h.ReadFile(dir + "/cgroup.stat")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("no %s: Linux has it since 4.14", h.Path(dir+"/cgroup.stat"))
	}
	if err != nil {
		return 0, err
	}
	n, ok := procfs.Counter(b, "nr_dying_descendants")
	if !ok || n > math.MaxInt32 {
		return 0, fmt.Errorf("read %s: no nr_dying_descendants", h.Path(dir+"/cgroup.stat"))
	}
	return int(n), nil
}

// memoryCgroups is the number of all cgroups in the hierarchy of the memory
// controller: the third column of /proc/cgroups.
func memoryCgroups(h *host.Root) (int, error) {
	b, err := h.ReadFile("/proc/cgroups")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: mount the host's /proc there, or set --host-root", err)
	}
	if err != nil {
		return 0, err
	}
	return parseCgroups(b)
}

func parseCgroups(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "memory" {
			if n, err := strconv.Atoi(f[2]); err == nil && n > 0 {
				return n, nil
			}
		}
	}
	return 0, errors.New("/proc/cgroups: no number of cgroups for memory")
}

// parents names up to ten cgroups that lost most of the deleted ones right
// below them.
func parents(l *plugin.Look, hierarchy string) []string {
	lost := map[string]int{}
	cgroup.Walk(l.Host, hierarchy, func(name string) bool {
		n, err := dyingBelow(l.Host, hierarchy+name)
		if err != nil || n == 0 { // gone, or nothing was lost below
			return false
		}
		lost[name] += n
		if name != "/" {
			lost[path.Dir(name)] -= n
		}
		return true
	})
	names := slices.SortedFunc(maps.Keys(lost), func(a, b string) int {
		return cmp.Or(cmp.Compare(lost[b], lost[a]), cmp.Compare(a, b))
	})
	var lines []string
	for _, name := range names[:min(len(names), 10)] {
		if lost[name] <= 0 {
			break
		}
		label := l.Owner(cgroup.OwnerOf(name))
		if label == "" {
			label = plugin.Safe(name, 80)
		}
		lines = append(lines, fmt.Sprintf("%s %d", label, lost[name]))
	}
	return lines
}
