package plugin

import (
	"strings"
	"testing"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host/hosttest"
)

func TestProcess(t *testing.T) {
	const uid = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	tail := ") S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 7 0 0\n"
	l := &Look{Host: hosttest.Tree{
		"proc/7/stat":                           "7 (nginx" + tail,
		"proc/7/cgroup":                         "0::/system.slice/nginx.service\n",
		"proc/8/stat":                           "8 (sh\x1b[31m%s\n" + strings.Repeat("a", 300) + tail,
		"proc/8/cgroup":                         "0::/kubepods/pod" + uid + "\n",
		"proc/9/stat":                           "9 (gone" + tail,
		"proc/10/stat":                          "garbage",
		"var/log/pods/a_b\x1b[0m%_" + uid + "/": "",
	}.Open(t)}
	for pid, want := range map[int]string{
		7:  "nginx (pid 7)",
		8:  "sh?[31m?s aaaa.. (pid 8) of pod a/b?[0m?",
		9:  "gone (pid 9)",
		10: "pid 10",
		11: "pid 11",
	} {
		if got := l.Process(pid); got != want {
			t.Errorf("%d: %q, want %q", pid, got, want)
		}
	}
	if got := l.Owner(cgroup.Owner{PodUID: uid}); got != "pod a/b?[0m?" {
		t.Errorf("Owner: %q", got)
	}
	if got := l.Owner(cgroup.Owner{}); got != "" {
		t.Errorf("Owner of nothing: %q", got)
	}
}
