package main

import (
	"errors"
	"path"
	"regexp"
	"slices"
	"strings"

	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
)

// mount is one that directories of the runtime or kubelet are on.
type mount struct {
	point string
	disks []procfs.Disk // that have statistics: what is mounted, and all that stands behind
}

var errNoDisk = errors.New("no disk with statistics is behind them (ZFS, tmpfs and network file systems have none); set --dirs")

// findMounts finds the mounts that the directories are on, each once, and their
// disks. It goes by the table of mounts alone: to look at a directory on a disk
// that hangs is to hang. So a directory that is a symlink is taken to be where
// the link is.
func findMounts(h *host.Root, dirs []string, disks []procfs.Disk) ([]mount, error) {
	var all []procfs.Mount
	if err := procfs.EachMount(h, func(m procfs.Mount) bool { all = append(all, m); return true }); err != nil {
		return nil, err
	}
	f := finder{h, all, disks}
	var found []mount
	for _, dir := range dirs {
		m, ok := f.over(path.Clean("/" + strings.TrimSpace(dir)))
		if !ok || slices.ContainsFunc(found, func(other mount) bool { return other.point == m.Point }) {
			continue
		}
		if behind := f.behind(f.device(m, 0)); len(behind) > 0 {
			found = append(found, mount{m.Point, behind})
		}
	}
	if len(found) == 0 {
		return nil, errNoDisk
	}
	return found, nil
}

type finder struct {
	host   *host.Root
	mounts []procfs.Mount
	disks  []procfs.Disk
}

// over is the mount that a path is on: the one with the longest mount point, and
// the last of those.
func (f finder) over(file string) (m procfs.Mount, ok bool) {
	for _, candidate := range f.mounts {
		within := candidate.Point == "/" || file == candidate.Point || strings.HasPrefix(file, candidate.Point+"/")
		if within && len(candidate.Point) >= len(m.Point) {
			m, ok = candidate, true
		}
	}
	return m, ok
}

// device names the block device of a mount, "" when it has none. An overlay, as
// under kind, is where its upper directory is.
func (f finder) device(m procfs.Mount, depth int) string {
	if m.Type == "overlay" && depth < 3 {
		for option := range strings.SplitSeq(m.SuperOptions, ",") {
			if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
				if below, ok := f.over(upper); ok {
					return f.device(below, depth+1)
				}
			}
		}
		return ""
	}
	for _, d := range f.disks {
		if m.Major != 0 && d.Major == m.Major && d.Minor == m.Minor {
			return d.Name
		}
	}
	// The device number of btrfs is of no device; its source is the first of them.
	source, ok := strings.CutPrefix(m.Source, "/dev/")
	if !ok {
		return ""
	}
	for _, d := range f.disks {
		if d.Name == source || strings.HasPrefix(d.Name, "dm-") && "mapper/"+f.line("/sys/class/block/"+d.Name+"/dm/name") == source {
			return d.Name
		}
	}
	return ""
}

func (f finder) line(file string) string {
	b, _ := f.host.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// maxDisks bounds how many devices are looked for behind one.
const maxDisks = 64

// behind returns the device and all that its requests go to: the other devices
// of a btrfs, the disk of a partition, the slaves of a device mapper or md
// device, the paths of an NVMe disk. Those without statistics, as md before
// Linux 5.12, are left out.
func (f finder) behind(device string) []procfs.Disk {
	names := []string{device}
	if device == "" {
		return nil
	}
	for i := 0; i < len(names) && len(names) < maxDisks; i++ {
		for _, next := range f.next(names[i]) {
			if !slices.Contains(names, next) {
				names = append(names, next)
			}
		}
	}
	var found []procfs.Disk
	for _, d := range f.disks {
		if slices.Contains(names, d.Name) && (d.Requests > 0 || d.InFlight > 0) {
			found = append(found, d)
		}
	}
	return found
}

// nvmeDisk is the name of an NVMe disk; that of a path to it is nvme0c1n1.
var nvmeDisk = regexp.MustCompile(`^nvme(\d+)n(\d+)$`)

func (f finder) next(device string) []string {
	dir := "/sys/class/block/" + device
	next, _ := f.host.ReadNames(dir+"/slaves", maxDisks) // a partition has none
	// The link leads to .../block/sda, or for a partition to .../block/sda/sda1.
	if link, err := f.host.Readlink(dir); err == nil {
		if parent := path.Base(path.Dir(link)); parent != "block" && slices.ContainsFunc(f.disks, func(d procfs.Disk) bool { return d.Name == parent }) {
			next = append(next, parent)
		}
	}
	if m := nvmeDisk.FindStringSubmatch(device); m != nil {
		for _, d := range f.disks {
			if strings.HasPrefix(d.Name, "nvme"+m[1]+"c") && strings.HasSuffix(d.Name, "n"+m[2]) {
				next = append(next, d.Name)
			}
		}
	}
	return append(next, f.btrfs(device)...)
}

// btrfs returns the devices of the btrfs that this one is part of.
func (f finder) btrfs(device string) []string {
	const dir = "/sys/fs/btrfs"
	systems, _ := f.host.ReadNames(dir, maxDisks) // not there without btrfs
	for _, system := range systems {
		if devices, _ := f.host.ReadNames(dir+"/"+system+"/devices", maxDisks); slices.Contains(devices, device) {
			return devices
		}
	}
	return nil
}
