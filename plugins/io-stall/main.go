// Command io-stall tells that the disk under the container runtime or kubelet
// is too slow for what the node asks of it: tasks wait for it most of the time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

type check struct {
	percent int
	busy    int
	wait    time.Duration
	dirs    string
}

// dirs are where the runtimes and kubelet keep what they cannot work without.
const dirs = "/var/lib/containerd,/var/lib/containers,/var/lib/docker,/var/lib/kubelet,/var/log"

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "io-stall",
		Condition: "IOStalled",
		Purpose: "The disk under the container runtime or kubelet does not keep up: calls to the runtime hang, pods do not start, the node goes NotReady.\n" +
			"Problem when tasks wait for IO most of a minute (pressure stall information) and one of these disks is busy all the time with requests that take long.\n" +
			"Without pressure stall information the disks alone tell.",
		Reads: []string{"/proc/pressure/io; all else only under pressure, or where the kernel has none:",
			"/proc/diskstats, /proc/uptime, /proc/1/mountinfo, /sys/class/block, /sys/fs/btrfs",
			"io.pressure of all cgroups (v2) or /proc/PID/stat of all tasks (v1), when a disk stalls", "/var/log/pods (names of pods)"},
		Needs:      "the host's /proc and /sys below --host-root, without hostPID; a --state-dir that lasts between runs",
		LookAlikes: "a busy disk under none of --dirs; a disk that is busy and fast; pods that their own io.max slows down; one look",
		Example:    "--host-root=/host --percent=50",
		For:        1,
		Timeout:    25 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.PercentVar(fs, &c.percent, "percent", 50, "Problem when some task waits for IO in this `share` of a minute or more, of 100")
			plugin.PercentVar(fs, &c.busy, "busy", 95, "and a disk is busy in this `share` of the time since the last look or more, of 100")
			plugin.DurationVar(fs, &c.wait, "wait", 100*time.Millisecond, "and its reads and writes take this `duration` or longer on average")
			fs.StringVar(&c.dirs, "dirs", dirs, "a disk counts when a `directory` of these is on it; commas between")
		},
		Look: c.look,
	})
}

// reading is what the next look must know of the disks.
type reading struct {
	At    float64           `json:"at"` // in seconds after the boot
	Disks map[string]counts `json:"disks"`
}

// counts are those of procfs.Disk, by short names.
type counts struct {
	Requests  uint64 `json:"r"`
	Transfers uint64 `json:"t"`
	Waited    uint32 `json:"w"`
	InFlight  uint64 `json:"f"`
	Busy      uint32 `json:"b"`
}

// A reading that is older says little about now.
const maxElapsed = 10 * time.Minute

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	pressure, err := procfs.ReadPressure(l.Host, "/proc/pressure/io")
	blind := errors.Is(err, procfs.ErrNoPressure)
	if err != nil && !blind {
		return plugin.Unknownf("cannot tell the pressure on IO: %v", err)
	}
	v := plugin.Verdict{}
	if !blind {
		v.Measurements = append(v.Measurements, plugin.Measurement{Name: "io_pressure_some_avg60", Value: pressure.Some.Avg60, Unit: "percent"})
	}
	// The share of ten seconds is above the threshold when the first reading of the disks is due: long before that of a minute.
	if limit := float64(c.percent); !blind && pressure.Some.Avg60 < limit && pressure.Some.Avg10 < limit {
		v.Message = fmt.Sprintf("tasks wait for IO in %.1f of 100 of a minute", pressure.Some.Avg60)
		return v
	}

	now, mounts, err := c.read(l)
	if err != nil {
		return plugin.Unknownf("cannot tell the disks of %s: %v", c.dirs, err)
	}
	var last reading
	l.Recall(&last)
	l.Remember(now)
	elapsed := time.Duration((now.At - last.At) * float64(time.Second))
	if last.Disks == nil || elapsed <= 0 || elapsed > maxElapsed {
		v.Suspicion = told(pressure, blind)
		v.Message = v.Suspicion + "; how busy the disks are the next look tells"
		return v
	}
	return c.judge(ctx, l, v, told(pressure, blind), pressure.Some.Avg60 >= float64(c.percent) || blind, loads(mounts, last, now, elapsed))
}

// told says what is known of the pressure.
func told(p procfs.Pressure, blind bool) string {
	if blind {
		return "the kernel has no pressure stall information"
	}
	return fmt.Sprintf("tasks wait for IO in %.0f of 100 of a minute", p.Some.Avg60)
}

