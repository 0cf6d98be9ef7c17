package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

func TestDaemonState(t *testing.T) {
	// process adds one that is not in a pod to the tree.
	process := func(tree hosttest.Tree, pid int, comm string, state byte, wchan string) hosttest.Tree {
		dir := fmt.Sprintf("proc/%d/", pid)
		tree[dir+"stat"] = stat(pid, comm, state, 20)
		tree[dir+"wchan"] = wchan
		tree[dir+"cgroup"] = "0::/system.slice/x.service\n"
		tree[dir+"status"] = statusFile(pid)
		tree[dir+"exe"] = "-> /usr/bin/" + comm
		return tree
	}
	thread := func(tree hosttest.Tree, pid, tid int, comm string, state byte, wchan string) hosttest.Tree {
		dir := fmt.Sprintf("proc/%d/task/%d/", pid, tid)
		tree[dir+"stat"], tree[dir+"wchan"] = stat(tid, comm, state, 20), wchan
		return tree
	}
	inPod := func(tree hosttest.Tree, pid int) hosttest.Tree {
		tree[fmt.Sprintf("proc/%d/cgroup", pid)] = "0::/kubepods/burstable/pod0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f/" + strings.Repeat("a", 64) + "\n"
		return tree
	}
	zombie := func(tree hosttest.Tree, pid, threads int) hosttest.Tree {
		tree[fmt.Sprintf("proc/%d/stat", pid)] = stat(pid, "containerd", 'Z', threads)
		return tree
	}
	with := func(tree hosttest.Tree, file, content string) hosttest.Tree {
		tree[file] = content
		return tree
	}
	listens := func(tree hosttest.Tree, pid int, at string) hosttest.Tree {
		tree[fmt.Sprintf("proc/%d/net/unix", pid)] = "Num RefCount Protocol Flags Type St Inode Path\n0: 00000002 00000000 00010000 0001 01 77 " + at + "\n"
		tree[fmt.Sprintf("proc/%d/fd/3", pid)] = "-> socket:[77]"
		return tree
	}
	tests := []struct {
		name     string
		tree     hosttest.Tree
		socket   string
		listener int
		want     string
	}{
		{"the one that listens", process(node('S', "futex_do_wait"), 900, "containerd", 'T', "do_signal_stop"), containerdSocket, 812,
			"containerd (pid 812) is not stopped, it sleeps in futex_do_wait (state S)"},
		{"the one that listens is stopped", node('T', "do_signal_stop"), containerdSocket, 812, "containerd (pid 812) is stopped (state T): kill -CONT 812"},
		{"systemd listens", process(node('S', "futex_do_wait"), 950, "cri-dockerd", 'T', "do_signal_stop"), dockerSocket, 1,
			"cri-dockerd (pid 950) is stopped (state T)"},
		{"dockerd is stopped", process(process(node('S', "0"), 950, "cri-dockerd", 'S', "0"), 960, "dockerd", 'T', "0"), dockerSocket, 950,
			"cri-dockerd (pid 950) waits for dockerd (pid 960), which is stopped (state T)"},
		{"dockerd waits for its containerd", process(process(node('T', "0"), 950, "cri-dockerd", 'S', "0"), 960, "dockerd", 'S', "0"), dockerSocket, 950,
			"cri-dockerd (pid 950) waits for containerd (pid 812), which is stopped (state T)"},
		{"dockerd waits for itself", process(process(node('S', "0"), 950, "cri-dockerd", 'S', "0"), 960, "dockerd", 'S', "futex_do_wait"), dockerSocket, 0,
			"cri-dockerd (pid 950) waits for dockerd (pid 960), which is not stopped, it sleeps in futex_do_wait (state S)"},
		{"dockerd has ended", process(node('S', "0"), 950, "cri-dockerd", 'S', "0"), dockerSocket, 950, "cri-dockerd (pid 950) waits for dockerd, and there is none"},
		{"the pid is of another namespace", node('T', "do_signal_stop"), containerdSocket, 77, "containerd (pid 812) is stopped (state T)"},
		{"out of sight", node('T', "do_signal_stop"), containerdSocket, 0, "containerd (pid 812) is stopped (state T)"},
		{"out of sight, and its socket is not", listens(node('T', "do_signal_stop"), 812, "/var"+containerdSocket), containerdSocket, 0,
			"containerd (pid 812) is stopped (state T): kill -CONT 812"},
		{"another listens", listens(process(node('T', "do_signal_stop"), 900, "containerd", 'S', "0"), 900, containerdSocket), containerdSocket, 0,
			"containerd (pid 900) is not stopped, it sleeps (state S)"},
		{"k3s", with(process(hosttest.Tree{}, 30, "k3s-server", 'S', "0"), "proc/30/exe", "-> /var/lib/rancher/k3s/data/1f/bin/k3s"), "/run/k3s/cri-dockerd/cri-dockerd.sock", 0,
			"k3s-server (pid 30) is not stopped, it sleeps (state S)"},
		{"traced", node('t', "ptrace_stop"), containerdSocket, 812, "containerd (pid 812) is held by a debugger (state t)"},
		{"a thread waits for the disk", thread(thread(node('S', "futex_do_wait"), 812, 815, "containerd", 'S', "0"), 812, 816, "containerd", 'D', "jbd2_log_wait_commit"),
			containerdSocket, 812, "containerd (pid 812) thread 816 is in uninterruptible sleep in jbd2_log_wait_commit (state D)"},
		{"dead but for a thread", zombie(thread(node('S', "0"), 812, 816, "containerd", 'D', "nfs_wait_bit_killable"), 812, 2), containerdSocket, 0,
			"containerd (pid 812) thread 816 is in uninterruptible sleep in nfs_wait_bit_killable (state D)"},
		{"frozen", with(node('D', "futex_do_wait"), "sys/fs/cgroup/system.slice/containerd.service/cgroup.events", "populated 1\nfrozen 1\n"), containerdSocket, 812,
			"containerd (pid 812) is frozen with its cgroup /system.slice/containerd.service"},
		{"dead", zombie(node('S', "0"), 812, 1), containerdSocket, 0, "there is no process containerd"},
		{"in a pod", inPod(node('T', "0"), 812), containerdSocket, 0, "there is no process containerd"},
		{"in a pod, and the node's", inPod(process(node('S', "futex_do_wait"), 4000, "containerd", 'T', "0"), 4000), containerdSocket, 0,
			"containerd (pid 812) is not stopped, it sleeps in futex_do_wait (state S)"},
		{"in a container of Docker", with(node('T', "0"), "proc/812/cgroup", "0::/docker/"+strings.Repeat("b", 64)), containerdSocket, 0, "there is no process containerd"},
		{"on a node in a container of Docker", with(with(node('T', "0"), "proc/812/cgroup", "4:pids:/docker/"+strings.Repeat("b", 64)+"/system.slice/containerd.service\n"),
			"proc/1/cgroup", "4:pids:/docker/"+strings.Repeat("b", 64)+"/init.scope\n"), containerdSocket, 0, "containerd (pid 812) is stopped (state T)"},
		{"in a PID namespace below", with(node('T', "0"), "proc/812/status", "Uid:\t0\t0\t0\t0\nNSpid:\t812\t7\n"), containerdSocket, 0, "there is no process containerd"},
		{"of a user", with(node('T', "0"), "proc/812/status", "Uid:\t1000\t1000\t0\t0\nNSpid:\t812\n"), containerdSocket, 0, "there is no process containerd"},
		{"only called so", with(node('T', "0"), "proc/812/exe", "-> /bin/sleep"), containerdSocket, 0, "there is no process containerd"},
		{"replaced meanwhile", with(node('T', "0"), "proc/812/exe", "-> /usr/bin/containerd (deleted)"), containerdSocket, 0, "containerd (pid 812) is stopped (state T)"},
		{"another runtime's", node('T', "0"), crioSocket, 0, "there is no process crio"},
		{"nobody may know for what", node('S', "0"), containerdSocket, 0, "containerd (pid 812) is not stopped, it sleeps (state S)"},
		{"a hostile wait channel", node('D', strings.Repeat("\x1b[2J\n%s", 100)), containerdSocket, 0,
			"containerd (pid 812) " + plugin.Safe("is in uninterruptible sleep in "+strings.Repeat("\x1b[2J\n%s", 100), 90)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := daemonState(context.Background(), plugintest.Look(t, tt.tree.Open(t)), tt.socket, tt.listener)
			if got != tt.want {
				t.Errorf("%q\nwant\n%q", got, tt.want)
			}
		})
	}
}

// A look that has no time left does not go through all processes.
func TestDaemonStateOutOfTime(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tree := hosttest.Tree{"proc/1/stat": stat(1, "systemd", 'S', 1)}
	got := daemonState(ctx, plugintest.Look(t, tree.Open(t)), containerdSocket, 0)
	if want := "the state of its process is not known: context canceled"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
