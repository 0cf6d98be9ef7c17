package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/internal/systemd/systemdtest"
	"npd-plugins/test/lab"
)

// trees puts the files of several in one.
func trees(all ...hosttest.Tree) hosttest.Tree {
	tree := hosttest.Tree{}
	for _, t := range all {
		maps.Copy(tree, t)
	}
	return tree
}

// listening has a process listen at these paths only.
func listening(pid int, at ...string) hosttest.Tree {
	table := "Num RefCount Protocol Flags Type St Inode Path\n"
	tree := hosttest.Tree{fmt.Sprintf("proc/%d/fd/", pid): ""}
	for i, path := range at {
		table += fmt.Sprintf("0: 00000002 00000000 00010000 0001 01 %d %s\n", 70+i, path)
		tree[fmt.Sprintf("proc/%d/fd/%d", pid, 3+i)] = fmt.Sprintf("-> socket:[%d]", 70+i)
	}
	tree[fmt.Sprintf("proc/%d/net/unix", pid)] = table
	return tree
}

// shim is that of a sandbox of a pod.
func shim(pid int, state byte) hosttest.Tree {
	const bundle, uid = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/", "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	dir, id := fmt.Sprintf("proc/%d/", pid), strings.Repeat("a", 64)
	return hosttest.Tree{
		dir + "stat": stat(pid, "containerd-shim", state, 12), dir + "wchan": "do_signal_stop", dir + "cgroup": "0::/system.slice/containerd.service\n",
		dir + "status": statusFile(pid), dir + "exe": "-> /usr/bin/containerd-shim-runc-v2", dir + "cwd": "-> " + bundle + id,
		bundle + id + "/config.json":                                `{"linux":{"cgroupsPath":"/kubepods/burstable/pod` + uid + `/` + id + `"}}`,
		"var/log/pods/production_web-7d9c5b8f6d-x2x7k_" + uid + "/": "",
	}
}

