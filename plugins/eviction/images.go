package main

import (
	"errors"
	"path"
	"strings"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/procfs"
)

// imageDirs are directories of the node on the file systems that hold the
// images' layers and the containers' own. They are the same unless the runtime
// splits them, as CRI-O can.
type imageDirs struct{ Image, Container string }

// usual are where runtimes have their images unless told otherwise, for a node
// on which no container shows it.
var usual = distribution.Every(func(d *distribution.Distribution) []string { return []string{d.Storage} })

// findImages looks where the layers of a container are. kubelet asks the
// runtime for the directory (ImageFsInfo, in ImageFsStats of
// pkg/kubelet/stats/cri_stats_provider.go). The mounts of a container name the
// same file system, and cannot hang; a gRPC client would double the CPU of this
// check, which starts two processes.
func findImages(h *host.Root) (*imageDirs, error) {
	var found *imageDirs
	err := procfs.EachMount(h, func(m procfs.Mount) bool {
		if m.Type == "overlay" && isContainer(m.Point) {
			found = layersOf(m.SuperOptions)
		}
		return found == nil
	})
	if found == nil && err == nil {
		err = errors.New("no container with overlay layers is mounted")
	}
	return found, err
}

// isContainer says whether a container of a pod is mounted there: by a shim of
// containerd (any version of its runtime), or by CRI-O or Docker.
func isContainer(point string) bool {
	return strings.Contains(point, "/io.containerd.runtime.") && strings.Contains(point, "/k8s.io/") || path.Base(point) == "merged"
}

// layersOf reads the options of an overlay mount. Layers are at
// <directory>/<one>/<layer>, with short links to them at <directory>/l/<link>.
// It is nil when a path is missing or not absolute (containerd shortens those
// of the images when they are many).
func layersOf(options string) *imageDirs {
	var dirs imageDirs
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		if !path.IsAbs(value) {
			continue
		}
		switch key {
		case "upperdir":
			dirs.Container = path.Dir(path.Dir(value))
		case "lowerdir", "lowerdir+": // the latter since Linux 6.8
			value, _, _ = strings.Cut(value, ":")
			if dirs.Image == "" {
				dirs.Image = path.Dir(path.Dir(value))
			}
		}
	}
	if dirs.Image == "" || dirs.Container == "" {
		return nil
	}
	return &dirs
}

// images is where the images are, as far as it is known. Image is "" when it
// is not.
func (c *check) images(l *plugin.Look, disks *fileSystems, m memory) imageDirs {
	switch {
	case c.imageDir != "":
		return imageDirs{Image: c.imageDir}
	case m.Images != nil:
		return *m.Images
	}
	disks.ask(append([]string{c.kubeletDir}, usual...)...)
	for _, dir := range usual {
		if disks.of(dir).Err == nil {
			l.Log.Infof("taking %s for where the images are", dir)
			return imageDirs{Image: dir}
		}
	}
	return imageDirs{}
}
