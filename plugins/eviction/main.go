// Command eviction tells that kubelet is about to evict pods, or does: one of
// its eviction signals is near its threshold.
package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/kubelet"
	"npd-plugins/internal/plugin"
)

type check struct {
	percent    int
	pidMax     int
	kubeletDir string
	config     string
	configDir  string
	imageDir   string
	access     kubelet.Access
}

// kubeletDir is kubelet's --root-dir.
const kubeletDir = "/var/lib/kubelet"

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "eviction",
		Condition: "EvictionImminent",
		Purpose: "When the node runs out of memory, disk, inodes or PIDs kubelet kills pods. It does so when a signal, such as memory.available, falls below a threshold.\n" +
			"Computes the signals as kubelet does, and compares them with kubelet's thresholds, hard and soft: Problem when one is near, and while it is below.",
		Reads: []string{"every 10 minutes: kubelet's https://NODE_IP:10250/configz, else --kubelet-config and --kubelet-config-dir; /proc/1/mountinfo",
			"/proc/meminfo, memory.stat and usage of the root cgroup and of kubepods", "/proc/loadavg, /proc/sys/kernel/{pid_max,threads-max}, when kubelet has a threshold for PIDs",
			"statfs of --kubelet-dir and of the image directory, in a process of its own",
			"every 10 minutes on a node with huge pages: kubelet's /metrics",
			"under pressure: memory and pids of all cgroups, kubelet's /stats/summary, /var/log/pods (names of pods); when no pod holds much of a full disk, 20,000 of its files at most, in a process of its own"},
		Needs: "the host's /proc, /sys/fs/cgroup, /var/lib/kubelet and the runtime's directory below --host-root; " +
			"NODE_IP, NODE_NAME and a service account that may get nodes/configz, nodes/stats and, for huge pages, nodes/metrics (deploy/rbac.yaml), else kubelet's configuration file",
		LookAlikes:       "little free memory while the page cache can give way; a full disk that kubelet does not evict for; a signal without threshold",
		Example:          "--host-root=/host --percent=20",
		FailureThreshold: 1,
		Timeout:          15 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.PercentVar(fs, &c.percent, "percent", 20, "Problem when a signal is less than this `share` above its threshold, in percent of the threshold")
			fs.StringVar(&c.kubeletDir, "kubelet-dir", kubeletDir, "kubelet's --root-dir, a `directory` of the node: nodefs is the file system it is on")
			fs.StringVar(&c.config, "kubelet-config", kubeletDir+"/config.yaml", "kubelet's --config, a `file` of the node; read when kubelet may not be asked")
			fs.StringVar(&c.configDir, "kubelet-config-dir", "", "kubelet's --config-dir, a `directory` of the node with *.conf files; likewise")
			fs.StringVar(&c.imageDir, "image-dir", "", "`directory` of the node on whose file system the images are: imagefs; the default is where a container shows them")
			plugin.OptionalCountVar(fs, &c.pidMax, "pid-max", "the host's kernel.pid_max, a `number`, where it cannot be read: Linux 6.14 and later without hostPID")
			c.access.Define(fs)
		},
		Look: c.look,
	})
}

// freshFor is how long it is remembered what kubelet's settings are and where the
// images are. That changes when kubelet or the runtime is started anew.
const freshFor = 10 * time.Minute

// callTime is the most that one of the calls may take that others answer.
const callTime = 3 * time.Second

// memory is kept from look to look. Times are seconds since 1970.
type memory struct {
	Settings   *settings  // nil before there were any
	SettingsAt int64      // when they were read
	Images     *imageDirs // nil before a container showed them
	ImagesAt   int64      // when they were looked for
	Huge       *bool      // whether kubelet takes huge pages off memory.available; nil while that is not known
	HugeAt     int64      // when it was asked for
	Outside    outside    // who fills a disk and is no pod
}

// fresh says whether something that was asked for at that time is still good.
func fresh(now time.Time, at int64) bool {
	age := now.Sub(time.Unix(at, 0))
	return age >= 0 && age < freshFor
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	var m memory
	l.Recall(&m)
	disks := &fileSystems{ctx: ctx, host: l.Host, known: map[string]apart.FileSystem{}}
	v := plugin.Verdict{}
	if err := c.refresh(ctx, l, disks, &m); err != nil {
		v = plugin.Unknownf("kubelet's eviction thresholds are not known: %v", err)
	} else {
		v = c.judge(ctx, l, disks, &m)
	}
	l.Remember(m)
	return v
}

