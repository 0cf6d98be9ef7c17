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
		"sys/fs/cgroup/unified/kubepods/pod" + uid + "/" + id + "/cgroup.freeze":  "1\n",
		"sys/fs/cgroup/freezer/cgroup.procs":                                      "1\n",
		"sys/fs/cgroup/freezer/kubepods/pod" + static + "/freezer.state/a.folder": "",
	}.Open(t)
	for name, tt := range map[string]struct {
		file string
		want bool
	}{
		"frozen":              {"7:freezer:/kubepods/pod" + uid + "/" + id + "\n0::/\n", true},
		"beside others":       {"12:cpu:/\n7:cpu,freezer,pids:/kubepods/pod" + uid, true},
		"about to be":         {"7:freezer:/docker/" + id + "\n", false},
		"not":                 {"7:freezer:/system.slice/containerd.service\n", false},
		"in the root":         {"7:freezer:/\n", false},
		"v2":                  {"0::/kubepods/pod" + uid + "/" + id + "\n", false},
		"gone":                {"7:freezer:/gone\n", false},
		"outside of the root": {"7:freezer:/../../../../../etc\n", false},
		"no file":             {"7:freezer:/kubepods/pod" + static + "\n", false},
		"garbage":             {"\x00:freezer\n::\nfreezer", false},
		"empty":               {"", false},
	} {
		if got := Frozen(h, []byte(tt.file)); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
