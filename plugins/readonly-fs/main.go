// Command readonly-fs tells of file systems that the kernel turned read-only,
// or shut down, after an error: kubelet, the runtime and pods can no longer
// write to them.
package main

import (
	"context"
	"fmt"
	"time"

	"npd-plugins/internal/plugin"
)

func main() {
	plugin.Main(plugin.Check{
		Name:      "readonly-fs",
		Condition: "FilesystemRemountedReadOnly",
		Purpose: "After an error of the disk or in its own structures a file system refuses to be written to, and what needs it fails: containers do not start, logs end, databases stop.\n" +
			"Looks for file systems of block devices that are read-only although they are mounted read-write, for ext4 that stopped without showing it, and for XFS that has shut down.",
		Reads: []string{"/proc/1/mountinfo", "/sys/dev/block (names of devices), /sys/fs/ext4, /proc/fs/ext4", "the mount points of XFS, which a process apart opens", "only after an error of ext4: /proc/*/stat, /proc/uptime",
			"/var/log/pods (names of pods)"},
		Needs: "the host's /proc and /sys below --host-root; for XFS also the host's mounts (mountPropagation: HostToContainer)",
		LookAlikes: "what was mounted read-only: volumes, images, bind mounts; ISO 9660, UDF, squashfs, erofs and others that cannot be written to; read-only snapshots of btrfs; " +
			"ext4 with errors from an earlier mount, or that goes on after errors",
		Example:          "--host-root=/host",
		FailureThreshold: 1,
		Timeout:          8 * time.Second,
		Look:             look,
	})
}

func look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	all, err := mounted(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot list mounts: %v", err)
	}
	var bad []*filesystem
	for _, fs := range all {
		if fs.cause = fs.stopped(l); fs.cause != "" {
			bad = append(bad, fs)
		}
	}
	bad = append(bad, shutDown(ctx, l, all)...)

	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "filesystems_readonly", Value: float64(len(bad)), Unit: "filesystems"},
		{Name: "filesystems", Value: float64(len(all)), Unit: "filesystems"},
	}}
	if len(bad) == 0 {
		v.Message = fmt.Sprintf("none of %d file systems of block devices turned read-only", len(all))
		return v
	}
	v.Status = plugin.Problem
	v.Message = bad[0].sentence(l)
	if n := len(bad) - 1; n > 0 {
		v.Message = fmt.Sprintf("%s; and %d more: %s", v.Message, n, devices(bad[1:]))
	}
	for _, fs := range bad[:min(len(bad), 10)] {
		v.Details = append(v.Details, fs.details(l)...)
	}
	return v
}
