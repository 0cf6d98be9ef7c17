package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host/hosttest"
)

const (
	uid        = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	uidSystemd = "0a3e4f52_9f6b_4c58_8f0e_6a1b2c3d4e5f"
	static     = "d41d8cd98f00b204e9800998ecf8427e" // of a static pod: a hash of its manifest
	id         = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
	outer      = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"
)

var owners = []struct {
	name, path string
	want       Owner
}{
	{"cgroupfs, burstable", "/kubepods/burstable/pod" + uid + "/" + id, Owner{uid, id}},
	{"cgroupfs, guaranteed", "/kubepods/pod" + uid + "/" + id, Owner{uid, id}},
	{"cgroupfs, the pod itself", "/kubepods/besteffort/pod" + uid, Owner{uid, ""}},
	{"systemd, containerd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSystemd + ".slice/cri-containerd-" + id + ".scope", Owner{uid, id}},
	{"systemd, guaranteed", "/kubepods.slice/kubepods-pod" + uidSystemd + ".slice/cri-containerd-" + id + ".scope", Owner{uid, id}},
	{"systemd, the pod itself", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uidSystemd + ".slice", Owner{uid, ""}},
	{"systemd, CRI-O", "/kubepods.slice/kubepods-pod" + uidSystemd + ".slice/crio-" + id + ".scope", Owner{uid, id}},
	{"systemd, CRI-O's container below its scope", "/kubepods.slice/kubepods-pod" + uidSystemd + ".slice/crio-" + id + ".scope/container", Owner{uid, id}},
	{"systemd, CRI-O's monitor", "/kubepods.slice/kubepods-pod" + uidSystemd + ".slice/crio-conmon-" + id + ".scope", Owner{uid, id}},
	{"systemd, cri-dockerd", "/kubepods.slice/kubepods-pod" + uidSystemd + ".slice/docker-" + id + ".scope", Owner{uid, id}},
	{"cgroupfs, CRI-O", "/kubepods/burstable/pod" + uid + "/crio-" + id, Owner{uid, id}},
	{"static pod, cgroupfs", "/kubepods/burstable/pod" + static + "/" + id, Owner{static, id}},
	{"static pod, systemd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + static + ".slice/cri-containerd-" + id + ".scope", Owner{static, id}},
	{"kubelet with a cgroup root", "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + uidSystemd + ".slice/cri-containerd-" + id + ".scope", Owner{uid, id}},
	{"systemd's form without systemd", "/kubepods-burstable-pod" + uidSystemd + ".slice:cri-containerd:" + id, Owner{uid, id}},
	{"the same below a service", "/system.slice/containerd.service/kubepods-burstable-pod" + uidSystemd + ".slice:cri-containerd:" + id, Owner{uid, id}},
	{"kind", "/docker/" + outer + "/kubelet/kubepods/besteffort/pod" + uid + "/" + id, Owner{uid, id}},
	{"kind, systemd", "/system.slice/docker-" + outer + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uidSystemd + ".slice/cri-containerd-" + id + ".scope", Owner{uid, id}},
	{"kind, seen from a namespace of the container", "/../../pod" + uid + "/" + id, Owner{uid, id}},
	{"removed", "/kubepods/burstable/pod" + uid + "/" + id + " (deleted)", Owner{uid, id}},
	{"Docker, cgroupfs", "/docker/" + id, Owner{"", id}},
	{"Docker, systemd", "/system.slice/docker-" + id + ".scope", Owner{"", id}},
	{"Podman", "/machine.slice/libpod-" + id + ".scope/container", Owner{"", id}},
	{"containerd outside of Kubernetes", "/default/" + id, Owner{"", id}},

	{"root", "/", Owner{}},
	{"empty", "", Owner{}},
	{"all pods", "/kubepods.slice/kubepods-burstable.slice", Owner{}},
	{"a service", "/system.slice/kubelet.service", Owner{}},
	{"a service named after pods", "/system.slice/podman.service", Owner{}},
	{"a user's session", "/user.slice/user-1000.slice/session-4.scope", Owner{}},
	{"a uid one digit short", "/kubepods/pod" + uid[1:], Owner{}},
	{"a uid in capitals", "/kubepods/pod" + strings.ToUpper(uid), Owner{}},
	{"a name that ends like a pod's", "/system.slice/tripod" + uid + ".service", Owner{}},
	{"an id one digit short", "/docker/" + id[1:], Owner{}},
	{"an id with a letter too many", "/docker/" + id[1:] + "g", Owner{}},
}

func TestOwnerOf(t *testing.T) {
	for _, tt := range owners {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, OwnerOf(tt.path)); diff != "" {
				t.Errorf("%s: %s", tt.path, diff)
			}
		})
	}
}

