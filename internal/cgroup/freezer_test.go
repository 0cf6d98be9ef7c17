package cgroup

import (
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestFrozen(t *testing.T) {
	h := hosttest.Tree{
		"sys/fs/cgroup/freezer/kubepods/pod" + uid + "/freezer.state":             "FROZEN\n",
		"sys/fs/cgroup/freezer/kubepods/pod" + uid + "/" + id + "/freezer.state":  "FROZEN\n",
		"sys/fs/cgroup/freezer/docker/" + id + "/freezer.state":                   "FREEZING\n",
		"sys/fs/cgroup/freezer/system.slice/containerd.service/freezer.state":     "THAWED\n",
		"sys/fs/cgroup/unified/kubepods/pod" + uid + "/" + id + "/cgroup.events":  "populated 1\nfrozen 1\n",
		"sys/fs/cgroup/system.slice/containerd.service/cgroup.events":             "populated 1\nfrozen 1\n",
		"sys/fs/cgroup/system.slice/kubelet.service/cgroup.events":                "populated 1\nfrozen 0\n",
		"sys/fs/cgroup/init.scope/cgroup.events":                                  "populated 1\n", // before Linux 5.2
		"sys/fs/cgroup/freezer/cgroup.procs":                                      "1\n",
		"sys/fs/cgroup/freezer/kubepods/pod" + static + "/freezer.state/a.folder": "",
	}.Open(t)
	for name, tt := range map[string]struct {
		file string
		want string
	}{
		"frozen":              {"7:freezer:/kubepods/pod" + uid + "/" + id + "\n0::/\n", "/kubepods/pod" + uid + "/" + id},
		"beside others":       {"12:cpu:/\n7:cpu,freezer,pids:/kubepods/pod" + uid, "/kubepods/pod" + uid},
		"about to be":         {"7:freezer:/docker/" + id + "\n", ""},
		"not":                 {"7:freezer:/system.slice/containerd.service\n", ""},
		"in the root":         {"7:freezer:/\n", ""},
		"v2 of a hybrid host": {"1:name=systemd:/\n0::/kubepods/pod" + uid + "/" + id + "\n", "/kubepods/pod" + uid + "/" + id},
		"v2":                  {"0::/system.slice/containerd.service\n", "/system.slice/containerd.service"},
		"v2 from a namespace": {"0::/../../../system.slice/containerd.service\n", "/system.slice/containerd.service"},
		"v2, not":             {"0::/system.slice/kubelet.service\n", ""},
		"v2, old":             {"0::/init.scope\n", ""},
		"v2, the root":        {"0::/\n", ""},
		"gone":                {"7:freezer:/gone\n", ""},
		"outside of the root": {"7:freezer:/../../../../../etc\n", ""},
		"no file":             {"7:freezer:/kubepods/pod" + static + "\n", ""},
		"garbage":             {"\x00:freezer\n::\nfreezer", ""},
		"empty":               {"", ""},
	} {
		if got := Frozen(h, []byte(tt.file)); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
