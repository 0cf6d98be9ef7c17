package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

const (
	// cniResults is where libcni, in every runtime, keeps the result of ADD for
	// each network of a sandbox until DEL has succeeded. The files are named
	// network-sandbox-interface. cri-dockerd has a directory of its own.
	cniResults       = "/var/lib/cni/results"
	cniResultsDocker = "/var/lib/cni/cache/results"

	// netnsDir holds the network namespaces that a runtime made. /var/run, which
	// runtimes write, is a link to /run.
	netnsDir = "/run/netns"

	// maxNames is the most names that are read of a directory.
	maxNames = 100_000

	// maxAsked bounds the sandboxes whose network namespace is asked for, and
	// askTime the time it may take.
	maxAsked = 10
	askTime  = 5 * time.Second
)

// networked are the ids of the sandboxes with a result of CNI.
func networked(h *host.Root) map[string]bool {
	ids := map[string]bool{}
	for _, dir := range []string{cniResults, cniResultsDocker} {
		names, err := h.ReadNames(dir, maxNames)
		if err != nil {
			continue // a node without a CNI plugin, or not mounted: one cause less to tell
		}
		for _, name := range names {
			if id := sandboxOfResult(name); id != "" {
				ids[id] = true
			}
		}
	}
	return ids
}

// sandboxOfResult is the id in the name of a result: the network's name may
// hold dashes, those of sandboxes and interfaces do not.
func sandboxOfResult(name string) string {
	rest, _, ok := cutLast(name)
	_, id, ok2 := cutLast(rest)
	if !ok || !ok2 {
		return ""
	}
	return id
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '-')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// teardown tells whether the network of sandboxes fails to be torn down, "" when
// nothing shows it. The runtime is asked for the namespaces of a few of them.
func teardown(ctx context.Context, h *host.Root, client *cri.Client, stuck []*sandbox, ready int, results map[string]bool) string {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	asked, left, last := stuck[:min(len(stuck), maxAsked)], 0, ""
	for _, s := range asked {
		namespace, err := client.NetworkNamespace(ctx, s.id)
		if err != nil && ctx.Err() != nil {
			break
		}
		if name, ok := strings.CutPrefix(strings.TrimPrefix(namespace, "/var"), netnsDir+"/"); ok && name != "" {
			if _, err := h.Stat(path.Join(netnsDir, name)); err == nil {
				left, last = left+1, name
			}
		}
	}
	if left > 0 {
		atLeast := ""
		if len(asked) < len(stuck) {
			// Each ready sandbox has one namespace at most, the others belong to those that are not ready.
			left = max(left, min(len(namesLike(h, last))-ready, len(stuck)))
			atLeast = "at least "
		}
		return fmt.Sprintf("network teardown fails: %s%s left in %s", atLeast, plugin.Count(left, "namespace"), netnsDir)
	}
	for _, s := range stuck {
		if results[s.id] {
			left++
		}
	}
	if left > 0 {
		return fmt.Sprintf("network teardown fails: %d CNI results left in %s", left, cniResults)
	}
	return ""
}

// namesLike are the network namespaces that the runtime made, going by the name
// of one: containerd's begin with "cni-", and what "ip netns add" made does not.
func namesLike(h *host.Root, one string) []string {
	names, _ := h.ReadNames(netnsDir, maxNames)
	cni := strings.HasPrefix(one, "cni-")
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "cni-") != cni })
}
