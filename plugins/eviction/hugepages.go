package main

import (
	"context"

	"npd-plugins/internal/host"
	"npd-plugins/internal/kubelet"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// gate is the feature gate with which kubelet takes the node's huge pages, used
// or not, off memory.available: on since 1.37, absent before
// (adjustForHugePages in pkg/kubelet/server/stats/summary.go).
const gate = "HugepageAwareEviction"

// gates is the series of kubelet's metrics with its feature gates, 1.26 and later.
const gates = "kubernetes_feature_enabled"

// hugePages is how many bytes of the node's memory are huge pages, of all sizes:
// Hugetlb of /proc/meminfo, Linux 4.16 and later. kubelet adds up nr_hugepages of
// /sys/kernel/mm/hugepages.
func hugePages(h *host.Root) uint64 {
	b, err := h.ReadFile("/proc/meminfo")
	if err != nil {
		return 0 // readMemory tells
	}
	n, _ := procfs.Counter(b, "Hugetlb:")
	return n << 10
}

// askHugePages asks kubelet whether it takes huge pages off: its metrics say.
func (c *check) askHugePages(ctx context.Context, l *plugin.Look) (*bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	client, err := c.access.Open(l.Host)
	if err != nil {
		return nil, err
	}
	var on, since, named bool
	err = client.Metrics(ctx, callTime, []string{gates, kubelet.BuildInfo}, func(s kubelet.Sample) error {
		switch {
		case s.Name == kubelet.BuildInfo:
			since = kubelet.SinceMinor(s, 37)
		case s.Labels["name"] == gate:
			named, on = true, s.Value == 1
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !named { // before there was the gate, or after it has gone and the feature stays
		on = since
	}
	return &on, nil
}
