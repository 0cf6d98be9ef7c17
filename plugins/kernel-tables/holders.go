package main

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// holders are up to ten that hold most of a table, where that can be found
// without asking the kernel for every entry.
func (s *survey) holders(ctx context.Context, t table) []plugin.Consumer {
	var all []plugin.Consumer
	var err error
	switch t.name {
	case openFiles:
		all, err = s.named(procfs.DescriptorHolders(ctx, s.look.Host))
	case instances:
		all, err = s.named(procfs.Holders(ctx, s.look.Host, inotifyOfRoot))
	case mountsOfInit:
		all, err = s.mountDirs(ctx)
	}
	if err != nil {
		s.look.Log.Warnf("cannot name all that hold most: %v", err)
	}
	return all
}

func (s *survey) named(holders []procfs.Holder, err error) ([]plugin.Consumer, error) {
	var all []plugin.Consumer
	for _, h := range holders {
		all = append(all, plugin.Consumer{Name: s.look.Process(h.PID), Amount: float64(h.Held)})
	}
	return all, err
}

// inotifyOfRoot counts the inotify descriptors of a process of uid 0.
func inotifyOfRoot(p procfs.Process) (int, error) {
	if uid, err := p.UID(); err != nil || uid != 0 {
		return 0, err
	}
	return p.Inotify()
}

// mountDirs counts the mounts by the pod, or the directory, that they are in.
func (s *survey) mountDirs(ctx context.Context) ([]plugin.Consumer, error) {
	count := map[string]int{}
	err := procfs.EachMount(s.look.Host, func(m procfs.Mount) bool {
		count[mountDir(m.Point)]++
		return ctx.Err() == nil
	})
	dirs := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	var all []plugin.Consumer
	for _, dir := range dirs[:min(len(dirs), 10)] {
		name := s.look.Owner(cgroup.OwnerOf("pod" + path.Base(dir)))
		if name == "" {
			name = "below " + plugin.Safe(dir, 60)
		}
		all = append(all, plugin.Consumer{Name: name, Amount: float64(count[dir])})
	}
	return all, cmp.Or(err, ctx.Err())
}

// mountDir is kubelet's directory of a pod, else the first three levels of the
// directory above the mount point.
func mountDir(point string) string {
	const pods = "/pods/"
	if i := strings.Index(point, pods); i >= 0 {
		uid, _, _ := strings.Cut(point[i+len(pods):], "/")
		return point[:i] + pods + uid
	}
	levels := strings.SplitN(path.Dir(point), "/", 5)
	return cmp.Or(strings.Join(levels[:min(len(levels), 4)], "/"), "/")
}
