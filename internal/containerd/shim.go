package containerd

import (
	"encoding/json"
	"path"
	"strings"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/internal/procfs"
)

// Bundle is the working directory of a shim: the folder of its container, or of
// the sandbox of its pod. It is "" unless it is in /run: only there is it certain
// that no disk and no mount stands behind it.
func Bundle(h *host.Root, shim int) string {
	cwd, err := procfs.Of(h, shim).WorkingDirectory()
	if err != nil || !strings.HasPrefix(cwd, "/run/") {
		return ""
	}
	return cwd
}

// ShimOwner is the container of a shim and its pod: by the name of its bundle
// and what the config.json there says of the container's cgroup, else by the
// cgroup of a process that the shim has started, for containerd removes the
// bundle of a shim that does not answer.
func ShimOwner(h *host.Root, shim int) cgroup.Owner {
	var owner cgroup.Owner
	if bundle := Bundle(h, shim); bundle != "" {
		owner = cgroup.OwnerOf("/" + path.Base(bundle))
		var spec struct {
			Linux struct {
				CgroupsPath string `json:"cgroupsPath"`
			} `json:"linux"`
		}
		if b, err := h.ReadFile(bundle + "/config.json"); err == nil && json.Unmarshal(b, &spec) == nil {
			owner.PodUID = cgroup.OwnerOf(spec.Linux.CgroupsPath).PodUID
		}
	}
	if owner.PodUID != "" {
		return owner
	}
	procfs.EachStat(h, func(s procfs.Stat) bool {
		if s.PPID == shim {
			file, _ := procfs.Of(h, s.PID).Cgroups() // a process that has just ended has none
			if of := cgroup.OwnerOfProcess(file); of.PodUID != "" {
				owner = of
			}
		}
		return owner.PodUID == ""
	})
	return owner
}
