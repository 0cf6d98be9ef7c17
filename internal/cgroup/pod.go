package cgroup

import (
	"bytes"
	"strings"

	"npd-plugins/internal/host"
)

// Owner is the pod and the container that a cgroup belongs to, as far as its
// path says.
type Owner struct {
	PodUID    string // with dashes; for a static pod the 32 digits of its hash
	Container string // 64 hex digits
}

// OwnerOf reads the path of a cgroup, in the forms of kubelet's cgroupfs and
// systemd drivers (pkg/kubelet/cm/cgroup_manager_linux.go) and of containerd,
// CRI-O and Docker below them:
//
//	/kubepods/burstable/pod<uid>/<id>
//	/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid_>.slice/cri-containerd-<id>.scope
//	/docker/<id>, /system.slice/docker-<id>.scope
func OwnerOf(name string) Owner {
	var o Owner
	name = strings.TrimSuffix(name, " (deleted)") // the kernel's word for a removed cgroup in /proc/PID/cgroup
	for part := range strings.SplitSeq(name, "/") {
		part = strings.TrimSuffix(strings.TrimSuffix(part, ".scope"), ".slice")
		if i := strings.LastIndex(part, "pod"); i >= 0 && (i == 0 || part[i-1] == '-') {
			if uid := part[i+3:]; isUID(uid) {
				o.PodUID = strings.ReplaceAll(uid, "_", "-")
				continue
			}
		}
		// runc with the systemd path form but without systemd: "<slice>:cri-containerd:<id>"
		if i := strings.LastIndexAny(part, "-:"); i >= 0 {
			if o.PodUID == "" && part[i] == ':' {
				if slice, _, ok := strings.Cut(part, ".slice:"); ok {
					o.PodUID = OwnerOf(slice).PodUID
				}
			}
			part = part[i+1:]
		}
		if len(part) == 64 && isHex(part) {
			o.Container = part
		}
	}
	return o
}

func isUID(s string) bool {
	switch len(s) {
	case 32:
		return isHex(s)
	case 36:
		return isHex(strings.NewReplacer("-", "", "_", "").Replace(s))
	}
	return false
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// OwnerOfProcess reads a /proc/PID/cgroup file, in which any of the
// hierarchies may name the pod.
func OwnerOfProcess(file []byte) Owner {
	var o Owner
	for line := range bytes.Lines(file) {
		if _, rest, ok := strings.Cut(strings.TrimSpace(string(line)), ":"); ok {
			if _, name, ok := strings.Cut(rest, ":"); ok {
				if found := OwnerOf(name); found.PodUID != "" || o == (Owner{}) {
					o = found
				}
				if o.PodUID != "" && o.Container != "" {
					break
				}
			}
		}
	}
	return o
}

// logs is kubelet's directory of pod logs, with a folder
// <namespace>_<name>_<uid> for each pod (pkg/kubelet/kuberuntime/helpers.go).
const logs = "/var/log/pods"

// Name names the owner for a message: "pod <namespace>/<name>" where
// kubelet's log directory tells it, else "pod <uid>"; for a container outside
// of pods the first digits of its id; "" for neither.
func (o Owner) Name(h *host.Root) string {
	if o.PodUID == "" {
		if o.Container == "" {
			return ""
		}
		return "container " + o.Container[:12]
	}
	names, _ := h.ReadNames(logs, 10000) // without the mount the UID has to do
	for _, name := range names {
		namespace, rest, ok := strings.Cut(name, "_")
		if !ok || !strings.HasSuffix(rest, "_"+o.PodUID) {
			continue
		}
		return "pod " + namespace + "/" + strings.TrimSuffix(rest, "_"+o.PodUID)
	}
	return "pod " + o.PodUID
}

// UnitOfProcess reads from a /proc/PID/cgroup file the unit that systemd started
// the process in, a service or scope, "" for none. Units within a user's own
// manager are those of the user, and user@UID.service is told (cg_path_get_unit
// of systemd's src/basic/cgroup-util.c).
func UnitOfProcess(file []byte) string {
	for line := range bytes.Lines(file) {
		_, rest, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		hierarchy, name, _ := strings.Cut(rest, ":")
		if hierarchy != "name=systemd" && hierarchy != "" { // v1, v2
			continue
		}
		for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
				return strings.TrimPrefix(part, "_") // an escape before a name that is one of the kernel's files
			}
			if !strings.HasSuffix(part, ".slice") {
				break
			}
		}
	}
	return ""
}

// VolumeOf reads the pod and the name of the volume from the path of a mount in
// kubelet's directory, wherever that is (pkg/kubelet/kubelet_getters.go,
// pkg/kubelet/config/defaults.go):
//
//	pods/<uid>/volumes/<plugin>/<volume>[/mount]
//	pods/<uid>/volume-subpaths/<volume>/<container>/<number>
//	pods/<uid>/volumeDevices/<plugin>/<volume>
func VolumeOf(point string) (pod Owner, volume string) {
	_, rest, ok := strings.Cut(point, "/pods/")
	if !ok {
		return Owner{}, ""
	}
	parts := strings.Split(rest, "/")
	if !isUID(parts[0]) {
		return Owner{}, ""
	}
	pod.PodUID = strings.ReplaceAll(parts[0], "_", "-")
	switch {
	case len(parts) > 3 && (parts[1] == "volumes" || parts[1] == "volumeDevices"):
		volume = parts[3]
	case len(parts) > 2 && parts[1] == "volume-subpaths":
		volume = parts[2]
	}
	return pod, volume
}