func TestOwnerOfProcess(t *testing.T) {
	pod := "/kubepods/burstable/pod" + uid
	tests := []struct {
		name, file string
		want       Owner
	}{
		{"v2", "0::" + pod + "/" + id + "\n", Owner{uid, id}},
		{"v2, no newline", "0::" + pod + "/" + id, Owner{uid, id}},
		{"v1, every hierarchy", "12:pids:" + pod + "/" + id + "\n11:cpu,cpuacct:" + pod + "/" + id + "\n1:name=systemd:" + pod + "/" + id + "\n", Owner{uid, id}},
		{"v1, only a later hierarchy names the pod", "12:rdma:/\n11:pids:/system.slice\n1:name=systemd:" + pod + "/" + id + "\n0::/\n", Owner{uid, id}},
		{"v1, one hierarchy names the pod only", "12:pids:" + pod + "\n1:name=systemd:" + pod + "/" + id + "\n", Owner{uid, id}},
		{"a container beats nothing, a pod beats a container", "3:cpu:/\n2:pids:/docker/" + outer + "\n1:memory:" + pod + "\n", Owner{uid, ""}},
		{"path with a colon", "0::/kubepods-pod" + uidSystemd + ".slice:cri-containerd:" + id + "\n", Owner{uid, id}},
		{"a zombie on v1", "12:pids:/\n1:name=systemd:/\n0::/\n", Owner{}},
		{"empty", "", Owner{}},
		{"garbage", "\x00\xff:\n::\n:\n", Owner{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, OwnerOfProcess([]byte(tt.file))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUnitOfProcess(t *testing.T) {
	for file, want := range map[string]string{
		"0::/system.slice/containerd.service\n":                                                     "containerd.service",
		"0::/system.slice/containerd.service/kubepods-besteffort.slice:cri-containerd:x\n":          "containerd.service",
		"12:pids:/\n4:cpu,cpuacct:/x.service\n1:name=systemd:/system.slice/kubelet.service\n0::/\n": "kubelet.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/kubelet.service\n":              "user@1000.service",
		"0::/user.slice/user-0.slice/session-3.scope\n":                                             "session-3.scope",
		"0::/init.scope\n": "init.scope",
		"0::/system.slice/system-getty.slice/getty@tty1.service\n": "getty@tty1.service",
		"0::/system.slice/_cpu.service\n":                          "cpu.service",
		"0::/kubepods/x/kubelet.service\n":                         "", // made by a container
		"0::/\n":                                                   "",
		"0::/../../system.slice/x.service\n":                       "",
		"4:cpu:/system.slice/x.service\n":                          "",
		"":                                                         "",
	} {
		if got := UnitOfProcess([]byte(file)); got != want {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
	}
}

func TestVolumeOf(t *testing.T) {
	const uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	for point, want := range map[string][2]string{
		"/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~csi/pvc-1/mount": {uid, "pvc-1"},
		"/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~nfs/export":      {uid, "export"},
		"/data/kubelet/pods/" + uid + "/volume-subpaths/conf/web/0":               {uid, "conf"},
		"/var/lib/kubelet/pods/" + uid + "/volumeDevices/kubernetes.io~csi/pvc-2": {uid, "pvc-2"},
		"/var/lib/kubelet/pods/" + uid + "/etc-hosts":                             {uid, ""},
		"/var/lib/kubelet/pods/" + uid:                                            {uid, ""},
		"/var/lib/kubelet/pods/" + strings.Repeat("0123", 8) + "/volumes/a/b":     {strings.Repeat("0123", 8), "b"},
		"/var/lib/kubelet/pods/x/volumes/a/b":                                     {},
		"/var/lib/kubelet/plugins/kubernetes.io/csi/driver/0f1e/globalmount":      {},
		"/pods/": {},
		"":       {},
	} {
		if pod, volume := VolumeOf(point); pod.PodUID != want[0] || volume != want[1] {
			t.Errorf("%s: %+v %q, want %q", point, pod, volume, want)
		}
	}
}

func TestName(t *testing.T) {
	h := hosttest.Tree{
		"var/log/pods/kube-system_etcd-node1_" + static + "/etcd/0.log":  "",
		"var/log/pods/shop_cart-5d8f9c7b64-x2x7q_" + uid + "/cart/0.log": "",
		"var/log/pods/" + uid + "/0.log":                                 "",
		"var/log/pods/a_b/0.log":                                         "",
	}.Open(t)
	for _, tt := range []struct {
		owner Owner
		want  string
	}{
		{Owner{uid, id}, "pod shop/cart-5d8f9c7b64-x2x7q"},
		{Owner{static, ""}, "pod kube-system/etcd-node1"},
		{Owner{strings.Replace(uid, "0a", "0b", 1), id}, "pod 0b3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"},
		{Owner{"", id}, "container 3f8a1c5e7d9b"},
		{Owner{}, ""},
	} {
		if got := tt.owner.Name(h); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.owner, got, tt.want)
		}
	}
	if got := (Owner{uid, id}).Name(hosttest.Tree{}.Open(t)); got != "pod "+uid {
		t.Errorf("without /var/log/pods: %q", got)
	}
}

func TestHierarchy(t *testing.T) {
	tests := []struct {
		name string
		tree hosttest.Tree
		want string
		err  string
	}{
		{"v2", hosttest.Tree{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n"}, "/sys/fs/cgroup", ""},
		{"v2 without the controller", hosttest.Tree{"sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}, "", "the pids controller is not among those of"},
		{"v1", hosttest.Tree{"sys/fs/cgroup/pids/cgroup.procs": "", "sys/fs/cgroup/memory/cgroup.procs": ""}, "/sys/fs/cgroup/pids", ""},
		{"hybrid", hosttest.Tree{"sys/fs/cgroup/pids/cgroup.procs": "", "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"}, "/sys/fs/cgroup/pids", ""},
		{"v1 without the controller", hosttest.Tree{"sys/fs/cgroup/memory/cgroup.procs": ""}, "", "mount the host's /sys/fs/cgroup at"},
		{"not mounted", hosttest.Tree{"sys/fs/cgroup/": ""}, "", "mount the host's /sys/fs/cgroup at"},
		{"no /sys", hosttest.Tree{}, "", "mount the host's /sys/fs/cgroup at"},
		{"broken", hosttest.Tree{"sys/fs/cgroup/cgroup.controllers/": ""}, "", "is a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Hierarchy(tt.tree.Open(t), "pids")
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func walked(t *testing.T, tree hosttest.Tree, hierarchy string, descend func(string) bool) []string {
	t.Helper()
	var names []string
	err := Walk(tree.Open(t), hierarchy, func(name string) bool {
		names = append(names, name)
		return descend(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWalk(t *testing.T) {
	tree := hosttest.Tree{
		"sys/fs/cgroup/pids/cgroup.procs":                                "",
		"sys/fs/cgroup/pids/kubepods/pids.max":                           "max\n",
		"sys/fs/cgroup/pids/kubepods/pod" + uid + "/pids.max":            "max\n",
		"sys/fs/cgroup/pids/kubepods/pod" + uid + "/" + id + "/pids.max": "max\n",
		"sys/fs/cgroup/pids/system.slice/kubelet.service/pids.max":       "max\n",
		"sys/fs/cgroup/pids/link":                                        "-> kubepods",
		"sys/fs/cgroup/memory/other/cgroup.procs":                        "",
	}
	names := walked(t, tree, "/sys/fs/cgroup/pids", func(string) bool { return true })
	at := map[string]int{}
	for i, name := range names {
		at[name] = i + 1
	}
	for _, name := range []string{"/", "/kubepods", "/kubepods/pod" + uid, "/kubepods/pod" + uid + "/" + id, "/system.slice", "/system.slice/kubelet.service"} {
		if at[name] == 0 {
			t.Errorf("%s was not visited", name)
		}
		if parent := filepath.Dir(name); parent != name && at[parent] > at[name] {
			t.Errorf("%s before its parent", name)
		}
	}
	if len(names) != 6 {
		t.Errorf("visited %q, want the six cgroups of the hierarchy only", names)
	}

	names = walked(t, tree, "/sys/fs/cgroup/pids", func(name string) bool { return name == "/" })
	if len(names) != 3 {
		t.Errorf("visited %q although only the root was to be descended into", names)
	}
}

// A cgroup that goes away while the walk is on is left out, without an error.
func TestWalkVanishing(t *testing.T) {
	dir := t.TempDir()
	hosttest.Tree{"sys/fs/cgroup/gone/child/": "", "sys/fs/cgroup/stays/child/": ""}.Write(t, dir)
	var names []string
	err := Walk(hosttest.Open(t, dir), "/sys/fs/cgroup", func(name string) bool {
		names = append(names, name)
		if name == "/gone" {
			if err := os.RemoveAll(filepath.Join(dir, "sys/fs/cgroup/gone")); err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
	if err != nil || len(names) != 4 {
		t.Errorf("visited %q, %v; want all but the children of /gone", names, err)
	}
}

func TestWalkWithoutHierarchy(t *testing.T) {
	err := Walk(hosttest.Tree{}.Open(t), "/sys/fs/cgroup", func(string) bool { return true })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWalkBounded(t *testing.T) {
	defer func(n int) { maxCgroups = n }(maxCgroups)
	maxCgroups = 50
	tree := hosttest.Tree{}
	for i := range 50 { // and the root
		tree["sys/fs/cgroup/"+strconv.Itoa(i)+"/"] = ""
	}
	seen := 0
	err := Walk(tree.Open(t), "/sys/fs/cgroup", func(string) bool { seen++; return true })
	if err == nil || seen != 50 {
		t.Errorf("visited %d cgroups, %v; want an error after 50", seen, err)
	}
}
