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

// ShimOwner is the container of a shim, by the name of its bundle, and its pod,
// by what the config.json there says of the container's cgroup.
func ShimOwner(h *host.Root, shim int) cgroup.Owner {
	bundle := Bundle(h, shim)
	if bundle == "" {
		return cgroup.Owner{}
	}
	owner := cgroup.OwnerOf("/" + path.Base(bundle))
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if b, err := h.ReadFile(bundle + "/config.json"); err == nil && json.Unmarshal(b, &spec) == nil {
		owner.PodUID = cgroup.OwnerOf(spec.Linux.CgroupsPath).PodUID
	}
	return owner
}
