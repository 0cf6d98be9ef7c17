package cgroup

import (
	"testing"

	"npd-plugins/internal/host/hosttest"
)

func TestPathIn(t *testing.T) {
	for file, want := range map[string]string{
		"0::/system.slice/kubelet.service\n":       "/system.slice/kubelet.service",
		"0::/../../system.slice/kubelet.service\n": "/system.slice/kubelet.service",
		"3:cpu,cpuacct:/a\n2:cpuset:/b\n0::/c\n":   "/a",
		"2:cpuset:/b\n1:name=systemd:/d\n0::/c\n":  "/c",
		"2:cpuset:/b\n": "/",
		"":              "/",
		"cpu\n:::\n":    "/",
		"3:cpu:/kubepods/pod3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13/a:b\n":                   "/kubepods/pod3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13/a:b",
		"4:cpu:/../../../../etc\n3:memory:/kubepods/pod3f6c1a52-8d0e-4b7f-9a61-5c2e7d9\n": "/etc",
	} {
		if got := PathIn([]byte(file), "cpu"); got != want {
			t.Errorf("%q: %q, want %q", file, got, want)
		}
	}
}

func TestTimesThrottled(t *testing.T) {
	h := hosttest.Tree{
		"v1/cpu.stat":      "nr_periods 8\nnr_throttled 7\nthrottled_time 612345678\n",
		"v2/cpu.stat":      "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n",
		"free/cpu.stat":    "usage_usec 9\nuser_usec 5\nsystem_usec 4\n",
		"garbage/cpu.stat": "nr_throttled -1\n",
	}.Open(t)
	for dir, want := range map[string]uint64{"/v1": 7, "/v2": 2, "/free": 0, "/garbage": 0, "/absent": 0} {
		if got := TimesThrottled(h, dir); got != want {
			t.Errorf("%s: %d, want %d", dir, got, want)
		}
	}
}
