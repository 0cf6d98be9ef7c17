// Package cgroup finds a node's cgroups and what they count, in the layouts of
// cgroup v1, hybrid and v2, and tells which pod and container a cgroup is.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"npd-plugins/internal/host"
)

const mount = "/sys/fs/cgroup"

// maxCgroups bounds a walk; tests lower it. A node has some five for a pod and
// a hundred for its services.
var maxCgroups = 20000

// Hierarchy is the directory on the host under which a controller counts:
// /sys/fs/cgroup on v2, /sys/fs/cgroup/<controller> on v1 and hybrid.
func Hierarchy(h *host.Root, controller string) (string, error) {
	b, err := h.ReadFile(mount + "/cgroup.controllers")
	if err == nil {
		for _, c := range strings.Fields(string(b)) {
			if c == controller {
				return mount, nil
			}
		}
		return "", fmt.Errorf("the %s controller is not among those of %s", controller, h.Path(mount))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	dir := mount + "/" + controller
	if _, err := h.Stat(dir + "/cgroup.procs"); err != nil {
		return "", fmt.Errorf("no cgroups with the %s controller: mount the host's /sys/fs/cgroup at %s", controller, h.Path(mount))
	}
	return dir, nil
}

// Walk visits the cgroups below a hierarchy, parents first. The name is the
// path below the hierarchy ("/system.slice/kubelet.service"). It descends
// where visit says true.
func Walk(h *host.Root, hierarchy string, visit func(name string) (descend bool)) error {
	queue := []string{"/"}
	for seen := 0; len(queue) > 0; seen++ {
		if seen == maxCgroups {
			return fmt.Errorf("more than %d cgroups", maxCgroups)
		}
		name := queue[0]
		queue = queue[1:]
		if !visit(name) {
			continue
		}
		children, err := subdirectories(h, hierarchy+name)
		if err != nil && name == "/" {
			return err
		}
		for _, child := range children { // none when the cgroup has gone meanwhile
			queue = append(queue, path.Join(name, child))
		}
	}
	return nil
}

func subdirectories(h *host.Root, dir string) ([]string, error) {
	d, err := h.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}
