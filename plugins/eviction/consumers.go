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

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/plugin"
)

// maxConsumers is how many are named.
const maxConsumers = 10

// consumers names those that use most of what a signal measures.
func (c *check) consumers(ctx context.Context, l *plugin.Look, r reading, disks *fileSystems) ([]string, error) {
	switch r.signal {
	case "pid.available":
		usage, err := cgroupUsage(ctx, l, "pids", func(hierarchy, name string) (uint64, error) {
			n, _, err := l.Host.ReadUint(hierarchy + name + "/pids.current")
			return n, err
		})
		return ranked(usage, number), err
	case "memory.available", allocatable:
		usage, err := cgroupUsage(ctx, l, "memory", func(hierarchy, name string) (uint64, error) {
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
	if isInodes(r.signal) {
		return ranked(s.usage(r, inodesUsed), func(n uint64) string { return number(n) + " inodes" }), nil
	}
	return ranked(s.usage(r, bytesUsed), size), nil
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
// children and is no pod's. It ends with the context.
func cgroupUsage(ctx context.Context, l *plugin.Look, controller string, read func(hierarchy, name string) (uint64, error)) (map[string]uint64, error) {
	hierarchy, err := cgroup.Hierarchy(l.Host, controller)
	if err != nil {
		return nil, err
	}
	usage := map[string]uint64{}
	err = cgroup.Walk(l.Host, hierarchy, func(name string) bool {
		if ctx.Err() != nil {
			return false
		}
		delete(usage, path.Dir(name))
		if n, err := read(hierarchy, name); err == nil && name != "/" {
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
