package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/plugin"
)

// maxConsumers is how many are named.
const maxConsumers = 10

// consumers names those that use most of what a signal measures.
func (c *check) consumers(ctx context.Context, l *plugin.Look, r reading, disks *fileSystems, m *memory) ([]string, error) {
	switch r.signal {
	case "pid.available":
		usage, err := cgroupUsage(ctx, l, "pids", "/", func(hierarchy, name string) (uint64, error) {
			n, _, err := l.Host.ReadUint(hierarchy + name + "/pids.current")
			return n, err
		})
		return ranked(usage, number), err
	case "memory.available", allocatable:
		below := "/"
		if r.signal == allocatable {
			below = r.what // what runs outside of pods does not count
		}
		usage, err := cgroupUsage(ctx, l, "memory", below, func(hierarchy, name string) (uint64, error) {
			n, _, err := workingSet(l.Host, hierarchy, name)
			return n, err
		})
		return ranked(usage, size), err
	}
	if err := disks.hangs(c.kubeletDir); err != nil {
		return nil, err // kubelet's certificate is there
	}
	s, err := c.askSummary(ctx, l)
	if err != nil {
		return nil, err
	}
	of, amount, onDisk := bytesUsed, size, func(d apart.Directory) uint64 { return d.Bytes }
	if isInodes(r.signal) {
		of, amount, onDisk = inodesUsed, func(n uint64) string { return number(n) + " inodes" }, func(d apart.Directory) uint64 { return d.Inodes }
	}
	usage := s.usage(r, of)
	lines := ranked(usage, amount)
	used, known := r.capacity-min(r.available, r.capacity), uint64(0)
	for _, n := range usage {
		known += n
	}
	if known < used/others {
		if m.Outside.Signal != r.signal || !fresh(l.Now, m.Outside.At) {
			m.Outside = outside{r.signal, c.outsideOfPods(ctx, l, r, disks, onDisk, amount, known), l.Now.Unix()}
		}
		lines = append([]string{m.Outside.Line}, lines...)
	}
	return lines, nil
}

// outside is who fills a disk and is no pod, as far as a look at its directories
// tells. That takes a tenth of a second of CPU, so it is good for ten minutes.
type outside struct {
	Signal, Line string
	At           int64 // seconds since 1970
}

// others is the part of a disk's use that pods and images hold at least, one of
// so many, to be named as those that use most.
const others = 20

