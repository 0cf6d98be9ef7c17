package main

import (
	"fmt"
	"slices"
	"strings"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// filesystem is one of a block device, with all of its mounts.
type filesystem struct {
	kind, source string // ext4, /dev/sda1
	major, minor uint32
	options      string         // of the file system itself, not of a mount
	writable     []procfs.Mount // those that are meant to be written to
	doubtful     []procfs.Mount // read-write, of something that was mounted read-only before
	readOnly     []string       // what is mounted read-only: directories of the file system

	cause string // what has become of it, "" for nothing
}

// maxMounts bounds the mounts of one file system that are kept. A bind mount is
// one, and a node may have thousands.
const maxMounts = 100

// unwritable are the file systems that the kernel can only read. They are
// read-only themselves however they are mounted.
var unwritable = []string{"iso9660", "udf", "squashfs", "erofs", "cramfs", "romfs", "efs", "befs", "qnx4", "qnx6", "freevxfs"}

// mounted returns the file systems of block devices, in the order in which they
// were mounted first.
func mounted(h *host.Root) ([]*filesystem, error) {
	type number struct{ major, minor uint32 }
	byNumber := map[number]*filesystem{}
	var all []*filesystem
	err := procfs.EachMount(h, func(m procfs.Mount) bool {
		if !onBlockDevice(m) {
			return true
		}
		fs := byNumber[number{m.Major, m.Minor}]
		if fs == nil {
			fs = &filesystem{kind: m.Type, source: m.Source, major: m.Major, minor: m.Minor}
			byNumber[number{m.Major, m.Minor}] = fs
			all = append(all, fs)
		}
		fs.add(m)
		return true
	})
	return all, err
}

// onBlockDevice leaves out what is not a node's disk. A file system that spans
// several devices, such as btrfs, has no device number of its own (0).
func onBlockDevice(m procfs.Mount) bool {
	if slices.Contains(unwritable, m.Type) || m.Type == "devtmpfs" || m.Type == "fuse" || strings.HasPrefix(m.Type, "fuse.") {
		return false
	}
	return m.Major != 0 || strings.HasPrefix(m.Source, "/dev/")
}

// add takes one more mount, in the kernel's order, which is that of time. To
// mount a file system read-only makes the file system and the mount read-only; a
// later bind mount may be read-write, as those are which kubelet makes for the
// pods of a volume that is read-only.
func (fs *filesystem) add(m procfs.Mount) {
	fs.options = m.SuperOptions
	switch {
	case has(m.Options, "ro"):
		if len(fs.readOnly) < maxMounts && !slices.Contains(fs.readOnly, m.Root) {
			fs.readOnly = append(fs.readOnly, m.Root)
		}
	case slices.ContainsFunc(fs.readOnly, func(dir string) bool { return within(m.Root, dir) }):
		fs.doubtful = appendSome(fs.doubtful, m)
	default:
		fs.writable = appendSome(fs.writable, m)
	}
}

func appendSome(mounts []procfs.Mount, m procfs.Mount) []procfs.Mount {
	if len(mounts) >= maxMounts {
		return mounts
	}
	return append(mounts, m)
}

// within is whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// has is whether a list of mount options has that one.
func has(options, option string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// markers are options with which ext4 shows that it refuses writes: on Linux 6.18
// all of them, on 6.1 and 6.12 only "abort" of "mount -o remount,abort", on 5.10
// none.
var markers = []string{"emergency_ro", "shutdown", "abort"}

// stopped says what has become of a file system that refuses writes although
// it is meant to be written to, "" when it does not.
func (fs *filesystem) stopped(l *plugin.Look) string {
	const turned = "turned read-only"
	marked := fs.isExt4() && slices.ContainsFunc(markers, func(m string) bool { return has(fs.options, m) })
	switch {
	case len(fs.writable) > 0 && (marked || has(fs.options, "ro")):
		return turned
	case len(fs.writable) > 0 && fs.isExt4() && fs.ext4Stopped(l):
		return turned
	case len(fs.writable) == 0 && len(fs.doubtful) > 0 && fs.isExt4() && fs.ext4Stopped(l):
		fs.writable = fs.doubtful
		return turned
	}
	return ""
}

// sentence is the message for this file system.
func (fs *filesystem) sentence(l *plugin.Look) string {
	shown := fs.writable[0]
	s := fs.name() + " " + fs.cause + ": "
	for _, m := range fs.writable {
		if _, volume := cgroup.VolumeOf(m.Point); volume != "" {
			shown = m
			s += l.Mount(m.Point) + ", "
			break
		}
	}
	return s + "mounted at " + plugin.Safe(shown.Point, 160)
}

func (fs *filesystem) name() string {
	return plugin.Safe(fs.kind, 16) + " on " + plugin.Safe(fs.source, 60)
}

// details are the lines for stderr.
func (fs *filesystem) details(l *plugin.Look) []string {
	lines := []string{fmt.Sprintf("%s (%d:%d) %s; its options: %s", fs.name(), fs.major, fs.minor, fs.cause, plugin.Safe(fs.options, 200))}
	for _, m := range fs.writable[:min(len(fs.writable), 10)] {
		line := "mounted at " + plugin.Safe(m.Point, 300)
		if _, volume := cgroup.VolumeOf(m.Point); volume != "" {
			line += ": " + l.Mount(m.Point)
		}
		lines = append(lines, line)
	}
	return lines
}

// devices names some file systems.
func devices(all []*filesystem) string {
	var names []string
	for _, fs := range all[:min(len(all), 5)] {
		names = append(names, plugin.Safe(fs.source, 60))
	}
	return strings.Join(names, ", ")
}