// read takes the counts of all disks that stand behind the directories.
func (c *check) read(l *plugin.Look) (reading, []mount, error) {
	disks, err := procfs.Disks(l.Host)
	if err != nil {
		return reading{}, nil, err
	}
	uptime, err := procfs.Uptime(l.Host)
	if err != nil {
		return reading{}, nil, err
	}
	mounts, err := findMounts(l.Host, strings.Split(c.dirs, ","), disks)
	if err != nil {
		return reading{}, nil, err
	}
	now := reading{uptime.Seconds(), map[string]counts{}}
	for _, m := range mounts {
		for _, d := range m.disks {
			now.Disks[d.Name] = counts{d.Requests, d.Transfers, d.Waited, d.InFlight, d.Busy}
		}
	}
	return now, mounts, nil
}

// load is what a disk did between two readings.
type load struct {
	mount   string
	disk    string
	elapsed time.Duration
	busy    float64       // of 100, of the time
	wait    time.Duration // of a read or write, on average; discards (fstrim) may take long
	hung    uint64        // requests in flight all the time, of which none was completed
}

// loads compares two readings, disk by disk.
func loads(mounts []mount, last, now reading, elapsed time.Duration) []load {
	var all []load
	for _, m := range mounts {
		for _, d := range m.disks {
			before, ok := last.Disks[d.Name]
			after := now.Disks[d.Name]
			if !ok || after.Requests < before.Requests || after.Transfers < before.Transfers || slices.ContainsFunc(all, func(l load) bool { return l.disk == d.Name }) {
				continue // another device of that name, or told already
			}
			l := load{mount: m.point, disk: d.Name, elapsed: elapsed}
			milliseconds := func(after, before uint32) time.Duration { return time.Duration(after-before) * time.Millisecond }
			l.busy = min(100*float64(milliseconds(after.Busy, before.Busy))/float64(elapsed), 100)
			if done := after.Transfers - before.Transfers; done > 0 {
				l.wait = milliseconds(after.Waited, before.Waited) / time.Duration(done)
			}
			if after.Requests == before.Requests && before.InFlight > 0 && after.InFlight > 0 {
				// Linux 5.0 to 6.5 adds to the busy time only when a request is completed (block/blk-core.c, update_io_ticks).
				l.hung, l.busy, l.wait = after.InFlight, 100, elapsed
			}
			all = append(all, l)
		}
	}
	return all
}

func (l load) String() string {
	if l.hung > 0 {
		return fmt.Sprintf("%s hangs: none of %d requests was completed in %s", l.disk, l.hung, l.elapsed.Round(time.Second))
	}
	return fmt.Sprintf("%s was busy in %.0f of 100 of %s, a read or write took %s", l.disk, l.busy, l.elapsed.Round(time.Second), l.wait.Round(time.Millisecond))
}

func (c *check) judge(ctx context.Context, l *plugin.Look, v plugin.Verdict, pressure string, high bool, all []load) plugin.Verdict {
	slices.SortStableFunc(all, func(a, b load) int { return int(b.wait.Microseconds() - a.wait.Microseconds()) })
	if len(all) > 0 {
		v.Measurements = append(v.Measurements,
			plugin.Measurement{Name: "disk_busy", Value: all[0].busy, Limit: 100, Unit: "percent"},
			plugin.Measurement{Name: "disk_wait", Value: all[0].wait.Seconds(), Unit: "seconds"})
	}
	stalled := slices.DeleteFunc(slices.Clone(all), func(d load) bool { return d.busy < float64(c.busy) || d.wait < c.wait })
	switch {
	case len(all) == 0:
		return plugin.Undecidedf("%s, but no disk of %s was there at the last look", pressure, c.dirs)
	case len(stalled) == 0 || !high:
		v.Message = fmt.Sprintf("%s; no disk of the runtime or kubelet stalls: %s", pressure, all[0])
		return v
	}
	v.Status = plugin.Problem
	for _, d := range stalled[:min(len(stalled), 10)] {
		v.Details = append(v.Details, fmt.Sprintf("disk %s; mount %s", d, plugin.Safe(d.mount, 200)))
	}
	v.Message = fmt.Sprintf("disk %s; mount %s; %s", stalled[0], plugin.Safe(stalled[0].mount, 60), pressure)
	waiting := waiters(ctx, l)
	v.Details = append(v.Details, waiting...)
	if len(waiting) > 0 {
		v.Message += "; waits most: " + waiting[0]
	}
	return v
}