// outsideOfPods names who uses a disk when pods and images hold next to nothing
// of it: a bounded look at its directories, in a process that may hang. What
// kubelet has counted as the pods' is left out.
func (c *check) outsideOfPods(ctx context.Context, l *plugin.Look, r reading, disks *fileSystems,
	of func(apart.Directory) uint64, amount func(uint64) string, known uint64) string {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	// Where not all of the node is mounted, some directory above has the same file system.
	tree := apart.Tree{Dir: r.what, Skip: []string{path.Join(c.kubeletDir, "pods"), "/var/log/pods"}}
	for dir := r.what; ; dir = path.Dir(dir) {
		tree.Starts = append([]string{dir}, tree.Starts...)
		if dir == "/" {
			break
		}
	}
	directories, err := apart.Largest(ctx, l.Host, tree)
	if err != nil {
		l.Log.Warnf("the largest directories are not known: %v", err)
	}
	slices.SortStableFunc(directories, func(a, b apart.Directory) int { return cmp.Compare(of(b), of(a)) })
	if len(directories) == 0 || of(directories[0]) <= known {
		return "neither pods nor images, which hold " + amount(known)
	}
	d := directories[0]
	return fmt.Sprintf("%s %s or more, outside of pods", plugin.Safe(d.Path, 60), amount(of(d)))
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func size(n uint64) string { return plugin.FormatBytes(float64(n)) }

// ranked writes the consumers, the biggest first.
func ranked(usage map[string]uint64, amount func(uint64) string) []string {
	names := slices.SortedFunc(maps.Keys(usage), func(a, b string) int {
		return cmp.Or(cmp.Compare(usage[b], usage[a]), cmp.Compare(a, b))
	})
	var lines []string
	for _, name := range names[:min(len(names), maxConsumers)] {
		if usage[name] > 0 {
			lines = append(lines, name+" "+amount(usage[name]))
		}
	}
	return lines
}

// cgroupUsage reads a number of each pod, and of each cgroup that has no
// children and is no pod's, below a cgroup. It ends with the context.
func cgroupUsage(ctx context.Context, l *plugin.Look, controller, below string, read func(hierarchy, name string) (uint64, error)) (map[string]uint64, error) {
	hierarchy, err := cgroup.Hierarchy(l.Host, controller)
	if err != nil {
		return nil, err
	}
	usage := map[string]uint64{}
	err = cgroup.Walk(l.Host, path.Join(hierarchy, below), func(name string) bool {
		if ctx.Err() != nil {
			return false
		}
		name = path.Join(below, name)
		delete(usage, path.Dir(name))
		if n, err := read(hierarchy, name); err == nil && name != below {
			usage[name] = n
		}
		return cgroup.OwnerOf(name) == cgroup.Owner{}
	})
	named := map[string]uint64{}
	for name, n := range usage {
		label := name
		if owner := cgroup.OwnerOf(name); owner != (cgroup.Owner{}) {
			label = l.Owner(owner)
		}
		named[plugin.Safe(label, 70)] += n
	}
	return named, err
}

// summary is what kubelet's /stats/summary says of disks
// (k8s.io/kubelet/pkg/apis/stats/v1alpha1). kubelet makes one for itself every
// ten seconds, to decide on evictions. Nobody else knows what a pod's volumes
// and logs take without walking through them.
type summary struct {
	Node struct {
		Fs      diskUsage `json:"fs"`
		Runtime struct {
			ImageFs diskUsage `json:"imageFs"`
		} `json:"runtime"`
	} `json:"node"`
	Pods []struct {
		Ref struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"podRef"`
		All        diskUsage `json:"ephemeral-storage"` // containers' layers, logs, emptyDirs
		Containers []struct {
			Layer diskUsage `json:"rootfs"`
		} `json:"containers"`
	} `json:"pods"`
}

type diskUsage struct {
	Capacity   uint64 `json:"capacityBytes"`
	Inodes     uint64 `json:"inodes"`
	UsedBytes  uint64 `json:"usedBytes"`
	InodesUsed uint64 `json:"inodesUsed"`
}

func bytesUsed(d diskUsage) uint64  { return d.UsedBytes }
func inodesUsed(d diskUsage) uint64 { return d.InodesUsed }

func (c *check) askSummary(ctx context.Context, l *plugin.Look) (*summary, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	client, err := c.access.Open(l.Host)
	if err != nil {
		return nil, err
	}
	b, err := client.Get(ctx, "/stats/summary")
	if err != nil {
		return nil, err
	}
	s := new(summary)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("kubelet's /stats/summary: %w", err)
	}
	return s, nil
}

// usage is what each pod, and what the images, take of the file system of a
// signal.
func (s *summary) usage(r reading, of func(diskUsage) uint64) map[string]uint64 {
	node, image := s.Node.Fs, s.Node.Runtime.ImageFs
	shared := node.Capacity == image.Capacity && node.Inodes == image.Inodes
	usage := map[string]uint64{}
	for _, p := range s.Pods {
		name := plugin.Safe("pod "+p.Ref.Namespace+"/"+p.Ref.Name, 100)
		var layers uint64
		for _, c := range p.Containers {
			layers += of(c.Layer)
		}
		switch {
		case shared:
			usage[name] = of(p.All)
		case strings.HasPrefix(r.signal, "nodefs."):
			usage[name] = of(p.All) - min(layers, of(p.All))
		default:
			usage[name] = layers
		}
	}
	if shared || !strings.HasPrefix(r.signal, "nodefs.") {
		usage["images and containers' layers"] = of(image)
	}
	return usage
}
