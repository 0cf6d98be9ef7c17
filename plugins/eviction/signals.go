package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// read computes the signals that have a threshold, as kubelet v1.37.2 does
// (makeSignalObservations in pkg/kubelet/eviction/helpers.go, from the numbers
// of pkg/kubelet/server/stats/summary.go).
func (c *check) read(l *plugin.Look, disks *fileSystems, m memory) (readings []reading) {
	s := m.Settings
	if s.needs("memory") {
		readings = append(readings, readMemory(l.Host, m.Huge))
		if s.Pods {
			if r, ok := readPods(l.Host, s.CgroupRoot); ok {
				readings = append(readings, r)
			}
		}
	}
	var dirs []string
	var images imageDirs
	if s.needs("nodefs") {
		dirs = append(dirs, c.kubeletDir)
	}
	if s.needs("imagefs") {
		images = c.images(l, disks, m)
		dirs = append(dirs, images.Image, images.Container)
	}
	disks.ask(dirs...)
	if s.needs("nodefs") {
		readings = append(readings, disks.readings("nodefs", c.kubeletDir, s)...)
	}
	if s.needs("imagefs") {
		readings = append(readings, disks.readings("imagefs", images.Image, s)...)
	}
	if images.Container != "" && disks.differ(images) {
		readings = append(readings, disks.readings("containerfs", images.Container, s)...)
	}
	if s.needs("pid") {
		readings = append(readings, c.readPIDs(l.Host))
	}
	return readings
}

// readMemory is memory.available: the memory of the node without the working
// set of the root cgroup, which is its usage without the inactive page cache
// (setMemoryStats in container/libcontainer/handler.go of cAdvisor v0.56.2;
// the capacity in container/raw/handler.go is MemTotal).
//
// The usage is memory.usage_in_bytes on cgroup v1, where the kernel makes it of
// page cache and mapped anonymous pages of all cgroups. On v2 the root has no
// memory.current, and it is anon + file of memory.stat (rootStatsFromMeminfo in
// fs2/memory.go of github.com/opencontainers/cgroups v0.0.6, and of runc since
// 1.1.8). kubelet 1.28 and earlier, with runc 1.1.7, took MemTotal - MemFree
// there, which counts the kernel's own memory too.
//
// huge says whether kubelet takes huge pages off what is available. They are in
// MemTotal and in no cgroup's usage. Its capacity is then what is available and
// what is used (makeMemoryAvailableSignalObservation in eviction/helpers.go).
func readMemory(h *host.Root, huge *bool) reading {
	r := reading{signal: "memory.available"}
	hierarchy, err := cgroup.Hierarchy(h, "memory")
	if err == nil {
		err = cgroup.NeedRoot(h, hierarchy)
	}
	if err != nil {
		r.err = err
		return r
	}
	b, err := h.ReadFile("/proc/meminfo")
	if err != nil {
		r.err = fmt.Errorf("%w: mount the host's /proc there, or set --host-root", err)
		return r
	}
	total, ok := procfs.Counter(b, "MemTotal:")
	if !ok || total == 0 || total > 1<<50 {
		r.err = errors.New("/proc/meminfo: no MemTotal")
		return r
	}
	r.capacity = total << 10
	var used uint64
	used, r.activeFile, r.err = workingSet(h, hierarchy, "/")
	r.available = r.capacity - min(used, r.capacity)
	switch pages, _ := procfs.Counter(b, "Hugetlb:"); {
	case pages == 0:
	case huge == nil:
		r.unsure = pages << 10
	case *huge:
		r.huge = pages << 10
		r.available -= min(r.huge, r.available)
		r.capacity = r.available + used
	}
	return r
}

// workingSet is what a cgroup uses without its inactive page cache, and the
// active page cache that is in it, in bytes.
func workingSet(h *host.Root, hierarchy, name string) (used, active uint64, err error) {
	dir := path.Join(hierarchy, name)
	stat, err := h.ReadFile(dir + "/memory.stat")
	if err != nil {
		return 0, 0, err
	}
	v2 := cgroup.IsV2(hierarchy)
	prefix, file := "total_", "memory.usage_in_bytes"
	if v2 {
		prefix, file = "", "memory.current"
	}
	if v2 && name == "/" {
		anon, hasAnon := procfs.Counter(stat, "anon")
		cache, hasCache := procfs.Counter(stat, "file")
		if !hasAnon || !hasCache {
			return 0, 0, fmt.Errorf("%s/memory.stat: no anon and file in it", h.Path(dir))
		}
		used = anon + cache
	} else if used, _, err = h.ReadUint(dir + "/" + file); err != nil {
		return 0, 0, err
	}
	inactive, _ := procfs.Counter(stat, prefix+"inactive_file")
	active, _ = procfs.Counter(stat, prefix+"active_file")
	return used - min(inactive, used), active, nil
}

