package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin/plugintest"
)

func TestDaemonState(t *testing.T) {
	// process adds one that is not in a pod to the tree.
	process := func(tree hosttest.Tree, pid int, comm string, state byte, wchan string) hosttest.Tree {
		dir := fmt.Sprintf("proc/%d/", pid)
		tree[dir+"stat"] = stat(pid, comm, state, 20)
		tree[dir+"wchan"] = wchan
		tree[dir+"cgroup"] = "0::/system.slice/x.service\n"
		return tree
	}
	thread := func(tree hosttest.Tree, pid, tid int, comm string, state byte, wchan string) hosttest.Tree {
		tree[fmt.Sprintf("proc/%d/task/%d/", pid, tid)] = ""
		return process(tree, tid, comm, state, wchan)
	}
	inPod := func(tree hosttest.Tree, pid int) hosttest.Tree {
		tree[fmt.Sprintf("proc/%d/cgroup", pid)] = "0::/kubepods/burstable/pod0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f/" + strings.Repeat("a", 64) + "\n"
		return tree
	}
	zombie := func(tree hosttest.Tree, pid, threads int) hosttest.Tree {
		tree[fmt.Sprintf("proc/%d/stat", pid)] = stat(pid, "containerd", 'Z', threads)
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
			"containerd (pid 812) is not stopped, state S in futex_do_wait"},
		{"systemd listens", process(node('S', "futex_do_wait"), 950, "cri-dockerd", 'T', "do_signal_stop"), dockerSocket, 1,
			"cri-dockerd (pid 950) is stopped, state T in do_signal_stop: kill -CONT 950"},
		{"cri-dockerd listens, dockerd is stopped", process(process(node('S', "0"), 950, "cri-dockerd", 'S', "0"), 960, "dockerd", 'T', "0"), dockerSocket, 950,
			"dockerd (pid 960) is stopped, state T: kill -CONT 960"},
		{"the pid is of another namespace", node('T', "do_signal_stop"), containerdSocket, 77, "containerd (pid 812) is stopped, state T in do_signal_stop: kill -CONT 812"},
		{"out of sight", node('T', "do_signal_stop"), containerdSocket, 0, "containerd (pid 812) is stopped, state T in do_signal_stop: kill -CONT 812"},
		{"k3s", process(hosttest.Tree{}, 30, "k3s-server", 'S', "0"), "/run/k3s/cri-dockerd/cri-dockerd.sock", 30, "k3s-server (pid 30) is not stopped, state S"},
		{"traced", node('t', "ptrace_stop"), containerdSocket, 812, "containerd (pid 812) is held by a debugger, state t in ptrace_stop"},
		{"a thread waits for the disk", thread(thread(node('S', "futex_do_wait"), 812, 815, "containerd", 'S', "0"), 812, 816, "containerd", 'D', "jbd2_log_wait_commit"),
			containerdSocket, 812, "containerd (pid 812) thread 816 sleeps uninterruptibly, state D in jbd2_log_wait_commit"},
		{"dead but for a thread", zombie(thread(node('S', "0"), 812, 816, "containerd", 'D', "nfs_wait_bit_killable"), 812, 2), containerdSocket, 0,
			"containerd (pid 812) thread 816 sleeps uninterruptibly, state D in nfs_wait_bit_killable"},
		{"dead", zombie(node('S', "0"), 812, 1), containerdSocket, 0, "there is no process containerd"},
		{"in a pod", inPod(node('T', "0"), 812), containerdSocket, 0, "there is no process containerd"},
		{"in a pod, and the node's", inPod(process(node('S', "futex_do_wait"), 4000, "containerd", 'T', "0"), 4000), containerdSocket, 0,
			"containerd (pid 812) is not stopped, state S in futex_do_wait"},
		{"another runtime's", node('T', "0"), crioSocket, 0, "there is no process crio"},
		{"nobody may know for what", node('S', "0"), containerdSocket, 0, "containerd (pid 812) is not stopped, state S"},
		{"a hostile wait channel", node('D', strings.Repeat("\x1b[2J\n%s", 100)), containerdSocket, 0,
			"containerd (pid 812) sleeps uninterruptibly, state D in ?[2J ?s?[2J ?s?[2J ?s?[2J ?s?[2J ?s?[2.."},
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