// judge computes the signals and compares them with the thresholds.
func (c *check) judge(ctx context.Context, l *plugin.Look, disks *fileSystems, m *memory) plugin.Verdict {
	v := plugin.Verdict{}
	var found []finding
	var failed []string
	for _, r := range c.read(l, disks, *m) {
		if r.err != nil {
			failed = append(failed, fmt.Sprintf("%s is not known: %v", r.signal, r.err))
			continue
		}
		of := findings(r, m.Settings.Thresholds)
		if r.unsure > 0 {
			less := r
			less.available -= min(r.unsure, r.available)
			if c.anyNear(findings(less, m.Settings.Thresholds)) && !c.anyNear(of) {
				failed = append(failed, fmt.Sprintf("%s is not known: %s or, if kubelet takes off huge pages as since 1.37, %s: let it get nodes/metrics (deploy/rbac.yaml)",
					r.signal, r.amount(r.available), r.amount(less.available)))
				continue
			}
		}
		found = append(found, of...)
		v.Measurements = append(v.Measurements, measurement(r, of))
	}
	slices.SortStableFunc(found, nearest)
	near := slices.DeleteFunc(slices.Clone(found), func(f finding) bool { return !f.near(c.percent) })
	switch {
	case len(near) > 0:
		v.Status = plugin.Problem
		v.Details = failed
		c.tell(ctx, l, &v, near, m, disks)
	case len(failed) > 0:
		for _, also := range failed[1:] {
			l.Log.Warn(also)
		}
		v.Status, v.Message = plugin.Unknown, failed[0]
	case len(found) == 0:
		v.Message = fmt.Sprintf("kubelet has no eviction threshold (%s)", m.Settings.Source)
	default:
		f := found[0]
		v.Message = fmt.Sprintf("nearest to eviction: %s %s, kubelet's threshold %s%s", f.signal, f.amount(f.available), f.amount(f.limit), m.Settings.origin())
	}
	return v
}

func (c *check) anyNear(found []finding) bool {
	return slices.ContainsFunc(found, func(f finding) bool { return f.near(c.percent) })
}

// refresh sees to it that m has kubelet's settings and the images. Nothing of
// kubelet's directory is opened before its file system has answered.
func (c *check) refresh(ctx context.Context, l *plugin.Look, disks *fileSystems, m *memory) error {
	if m.Settings == nil || !fresh(l.Now, m.SettingsAt) {
		hangs := disks.hangs(c.kubeletDir)
		switch {
		case hangs != nil && m.Settings == nil:
			return hangs
		case hangs == nil:
			s, err := c.settings(ctx, l, m.Settings)
			if err != nil {
				return err
			}
			m.Settings, m.SettingsAt = s, l.Now.Unix()
		}
	}
	if c.imageDir == "" && m.Settings.needs("imagefs") && !fresh(l.Now, m.ImagesAt) {
		dirs, err := findImages(l.Host)
		if err != nil {
			l.Log.Infof("where the images are does not show: %v", err)
		} else {
			m.Images = dirs
		}
		m.ImagesAt = l.Now.Unix()
	}
	if m.Settings.HugePages != nil {
		m.Huge = m.Settings.HugePages
	} else if m.Settings.needs("memory") && !fresh(l.Now, m.HugeAt) && hugePages(l.Host) > 0 && disks.hangs(c.kubeletDir) == nil {
		huge, err := c.askHugePages(ctx, l)
		if err == nil {
			m.Huge = huge
		} else {
			l.Log.Warnf("whether kubelet takes huge pages off memory.available is not known: %v", err)
		}
		m.HugeAt = l.Now.Unix()
	}
	return nil
}

// tell writes the message and the details of what is near its threshold, the
// nearest first.
func (c *check) tell(ctx context.Context, l *plugin.Look, v *plugin.Verdict, near []finding, m *memory, disks *fileSystems) {
	worst, s := near[0], m.Settings
	v.Message = worst.text() + s.origin()
	var also []string
	for _, f := range near {
		v.Details = append(v.Details, f.text()+s.origin())
		if f.signal != worst.signal && !slices.Contains(also, f.signal) {
			also = append(also, f.signal)
		}
	}
	consumers, err := c.consumers(ctx, l, worst.reading, disks, m)
	v.Details = append(v.Details, consumers...)
	switch {
	case err != nil:
		v.Message += "; who uses most is not known (see the log)"
		v.Details = append(v.Details, fmt.Sprintf("who uses most is not known: %v", err))
	case len(consumers) > 0:
		v.Message += "; most: " + strings.Join(consumers[:min(len(consumers), 2)], ", ")
	}
	if worst.huge > 0 {
		v.Message += fmt.Sprintf("; %s more are huge pages", plugin.FormatBytes(float64(worst.huge)))
	}
	if worst.activeFile > 0 {
		v.Message += fmt.Sprintf("; %s counted as used is active page cache", plugin.FormatBytes(float64(worst.activeFile)))
	}
	if len(also) > 0 {
		v.Message += "; also " + strings.Join(also, ", ")
	}
}