// readPods is allocatableMemory.available, by which kubelet evicts too: the
// memory limit of the cgroup of all pods without its working set. The limit is
// what the node has without kubeReserved and systemReserved. ok is false
// without such a cgroup or limit.
func readPods(h *host.Root, root string) (r reading, ok bool) {
	hierarchy, err := cgroup.Hierarchy(h, "memory")
	if err != nil {
		return r, false
	}
	file := "memory.limit_in_bytes"
	if cgroup.IsV2(hierarchy) {
		file = "memory.max"
	}
	const unlimited = 1 << 62 // isMemoryUnlimited in pkg/kubelet/stats/helper.go
	for _, name := range []string{path.Join("/", root, "kubepods"), path.Join("/", root, "kubepods.slice")} {
		limit, limited, err := h.ReadUint(hierarchy + name + "/" + file)
		if err != nil || !limited || limit > unlimited {
			continue
		}
		r = reading{signal: allocatable, what: name, capacity: limit}
		var used uint64
		used, r.activeFile, r.err = workingSet(h, hierarchy, name)
		r.available = limit - min(used, limit)
		return r, true
	}
	return r, false
}

// readPIDs is pid.available: the smaller of kernel.pid_max and
// kernel.threads-max without the tasks there are
// (pkg/kubelet/stats/pidlimit/pidlimit_linux.go).
func (c *check) readPIDs(h *host.Root) reading {
	r := reading{signal: "pid.available"}
	limit, err := procfs.TaskLimit(h, uint64(c.pidMax))
	if errors.Is(err, procfs.ErrForeignNamespace) {
		err = fmt.Errorf("%w: run with hostPID: true, or tell it with --pid-max", err)
	}
	tasks := 0
	if err == nil {
		tasks, err = procfs.Tasks(h)
	}
	r.err = err
	r.capacity = limit.Tasks
	r.available = limit.Tasks - min(uint64(tasks), limit.Tasks)
	return r
}

// fileSystems asks for the file systems at directories of the node, each once
// in a look.
type fileSystems struct {
	ctx   context.Context
	host  *host.Root
	known map[string]apart.FileSystem
}

// ask asks for all of the directories at once.
func (d *fileSystems) ask(dirs ...string) {
	var unknown []string
	for _, dir := range dirs {
		if _, ok := d.known[dir]; !ok && dir != "" && !slices.Contains(unknown, dir) {
			unknown = append(unknown, dir)
		}
	}
	if len(unknown) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, callTime)
	defer cancel()
	answers, err := apart.Statfs(ctx, d.host, unknown)
	for i, dir := range unknown {
		if err != nil {
			d.known[dir] = apart.FileSystem{Err: err}
		} else {
			d.known[dir] = answers[i]
		}
	}
}

func (d *fileSystems) of(dir string) apart.FileSystem {
	d.ask(dir)
	return d.known[dir]
}

// hangs is the error of a directory whose file system does not answer, and nil
// for others. Nothing below it may be opened by this process.
func (d *fileSystems) hangs(dir string) error {
	err := d.of(dir).Err
	if errors.Is(err, apart.ErrHangs) || errors.Is(err, apart.ErrStuck) {
		return fmt.Errorf("statfs of %s: %w", dir, err)
	}
	return nil
}

// mend is the flag that names the directory of a file system.
var mend = map[string]string{"nodefs": "--kubelet-dir", "imagefs": "--image-dir", "containerfs": "--image-dir"}

// readings are the signals of one file system that have a threshold. kubelet
// takes what statfs(2) says is available to users other than root, and all
// free inodes (fs/vfs/stats.go of cAdvisor v0.56.2).
func (d *fileSystems) readings(name, dir string, s *settings) (readings []reading) {
	disk := d.of(dir)
	err := disk.Err
	switch {
	case dir == "":
		err = errors.New("no container shows where the images are, and they are not where runtimes have them: mount that, or set --image-dir")
	case host.Gone(err):
		err = fmt.Errorf("%w: mount it, or set %s", err, mend[name])
	case err != nil:
		err = fmt.Errorf("statfs of %s: %w", dir, err)
	}
	for _, r := range []reading{
		{signal: name + ".available", available: disk.Available, capacity: disk.Size},
		{signal: name + ".inodesFree", available: disk.InodesFree, capacity: disk.Inodes},
	} {
		if s.needs(thresholdSignal(r.signal)) {
			r.what, r.err = dir, err
			readings = append(readings, r)
		}
	}
	return readings
}

// differ says whether the images and the containers' own layers are on
// different file systems. Like kubelet (equalFileSystems in
// pkg/kubelet/stats/provider.go) it tells by the numbers, which change while
// they are asked for.
func (d *fileSystems) differ(dirs imageDirs) bool {
	image, container := d.of(dirs.Image), d.of(dirs.Container)
	slack := image.Size / 100
	return image.Err == nil && (image.Size != container.Size || image.Inodes != container.Inodes ||
		container.Available > image.Available+slack || image.Available > container.Available+slack)
}

// needs says whether there is a threshold for the signal, or for one of the
// signals of that kind ("nodefs").
func (s *settings) needs(kind string) bool {
	return slices.ContainsFunc(s.Thresholds, func(t threshold) bool {
		return t.Signal == kind || strings.HasPrefix(t.Signal, kind+".")
	})
}