func TestDown(t *testing.T) {
	old, young := hosttest.Tree{"proc/uptime": "4000.00 8000.00\n"}, hosttest.Tree{"proc/uptime": "45.00 90.00\n"} // 66 minutes, 5 seconds
	running := node('S', "futex_do_wait")
	nobody := hosttest.Tree{"proc/1/stat": stat(1, "systemd", 'S', 1), "proc/uptime": "4000.00 8000.00\n"}
	nowhere := listening(812)
	inPod := hosttest.Tree{"proc/812/cgroup": "0::/kubepods/burstable/pod0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f/" + strings.Repeat("a", 64) + "\n"}
	const noSocket = "cannot time the container runtime: no container runtime socket under "
	ago := func(d time.Duration) uint64 { return uint64(plugintest.Now.Add(-d).UnixMicro()) }
	tests := []struct {
		name     string
		tree     hosttest.Tree
		answered string // at an earlier look
		unit     string // state of containerd.service, "" when there is no systemd
		restarts uint32
		since    time.Duration
		status   plugin.Status
		words    []string
	}{
		{"hangs in its start behind a shim", trees(running, old, nowhere, shim(900, 'T'), shim(901, 'S')), "", "activating/start", 0, 66 * time.Minute, plugin.Problem,
			[]string{"container runtime does not start: containerd (pid 812) has run for 1h6m0s and listens nowhere; containerd-shim (pid 900) of pod production/web-7d9c5b8f6d-x2x7k is stopped (state T); containerd.service is activating"}},
		{"hangs in a restart", trees(running, old, nowhere, shim(900, 'T'), shim(901, 'T')), containerdSocket, "", 0, 0, plugin.Problem,
			[]string{"does not start: ", "containerd-shim (pid 90", "is stopped (state T), and 1 more shim"}},
		{"hangs for itself", trees(running, old, listening(812, "/var/run/nri/nri.sock")), "", "", 0, 0, plugin.Problem,
			[]string{"does not start: ", "; containerd (pid 812) is not stopped, it sleeps in futex_do_wait (state S)"}},
		{"a shim in a pod", trees(running, old, nowhere, shim(900, 'T'), hosttest.Tree{"proc/900/cgroup": inPod["proc/812/cgroup"]}), "", "", 0, 0, plugin.Problem,
			[]string{"; containerd (pid 812) is not stopped"}},
		{"has just started", trees(running, young, nowhere), "", "activating/start", 0, 5 * time.Second, plugin.Unknown, []string{noSocket}},
		{"in a pod", trees(running, old, nowhere, inPod), "", "", 0, 0, plugin.Unknown, []string{noSocket}},
		{"of a user", trees(running, old, nowhere, hosttest.Tree{"proc/812/status": "Uid:\t1000\t1000\t0\t0\nNSpid:\t812\n"}), "", "", 0, 0, plugin.Unknown, []string{noSocket}},
		{"Docker's own", trees(running, old, listening(812, "/run/docker/containerd/containerd.sock")), "", "", 0, 0, plugin.Unknown, []string{noSocket}},
		{"nobody may know where it listens", trees(running, old), "", "", 0, 0, plugin.Unknown, []string{noSocket}},
		{"no runtime", nobody, "", "inactive/dead", 0, 0, plugin.Unknown, []string{noSocket}},
		{"being stopped", trees(running, old, listening(812, containerdSocket)), "", "deactivating/stop-sigterm", 0, 0, plugin.Unknown, []string{noSocket}},

		{"refuses to start", nobody, "", "failed/failed", 0, 0, plugin.Problem,
			[]string{"container runtime is down: there is no socket; there is no process containerd, crio, cri-dockerd", "; containerd.service has failed: exit status 1"}},
		{"refuses to start again and again", nobody, "", "activating/auto-restart", 7, time.Second, plugin.Problem, []string{"; containerd.service restarts again and again (7 times): exit status 1"}},
		{"and runs for a moment", trees(running, young, nowhere), "", "activating/start", 7, time.Second, plugin.Problem, []string{"containerd (pid 812) started 5s ago", "(7 times)"}},
		{"waits for what comes before", nobody, "", "activating/start-pre", 0, 2 * time.Minute, plugin.Problem, []string{"containerd.service is activating"}},
		{"began to wait", nobody, "", "activating/start-pre", 0, 2 * time.Second, plugin.Unknown, []string{noSocket}},

		{"stopped in order", nobody, containerdSocket, "inactive/dead", 0, 0, plugin.Problem,
			[]string{"container runtime is down: " + containerdSocket + " is gone; there is no process containerd; containerd.service is stopped"}},
		{"ended, without systemd", nobody, containerdSocket, "", 0, 0, plugin.Problem, []string{"is gone; there is no process containerd"}},
		{"restarts", trees(running, young, nowhere), containerdSocket, "activating/start", 0, 5 * time.Second, plugin.Problem, []string{"is gone; containerd (pid 812) started 5s ago; containerd.service is activating"}},
		{"the mount is stale", trees(running, old, listening(812, containerdSocket)), containerdSocket, "active/running", 0, time.Hour, plugin.Unknown,
			[]string{containerdSocket + " is gone here, but containerd (pid 812) listens at it: the mount of its directory is stale"}},
		{"the socket was moved", trees(running, old, listening(812, "/run/other/containerd.sock")), containerdSocket, "active/running", 0, time.Hour, plugin.Problem,
			[]string{"is gone; containerd (pid 812) listens at /run/other/containerd.sock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := lab.ShortDir(t)
			tt.tree.Write(t, root)
			if tt.unit != "" {
				systemd := &systemdtest.Manager{Properties: map[string]map[string]any{"containerd.service": {"NRestarts": tt.restarts, "InvocationID": []byte("a"), "Result": "exit-code",
					"ExecMainCode": int32(1), "ExecMainStatus": int32(1), "ExecMainStartTimestamp": uint64(0), "InactiveExitTimestamp": ago(tt.since)}}}
				systemd.Units = append(systemd.Units, systemdtest.Unit("containerd.service", "", tt.unit))
				if tt.unit == "inactive/dead" {
					systemd.Properties["containerd.service"]["ExecMainCode"] = int32(0)
				}
				systemd.Serve(t, root)
			}
			l := plugintest.Look(t, hosttest.Open(t, root))
			l.Remember(memory{Socket: tt.answered})
			l = l.Next()
			v := (&check{slow: time.Second, start: time.Minute}).look(t.Context(), l)
			plugintest.Want(t, v, tt.status, tt.words...)
			if tt.status == plugin.Unknown && !v.Looked {
				t.Error("an earlier verdict would stand in for it")
			}
			if strings.Contains(v.Message, "kill") {
				t.Errorf("tells to kill a process that does not listen: %s", v.Message)
			}
		})
	}
}

// A runtime that starts and uses the CPU has much to recover.
func TestStartThatWorks(t *testing.T) {
	for uptime, want := range map[string]struct {
		status plugin.Status
		words  string
	}{
		"100.00": {plugin.Unknown, "container runtime is starting: containerd (pid 812) has run for 1m0s, works, and does not listen yet"},
		"700.00": {plugin.Problem, "container runtime does not start: containerd (pid 812) has run for 11m0s and listens nowhere"},
	} {
		t.Run(uptime, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			trees(node('R', "0"), listening(812), hosttest.Tree{"proc/uptime": uptime + " 1.00\n"}).Write(t, root)
			defer time.AfterFunc(time.Second, func() {
				busy := strings.Replace(stat(812, "containerd", 'R', 20), " 0 0 0 0 20 0 ", " 40 10 0 0 20 0 ", 1)
				os.WriteFile(filepath.Join(root, "proc/812/stat"), []byte(busy), 0o644)
			}).Stop()
			v := (&check{slow: time.Second, start: time.Minute}).look(t.Context(), plugintest.Look(t, hosttest.Open(t, root)))
			plugintest.Want(t, v, want.status, want.words)
		})
	}
}

