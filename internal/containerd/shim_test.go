package containerd

import (
	"fmt"
	"strings"
	"testing"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host/hosttest"
)

func TestShimOwner(t *testing.T) {
	id, uid := strings.Repeat("a1", 32), "3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13"
	const shim = "proc/900/cwd"
	config := func(cgroup string) string { return fmt.Sprintf(`{"linux":{"cgroupsPath":%q}}`, cgroup) }
	for name, tt := range map[string]struct {
		tree hosttest.Tree
		want cgroup.Owner
	}{
		"cgroupfs": {hosttest.Tree{shim: "-> /run/x/k8s.io/" + id, "run/x/k8s.io/" + id + "/config.json": config("/kubepods/burstable/pod" + uid + "/" + id)}, cgroup.Owner{PodUID: uid, Container: id}},
		"systemd": {hosttest.Tree{shim: "-> /run/x/k8s.io/" + id, "run/x/k8s.io/" + id + "/config.json": config("kubepods-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice:cri-containerd:" + id)},
			cgroup.Owner{PodUID: uid, Container: id}},
		"no configuration": {hosttest.Tree{shim: "-> /run/x/k8s.io/" + id}, cgroup.Owner{Container: id}},
		"on a disk":        {hosttest.Tree{shim: "-> /var/lib/x/" + id, "var/lib/x/" + id + "/config.json": config("/kubepods/pod" + uid + "/" + id)}, cgroup.Owner{}},
		"the bundle is being removed": {hosttest.Tree{shim: "-> /run/x/k8s.io/." + id + " (deleted)",
			"proc/901/stat": "901 (pause) S 900 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 900 0 0\n", "proc/901/cgroup": "0::/kubepods/burstable/pod" + uid + "/" + id + "\n",
			"proc/902/stat": "902 (web) S 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 900 0 0\n", "proc/902/cgroup": "0::/kubepods/podffffffff-8d0e-4b7f-9a61-5c2e7d904b13/" + id + "\n"},
			cgroup.Owner{PodUID: uid, Container: id}},
		"gone": {hosttest.Tree{"proc/1/": ""}, cgroup.Owner{}},
	} {
		if got := ShimOwner(tt.tree.Open(t), 900); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
