// Command io-stall tells that the disk under the container runtime or kubelet
// is too slow for what the node asks of it: tasks wait for it most of the time.
package main

import (
	"cmp"
	"context"
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
	slow    time.Duration
	dirs    string
}

// dirs are where the runtimes and kubelet keep what they cannot work without.
const dirs = "/var/lib/containerd,/var/lib/containers,/var/lib/docker,/var/lib/kubelet,/var/log"

// What a disk that is too slow does, and how much of it matters. README.md has
// the measurements.
const (
	slowRate    = 10 << 20 // bytes a second while it is busy: a disk that moves more is not slow
	slowBusy    = 25       // percent of the time: below it the disk is hardly asked
	slowWaiting = 10       // percent of a minute: on a node with many busy CPUs one task that always waits counts for no more
)

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "io-stall",
		Condition: "IOStalled",
		Purpose: "The disk under the container runtime or kubelet does not keep up: calls to the runtime hang, pods do not start, the node goes NotReady.\n" +
			"Problem when such a disk hangs or needs very long for each request while tasks wait for it, or when it is always busy with requests that take long and the runtime or kubelet waits\n" +
			"most of a minute (pressure stall information of their services). Without pressure stall information the disks alone tell.",
		Reads: []string{"/proc/pressure/io, io.pressure of the services of kubelet and the runtime; all else only under pressure, or where the kernel has none:",
			"/proc/diskstats, /proc/uptime, /proc/1/mountinfo, /sys/class/block, /sys/fs/btrfs",
			"io.pressure of all cgroups (v2) or /proc/PID/stat of all tasks (v1), when a disk stalls", "/var/log/pods (names of pods)"},
		Needs:            "the host's /proc and /sys below --host-root, without hostPID; a --state-dir that lasts between runs",
		LookAlikes:       "a busy disk under none of --dirs; a disk that a batch job keeps busy while the runtime and kubelet are served; pods that their own io.max slows down; one look",
		Example:          "--host-root=/host --percent=50",
		FailureThreshold: 1,
		Timeout:          25 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.slow, "slow", 40*time.Millisecond, "a disk is too slow when it is busy for this `duration` or longer per request and moves less than 10 MiB a second, while tasks wait")
			plugin.PercentVar(fs, &c.percent, "percent", 50, "a disk is overloaded when the runtime or kubelet waits for IO in this `share` of a minute or more, in percent (any task, where the kernel does not tell of them alone)")
			plugin.PercentVar(fs, &c.busy, "busy", 95, "an overloaded disk is busy in this `share` of the time since the last run or more, in percent")
			plugin.DurationVar(fs, &c.wait, "wait", 100*time.Millisecond, "reads and writes of an overloaded disk take this `duration` or longer on average")
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
	Sectors   uint64 `json:"s"`
	Waited    uint32 `json:"w"`
	InFlight  uint64 `json:"f"`
	Busy      uint32 `json:"b"`
}

// A reading that is older says little about now.
const maxElapsed = 10 * time.Minute

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	w, err := readWaiting(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot tell the pressure on IO: %v", err)
	}
	v := plugin.Verdict{Measurements: w.measurements()}
	if !w.blind && w.soon < slowWaiting && w.daemon.share < float64(c.percent) {
		v.Message = w.String()
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
		v.Suspicion = w.String()
		v.Message = v.Suspicion + "; disk load is known at the next run"
		return v
	}
	return c.judge(ctx, l, v, w, loads(mounts, last, now, elapsed))
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
			now.Disks[d.Name] = counts{d.Requests, d.Transfers, d.Sectors, d.Waited, d.InFlight, d.Busy}
		}
	}
	return now, mounts, nil
}

// load is what a disk did between two readings.
type load struct {
	mount   string
	disk    string
	elapsed time.Duration
	busy    float64       // percent of the time
	wait    time.Duration // of a read or write, on average; discards (fstrim) may take long
	each    time.Duration // busy time for each request of any kind
	bytes   float64       // a second while it was busy
	rate    float64       // reads and writes a second
	hung    uint64        // requests in flight all the time, of which none was completed
}

