package main

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// suspect is a cgroup whose tasks suffer.
type suspect struct {
	name         string
	value        float64 // percent of the last minute, or pages per second
	usage, cache uint64  // bytes
	atLimit      bool    // of its own, or of its pod
}

// ranking has the cgroups that suffer most, the worst first.
type ranking struct {
	suspects []suspect
	pressure bool    // the unit of their values
	limit    float64 // above which one is bad
}

// contained says whether those that suffer are all at a limit of their own.
// One that is not shows that it is the node that is full.
func (r ranking) contained() bool {
	others := 0.0
	for _, s := range r.suspects {
		switch {
		case s.atLimit:
		case r.pressure:
			others = max(others, s.value)
		default:
			others += s.value
		}
	}
	return len(r.suspects) > 0 && others < r.limit
}

// lines describes the suspects, the worst first.
func (r ranking) lines(l *plugin.Look) []string {
	var lines []string
	for _, s := range r.suspects {
		name := l.Owner(cgroup.OwnerOf(s.name))
		if name == "" {
			name = plugin.Safe(s.name, 70)
		}
		unit := "pages/s"
		if r.pressure {
			unit = "percent"
		}
		line := fmt.Sprintf("%s %.0f %s", name, s.value, unit)
		if s.usage > 0 {
			line += fmt.Sprintf(", %d percent of its %s are page cache", min(s.cache*100/s.usage, 100), plugin.FormatBytes(float64(s.usage)))
		}
		lines = append(lines, line)
	}
	return lines
}

// maxSuspects is how many cgroups are named.
const maxSuspects = 10

// rank finds the cgroups that suffer most: by their pressure, which cgroup v2
// has for each, else by the rate at which they read pages again.
func (c *check) rank(ctx context.Context, l *plugin.Look, pressure bool) (ranking, error) {
	hierarchy, err := cgroup.Hierarchy(l.Host, "memory")
	if err != nil {
		return ranking{}, err
	}
	v2 := cgroup.IsV2(hierarchy)
	r := ranking{pressure: pressure && v2, limit: float64(c.refaults)}
	var values map[string]float64
	if r.pressure {
		r.limit = float64(c.full)
		values, err = sample(ctx, l.Host, hierarchy, cgroupPressure)
	} else {
		values, err = rates(ctx, l.Host, hierarchy)
	}
	for name, value := range values {
		if value >= 1 {
			r.suspects = append(r.suspects, suspect{name: name, value: value})
		}
	}
	slices.SortFunc(r.suspects, func(a, b suspect) int {
		return cmp.Or(cmp.Compare(b.value, a.value), cmp.Compare(a.name, b.name))
	})
	r.suspects = r.suspects[:min(len(r.suspects), maxSuspects)]
	for i := range r.suspects {
		r.suspects[i].weigh(l.Host, hierarchy)
	}
	return r, err
}

// rates is how many pages per second each cgroup reads again.
func rates(ctx context.Context, h *host.Root, hierarchy string) (map[string]float64, error) {
	began := time.Now()
	before, err := sample(ctx, h, hierarchy, cgroupRefaults)
	if err != nil {
		return nil, err
	}
	pause(ctx)
	elapsed := time.Since(began) // as long for each: both walks go the same way
	after, err := sample(ctx, h, hierarchy, cgroupRefaults)
	for name, n := range after {
		was, ok := before[name]
		if !ok {
			was = n
		}
		after[name] = max(0, n-was) / elapsed.Seconds()
	}
	return after, err
}

// sample reads a number of each cgroup that has tasks of its own. On cgroup v2
// these are the ones without children, whose files count for all below. It
// ends with the context, with what it has.
func sample(ctx context.Context, h *host.Root, hierarchy string, read func(h *host.Root, dir string) (float64, bool)) (map[string]float64, error) {
	values := map[string]float64{}
	err := cgroup.Walk(h, hierarchy, func(name string) bool {
		if ctx.Err() != nil {
			return false
		}
		if cgroup.IsV2(hierarchy) && name != "/" {
			delete(values, path.Dir(name))
		}
		if value, ok := read(h, hierarchy+name); ok {
			values[name] = value
		}
		return true
	})
	return values, err
}

func cgroupPressure(h *host.Root, dir string) (float64, bool) {
	p, err := procfs.ReadPressure(h, dir+"/memory.pressure")
	return p.Full.Avg60, err == nil
}

// cgroupRefaults falls back to major faults, for cgroup v1 has counted
// refaults by cgroup since Linux 5.18 or so only.
func cgroupRefaults(h *host.Root, dir string) (float64, bool) {
	b, err := h.ReadFile(dir + "/memory.stat")
	if err != nil {
		return 0, false
	}
	n, ok := refaults(b)
	if !ok {
		n, ok = procfs.Counter(b, "pgmajfault")
	}
	return float64(n), ok
}

// weigh reads what the cgroup holds and whether it is at its limit.
func (s *suspect) weigh(h *host.Root, hierarchy string) {
	files := []string{"memory.current", "memory.max", "memory.high"}
	cache := "file"
	if !cgroup.IsV2(hierarchy) {
		files, cache = []string{"memory.usage_in_bytes", "memory.limit_in_bytes"}, "total_cache"
	}
	dir := hierarchy + s.name
	s.usage, _, _ = h.ReadUint(dir + "/" + files[0])
	if b, err := h.ReadFile(dir + "/memory.stat"); err == nil {
		s.cache, _ = procfs.Counter(b, cache)
	}
	for name := s.name; name != "/" && (name == s.name || cgroup.OwnerOf(name) != (cgroup.Owner{})); name = path.Dir(name) {
		usage, _, err := h.ReadUint(hierarchy + name + "/" + files[0])
		if err != nil {
			continue
		}
		for _, file := range files[1:] {
			if limit, ok, err := h.ReadUint(hierarchy + name + "/" + file); err == nil && ok && usage >= limit/100*95 {
				s.atLimit = true
			}
		}
	}
}
