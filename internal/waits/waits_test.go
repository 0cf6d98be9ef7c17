package waits

import (
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/procfs"
)

func TestOf(t *testing.T) {
	const v1, v2 = "4:freezer:/system.slice/containerd.service\n0::/\n", "0::/system.slice/containerd.service\n"
	for name, tt := range map[string]struct {
		state                 byte
		wchan, cgroup         string
		freezerState, v2event string
		held                  bool
		want                  string
	}{
		"stopped":                 {'T', "do_signal_stop", v2, "", "populated 1\nfrozen 0\n", true, "is stopped (state T)"},
		"traced":                  {'t', "ptrace_stop", v2, "", "", true, "is held by a debugger (state t)"},
		"waits for a disk":        {'D', "jbd2_log_wait_commit", v1, "THAWED\n", "", true, "is in uninterruptible sleep in jbd2_log_wait_commit (state D)"},
		"out of sight":            {'D', "0", v1, "THAWED\n", "", true, "is in uninterruptible sleep (state D)"},
		"v1":                      {'D', "futex_do_wait", v1, "FROZEN\n", "", true, "is frozen with its cgroup /system.slice/containerd.service"},
		"v1 before Linux 6.1":     {'D', "__refrigerator", "", "", "", true, "is frozen with its cgroup"},
		"v1, about to be":         {'D', "futex_do_wait", v1, "FREEZING\n", "", true, "is in uninterruptible sleep in futex_do_wait (state D)"},
		"v2":                      {'S', "do_freezer_trap", v2, "", "populated 1\nfrozen 1\n", true, "is frozen with its cgroup /system.slice/containerd.service"},
		"v2 without its cgroups":  {'S', "get_signal", v2, "", "", true, "is frozen with its cgroup"},
		"a signal's core dump":    {'D', "get_signal", v2, "", "", true, "is in uninterruptible sleep in get_signal (state D)"},
		"stopped and frozen":      {'T', "do_signal_stop", v2, "", "populated 1\nfrozen 1\n", true, "is frozen with its cgroup /system.slice/containerd.service"},
		"sleeps":                  {'S', "futex_do_wait", v2, "", "populated 1\nfrozen 0\n", false, "is not stopped, it sleeps in futex_do_wait (state S)"},
		"sleeps, out of sight":    {'S', "0", "", "", "", false, "is not stopped, it sleeps (state S)"},
		"runs":                    {'R', "0", v2, "", "", false, "is not stopped (state R)"},
		"ended":                   {'Z', "0", "0::/\n", "", "", false, "has ended (state Z)"},
		"a state that is not yet": {'I', "0", "", "", "", false, "is not stopped, it sleeps (state I)"},
	} {
		tree := hosttest.Tree{"proc/7/wchan": tt.wchan, "sys/fs/cgroup/": ""}
		if tt.cgroup != "" {
			tree["proc/7/cgroup"] = tt.cgroup
		}
		if tt.freezerState != "" {
			tree["sys/fs/cgroup/freezer/system.slice/containerd.service/freezer.state"] = tt.freezerState
		}
		if tt.v2event != "" {
			tree["sys/fs/cgroup/system.slice/containerd.service/cgroup.events"] = tt.v2event
		}
		h := tree.Open(t)
		r := Of(h, procfs.Of(h, 7), tt.state)
		if r.Held() != tt.held || r.String() != tt.want {
			t.Errorf("%s: held %v, %q; want %v, %q", name, r.Held(), r, tt.held, tt.want)
		}
	}
}

// Of a task in state D the operation is told that it is in, and not the lock.
func TestOperation(t *testing.T) {
	h := hosttest.Tree{"proc/7/wchan": "rwsem_down_read_slowpath", "proc/7/stack": "[<0>] rwsem_down_read_slowpath+0x1/0x2\n[<0>] down_read_killable+0x1/0x2\n[<0>] copy_net_ns+0x1/0x2\n"}.Open(t)
	if r := Of(h, procfs.Of(h, 7), 'D'); r.String() != "is in uninterruptible sleep in copy_net_ns (state D)" {
		t.Errorf("%q", r)
	}
}