// What has answered as a runtime in this boot and does so no more is down, whatever else is on the host.
func TestRuntimeIsLost(t *testing.T) {
	root := lab.ShortDir(t)
	node('S', "futex_do_wait").Write(t, root)
	c := &check{slow: 20 * time.Second, start: time.Minute}
	l := plugintest.Look(t, hosttest.Open(t, root))
	look := func(s plugin.Status, words ...string) {
		t.Helper()
		plugintest.Want(t, c.look(t.Context(), l), s, words...)
		l = l.Next()
	}
	remove := func(socket string) {
		t.Helper()
		if err := os.Remove(filepath.Join(root, socket)); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, listen(t, root, containerdSocket), "", &lab.FakeCRI{}, nil) // that of Docker
	serve(t, listen(t, root, dockerSocket), "v1", &lab.FakeCRI{}, nil)
	look(plugin.OK)
	remove(dockerSocket)
	look(plugin.Problem, "container runtime is down: "+dockerSocket+" is gone; there is no process cri-dockerd")
	lab.LeaveSocket(t, root, dockerSocket)
	look(plugin.Problem, "container runtime is down: nobody listens at "+dockerSocket)

	remove(containerdSocket) // and Docker is replaced
	serve(t, listen(t, root, containerdSocket), "v1", &lab.FakeCRI{}, nil)
	look(plugin.OK)
	remove(containerdSocket)
	remove(dockerSocket)
	serve(t, listen(t, root, containerdSocket), "", &lab.FakeCRI{}, nil)
	look(plugin.Problem, "container runtime has lost its CRI: "+containerdSocket+" answers without it")
	remove(containerdSocket)
	serve(t, listen(t, root, containerdSocket), "v1", &lab.FakeCRI{}, nil)
	look(plugin.OK)

	c.endpoint = crioSocket // where it is told to look from now on
	look(plugin.Unknown, "CRI endpoint: ", crioSocket)
}

// cri-dockerd answers with errors when dockerd has ended.
func TestDockerdHasEnded(t *testing.T) {
	for name, tt := range map[string]struct {
		process hosttest.Tree
		status  plugin.Status
		words   string
	}{
		"ended": {nil, plugin.Problem, "container runtime is down: cri-dockerd (pid 950) answers, and there is no dockerd for it to ask; docker.service is stopped"},
		"runs":  {daemonProcess(960, "dockerd"), plugin.Unknown, "the container runtime answers in time, but with an error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := lab.ShortDir(t)
			trees(node('S', "0"), daemonProcess(950, "cri-dockerd"), tt.process).Write(t, root)
			noDocker := fails(codes.Unknown, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
			serve(t, listen(t, root, dockerSocket), "v1", &lab.FakeCRI{}, behaviour{"ListContainers": noDocker, "ListPodSandbox": noDocker})
			systemd := &systemdtest.Manager{Properties: map[string]map[string]any{"docker.service": {"NRestarts": uint32(0), "InvocationID": []byte("a"), "Result": "success",
				"ExecMainCode": int32(0), "ExecMainStatus": int32(0), "ExecMainStartTimestamp": uint64(0), "InactiveExitTimestamp": uint64(0)}}}
			systemd.Units = append(systemd.Units, systemdtest.Unit("docker.service", "", "inactive/dead"))
			systemd.Serve(t, root)
			v := (&check{slow: 20 * time.Second, start: time.Minute}).look(t.Context(), plugintest.Look(t, hosttest.Open(t, root)))
			plugintest.Want(t, v, tt.status, tt.words)
		})
	}
}

// daemonProcess is one of root outside of containers.
func daemonProcess(pid int, comm string) hosttest.Tree {
	dir := fmt.Sprintf("proc/%d/", pid)
	return hosttest.Tree{dir + "stat": stat(pid, comm, 'S', 20), dir + "wchan": "0", dir + "cgroup": "0::/system.slice/x.service\n",
		dir + "status": statusFile(pid), dir + "exe": "-> /usr/bin/" + comm}
}

// Of the services behind a socket the first that systemd cannot start is told, else one that does not run.
func TestUnitOfDocker(t *testing.T) {
	for states, want := range map[[2]string]string{
		{"failed/failed", "activating/auto-restart"}: "docker.service has failed: exit status 1",
		{"active/running", "failed/failed"}:          "cri-docker.service has failed: exit status 1",
		{"active/running", "inactive/dead"}:          "cri-docker.service is stopped",
		{"active/running", "active/running"}:         "docker.service is active",
		{"", "inactive/dead"}:                        "cri-docker.service is stopped",
	} {
		root := lab.ShortDir(t)
		systemd := &systemdtest.Manager{Properties: map[string]map[string]any{}}
		for i, name := range []string{"docker.service", "cri-docker.service"} {
			systemd.Properties[name] = map[string]any{"NRestarts": uint32(0), "InvocationID": []byte("a"), "Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(1),
				"ExecMainStartTimestamp": uint64(0), "InactiveExitTimestamp": uint64(1)}
			if states[i] != "" {
				systemd.Units = append(systemd.Units, systemdtest.Unit(name, "", states[i]))
			}
		}
		systemd.Serve(t, root)
		u, err := findUnit(t.Context(), plugintest.Look(t, hosttest.Open(t, root)), unitsOf(dockerSocket)...)
		if err != nil || u == nil || u.String() != want {
			t.Errorf("%q: %v, %v; want %s", states, u, err, want)
		}
	}
}