// loads compares two readings, disk by disk.
func loads(mounts []mount, last, now reading, elapsed time.Duration) []load {
	var all []load
	for _, m := range mounts {
		for _, d := range m.disks {
			before, ok := last.Disks[d.Name]
			after := now.Disks[d.Name]
			if !ok || after.Requests < before.Requests || after.Transfers < before.Transfers || after.Sectors < before.Sectors ||
				slices.ContainsFunc(all, func(l load) bool { return l.disk == d.Name }) {
				continue // another device of that name, or told already
			}
			l := load{mount: m.point, disk: d.Name, elapsed: elapsed}
			milliseconds := func(after, before uint32) time.Duration { return time.Duration(after-before) * time.Millisecond }
			busy := min(milliseconds(after.Busy, before.Busy), elapsed)
			l.busy = 100 * float64(busy) / float64(elapsed)
			if done := after.Transfers - before.Transfers; done > 0 {
				l.wait = milliseconds(after.Waited, before.Waited) / time.Duration(done)
				l.each = busy / time.Duration(after.Requests-before.Requests)
				l.rate = float64(done) / elapsed.Seconds()
				l.bytes = 512 * float64(after.Sectors-before.Sectors) / max(busy.Seconds(), 0.001)
			}
			if after.Requests == before.Requests && before.InFlight > 0 && after.InFlight > 0 && elapsed >= time.Second {
				// Linux 5.0 to 6.5 adds to the busy time only when a request is completed (block/blk-core.c, update_io_ticks).
				l.hung, l.busy, l.wait, l.each = after.InFlight, 100, elapsed, elapsed
			}
			all = append(all, l)
		}
	}
	return all
}

func (l load) String() string {
	if l.hung > 0 {
		return fmt.Sprintf("none of %s was completed in %s", plugin.Count(int(l.hung), "request"), l.elapsed.Round(time.Second))
	}
	return fmt.Sprintf("%.0f requests a second, %s each, busy %.0f percent of %s", l.rate, l.wait.Round(time.Millisecond), l.busy, l.elapsed.Round(time.Second))
}

// fault is how a disk fails the runtime and kubelet, "" when it does not.
//
// A disk that is always busy may be healthy, its requests may wait long in a
// queue of a batch job's own, and a runtime that works all the time waits for
// the fastest disk most of it. So a disk is to blame in two cases: it needs very
// long for each request, which no queue explains; or its requests wait long and
// the runtime's own work waits with them.
func (c *check) fault(l load, w waiting) string {
	always := l.busy >= float64(c.busy)
	waits := w.any() >= slowWaiting
	if w.blind {
		waits = always
	}
	// Reads and writes that do not wait are not what a disk is busy with for long: discards are.
	slow := l.each >= c.slow && l.wait >= c.slow && l.bytes < slowRate
	overloaded := always && l.wait >= c.wait && (w.blind || w.served() >= float64(c.percent))
	switch {
	case l.hung > 0 && (waits || overloaded):
		return "hangs"
	case slow && (l.busy >= slowBusy && waits || overloaded):
		return "is too slow"
	case overloaded:
		return "is overloaded"
	}
	return ""
}

func (c *check) judge(ctx context.Context, l *plugin.Look, v plugin.Verdict, w waiting, all []load) plugin.Verdict {
	if len(all) == 0 {
		return plugin.Undecidedf("%s, but no disk of %s was there at the last look", w, c.dirs)
	}
	slices.SortStableFunc(all, func(a, b load) int { return cmp.Compare(b.wait, a.wait) })
	v.Measurements = append(v.Measurements,
		plugin.Measurement{Name: "disk_busy", Value: all[0].busy, Limit: 100, Unit: "percent"},
		plugin.Measurement{Name: "disk_wait", Value: all[0].wait.Seconds(), Unit: "seconds"})
	for _, d := range all {
		if fault := c.fault(d, w); fault != "" && len(v.Details) < 10 {
			v.Details = append(v.Details, fmt.Sprintf("disk %s %s: %s; mount %s", d.disk, fault, d, plugin.Safe(d.mount, 200)))
			if v.Status == plugin.OK {
				v.Status = plugin.Problem
				v.Message = fmt.Sprintf("disk %s %s: %s; mount %s; %s", d.disk, fault, d, plugin.Safe(d.mount, 60), w)
			}
		}
	}
	if v.Status == plugin.OK {
		v.Message = fmt.Sprintf("%s; no disk of the runtime or kubelet stalls: %s: %s", w, all[0].disk, all[0])
		return v
	}
	who := waiters(ctx, l)
	v.Details = append(v.Details, who...)
	if len(who) > 0 {
		v.Message += "; waits most: " + who[0]
	}
	return v
}
