package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/npd"
	"npd-plugins/internal/procfs"
	"npd-plugins/internal/waits"
	"npd-plugins/test/lab"
)

// slow is the --slow of these tests: far more than a containerd needs on a busy machine, and soon over.
const slow = "--slow=3s"

// A containerd of every generation is stopped, goes on, and is killed.
func TestCRILatency(t *testing.T) {
	eachGeneration(t, func(t *testing.T, version string) {
		containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version})
		pods := podConfigs("web-7d9c5b8f6d", 0, 3)
		sandboxes := containerd.RunPods(t, pods)
		for i, sandbox := range sandboxes {
			runContainer(t, &containerd.CRI, sandbox, pods[i])
		}
		pid := containerd.PID(t)
		process := fmt.Sprintf("containerd (pid %d)", pid)
		check := watch(t, "cri-latency", slow, "--cri-endpoint", containerd.Endpoint)
		check.wantOK(t)

		containerd.Signal(t, pid, unix.SIGSTOP)
		check.wantProblem(t, "container runtime answers nothing: Version, Status, ListContainers, ListPodSandbox hang for", process+" is stopped (state T): kill -CONT "+strconv.Itoa(pid))
		containerd.Signal(t, pid, unix.SIGCONT)
		check.wantOK(t)

		// Two looks in a row, as in the configuration; what stalls for one is not told.
		twice := watch(t, "cri-latency", slow, "--cri-endpoint", containerd.Endpoint, "--failure-threshold=2")
		containerd.Signal(t, pid, unix.SIGSTOP)
		twice.wantOK(t)
		twice.wantProblem(t, "answers nothing", process)
		containerd.Signal(t, pid, unix.SIGCONT)
		twice.wantOK(t)

		containerd.RemovePods(t, sandboxes) // nobody can once it is killed
		containerd.Signal(t, pid, unix.SIGKILL)
		lab.WaitGone(t, pid)
		check.wantProblem(t, "container runtime is down: nobody listens at", "connection refused")
	})
}

// The defaults, on runtimes that hang in their lists and that answer after 11 seconds.
func TestCRILatencyDefaults(t *testing.T) {
	notInGuest(t)
	tests := []struct {
		name  string
		list  func(context.Context) // before a list of containers is answered
		words []string
	}{
		{"hangs", func(ctx context.Context) { <-ctx.Done() }, []string{"container runtime hangs in ListContainers for 12s", "Version ", "ListPodSandbox ", "a lock is held in it"}},
		{"is late", func(ctx context.Context) { wait(ctx, 11*time.Second) }, []string{"container runtime is slow: ListContainers 11", "limit 10s; in time: Version "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			runtime := new(lab.FakeCRI)
			endpoint := runtime.Serve(t, grpc.UnaryInterceptor(func(ctx context.Context, req any, call *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				if path.Base(call.FullMethod) == "ListContainers" {
					tt.list(ctx)
				}
				return handler(ctx, req)
			}))
			watch(t, "cri-latency", "--cri-endpoint", endpoint).wantProblem(t, tt.words...)
		})
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// A containerd that starts and removes pods all the time answers.
func TestCRILatencyBusy(t *testing.T) {
	notInGuest(t)
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{})
	check := watch(t, "cri-latency", "--cri-endpoint", containerd.Endpoint)
	var done atomic.Bool
	looked := make(chan int)
	go func() {
		looks := 0
		for ; !done.Load(); looks++ {
			check.wantOK(t)
		}
		looked <- looks
	}()
	for round := range 3 {
		containerd.RemovePods(t, containerd.RunPods(t, podConfigs(fmt.Sprintf("web-%d", round), 0, 12)))
	}
	done.Store(true)
	t.Logf("%d looks", <-looked)
}

// The configuration on the real node-problem-detector.
func TestCRILatencyOnDetector(t *testing.T) {
	notInGuest(t)
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{})
	pid := containerd.PID(t)
	d := startDetector(t, map[string][]string{"cri-latency": {slow, "--cri-endpoint=" + containerd.Endpoint}})
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", false)
	containerd.Signal(t, pid, unix.SIGSTOP)
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", true)
	d.wantSaid(t, "ContainerRuntimeStalled", "answers nothing", fmt.Sprintf("containerd (pid %d) is stopped", pid))
	containerd.Signal(t, pid, unix.SIGCONT)
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", false)
	containerd.Signal(t, pid, unix.SIGKILL)
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", true)
	d.wantSaid(t, "ContainerRuntimeStalled", "container runtime is down", "connection refused")
	containerd.Restart(t, "")
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", false)
	containerd.Stop(t)
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", true)
	d.wantSaid(t, "ContainerRuntimeStalled", "container runtime is down: ", "containerd.sock is gone")
}

// neverKill demands that the check advises no signal.
func neverKill(t *testing.T, result npd.PluginResult) npd.PluginResult {
	t.Helper()
	if strings.Contains(result.Message, "kill") {
		t.Errorf("advises to kill what does not listen: %s", result.Message)
	}
	return result
}

// A containerd that is stopped in order, and then started while its shims are stopped, for which it waits before it opens its
// socket.
func TestCRILatencyStart(t *testing.T) {
	notInGuest(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	for _, version := range []string{"1.6", "v2.3.4", "2.x"} {
		t.Run("containerd "+version, func(t *testing.T) {
			containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version})
			pods := podConfigs("web-7d9c5b8f6d", 0, 3)
			containerd.RunPods(t, pods)
			check := watch(t, "cri-latency", slow, "--start=3s", "--cri-endpoint", containerd.Endpoint)
			check.wantOK(t)

			containerd.Stop(t)
			check.wantProblem(t, "container runtime is down: ", "containerd.sock is gone; there is no process containerd")
			containerd.StartAgain(t, version)
			containerd.WaitReady(t)
			check.wantOK(t)

			shims := containerd.Shims()
			for _, shim := range shims {
				containerd.Signal(t, shim, unix.SIGSTOP)
			}
			containerd.Stop(t)
			pid := containerd.StartAgain(t, version)
			stalled := ""
			lab.Eventually(t, 15*time.Second, "containerd has run for a while", func() bool {
				time.Sleep(500 * time.Millisecond)
				stalled = neverKill(t, check.look(t)).Message
				return strings.Contains(stalled, "does not start")
			})
			wantWords(t, stalled, fmt.Sprintf("container runtime does not start: containerd (pid %d) has run for ", pid), "listens nowhere; containerd-shim (pid ",
				" of pod ", " is stopped (state T), and 2 more shims")
			if !slices.ContainsFunc(pods, func(p *runtimeapi.PodSandboxConfig) bool { return strings.Contains(stalled, p.Metadata.Uid) }) {
				t.Errorf("the message names no pod of a shim")
			}
			for _, shim := range shims {
				unix.Kill(shim, unix.SIGCONT)
			}
			containerd.WaitReady(t)
			check.wantOK(t)
		})
	}
}

// What is called containerd and listens nowhere is not the node's runtime for that.
func TestCRILatencyStartLookAlikes(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	dir := lab.ShortDir(t)
	program, other := filepath.Join(dir, "containerd"), filepath.Join(dir, "other/containerd")
	content, err := os.ReadFile(filepath.Join(binaries, "pause"))
	for _, do := range []func() error{
		func() error { return err },
		func() error { return os.Chmod(dir, 0o755) },
		func() error { return os.WriteFile(program, content, 0o755) },
		func() error { return os.Mkdir(filepath.Dir(other), 0o755) },
		func() error { return os.Symlink(filepath.Join(binaries, "pause"), other) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	pod, service := inPod(t), lab.NewCgroup(t, "system.slice/containerd.service")
	for name, tt := range map[string]struct {
		command *exec.Cmd
		does    syscall.SysProcAttr
		group   *lab.Cgroup
		sick    bool
	}{
		"the node's":     {exec.Command(program), syscall.SysProcAttr{}, service, true},
		"in a pod":       {exec.Command(program), syscall.SysProcAttr{}, pod, false},
		"of a user":      {exec.Command(program), syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, service, false},
		"in a namespace": {exec.Command(program), syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, service, false},
		"another":        {exec.Command(other), syscall.SysProcAttr{}, service, false},
	} {
		t.Run(name, func(t *testing.T) {
			tt.command.SysProcAttr = &tt.does
			if err := tt.command.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { tt.command.Process.Kill(); tt.command.Wait() })
			tt.group.Add(t, tt.command.Process.Pid)
			time.Sleep(1500 * time.Millisecond)
			result := neverKill(t, watch(t, "cri-latency", slow, "--start=1s", "--cri-endpoint=/run/containerd/absent.sock").look(t))
			if tt.sick {
				wantWords(t, result.Message, fmt.Sprintf("container runtime does not start: containerd (pid %d) has run for ", tt.command.Process.Pid))
			} else if result.Status != npd.Unknown {
				t.Errorf("%v, want Unknown: %s", result.Status, result.Message)
			}
		})
	}
}

// A dockerd that is stopped, and one that has ended, behind cri-dockerd.
func TestCRILatencyDocker(t *testing.T) {
	notInGuest(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	docker := lab.StartDocker(t)
	check := watch(t, "cri-latency", slow, "--cri-endpoint", docker.Endpoint)
	check.wantOK(t)
	unix.Kill(docker.PID, unix.SIGSTOP)
	result := neverKill(t, check.look(t))
	wantWords(t, result.Message, "container runtime hangs in ListContainers, ListPodSandbox for ", "cri-dockerd (pid ", fmt.Sprintf(" waits for dockerd (pid %d), which is stopped (state T)", docker.PID))
	unix.Kill(docker.PID, unix.SIGCONT)
	check.wantOK(t)
	// dockerd's own containerd has no CRI, and its socket is not the node's.
	if result := watch(t, "cri-latency", slow, "--start=1s", "--cri-endpoint=/run/containerd/absent.sock").look(t); result.Status != npd.Unknown {
		t.Errorf("%v, want Unknown: %s", result.Status, result.Message)
	}
	docker.End(t)
	check.wantProblem(t, "container runtime is down: cri-dockerd (pid ", " answers, and there is no dockerd for it to ask")
}

// A containerd in a frozen cgroup.
func TestCRILatencyFrozen(t *testing.T) {
	notInGuest(t)
	service := lab.NewCgroup(t, "system.slice/containerd.service") // which goes after the daemon in it has ended
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{})
	pid := containerd.PID(t)
	service.Add(t, pid)
	check := watch(t, "cri-latency", slow, "--cri-endpoint", containerd.Endpoint)
	check.wantOK(t)
	thaw := service.Freeze(t)
	waitForState(t, pid, 'D')
	check.wantProblem(t, "container runtime answers nothing", fmt.Sprintf("containerd (pid %d) is frozen with its cgroup %s", pid, service.Path))
	neverKill(t, check.look(t))
	thaw()
	check.wantOK(t)
}

// A task that has used up its CPU quota.
func TestThrottled(t *testing.T) {
	lab.NeedRoot(t)
	group := inPod(t)
	busy := exec.Command(lab.NeedCommand(t, "sh", "dash"), "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Process.Kill(); busy.Wait() })
	group.Add(t, busy.Process.Pid)
	h := hosttest.Open(t, "/")
	task := procfs.Of(h, busy.Process.Pid)
	if got := waits.Throttled(t.Context(), h, task); got != "" {
		t.Errorf("throttled by %s without a quota", got)
	}
	group.LimitCPU(t)
	if got := waits.Throttled(t.Context(), h, task); got != group.Path {
		t.Errorf("throttled by %q, want %s", got, group.Path)
	}
}

// A real containerd that a real systemd cannot start.
func TestCRILatencyRefusesToStart(t *testing.T) {
	notInGuest(t)
	program, err := os.ReadFile(lab.NeedCommand(t, "containerd", "containerd"))
	if err != nil {
		t.Fatal(err)
	}
	s := lab.StartSystemd(t, "252")
	s.Unit(t, "containerd", string(program))
	s.Run(t, "chmod", "755", "/run/lab/units/containerd")
	const healthy = `version = 2
root = "/run/cd/root"
state = "/run/cd/state"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/cd/opt"
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "/run/cd/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
`
	service := func(more string) {
		s.Unit(t, "containerd.service", "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\nType=notify\n"+
			"ExecStart=/run/lab/units/containerd --config /run/lab/units/config.toml\nStandardError=append:/run/lab/units/log\n"+more)
		s.Run(t, "systemctl", "daemon-reload")
	}
	t.Cleanup(func() {
		if said, err := os.ReadFile(s.Root + "/run/lab/units/log"); err == nil && t.Failed() {
			t.Logf("containerd's last words:\n%s", said[max(0, len(said)-2048):])
		}
	})
	// As on a node, whose kubelet keeps the unit in systemd while it is stopped.
	s.Unit(t, "kubelet.service", "[Unit]\nDefaultDependencies=no\nAfter=containerd.service\n[Service]\nExecStart=/bin/sleep 3600\n")
	s.Unit(t, "config.toml", healthy)
	service("Restart=always\nRestartSec=1s\n")
	s.Run(t, "systemctl", "start", "containerd.service", "kubelet.service")
	pod, outside := watchSystemd(t, s, "cri-latency", slow, "--start=5s")
	both := func(want func(w *watcher)) { want(pod); want(outside) }
	lab.Eventually(t, 10*time.Second, "containerd answers", func() bool { return pod.look(t).Status == npd.OK })
	outside.wantOK(t)

	s.Run(t, "systemctl", "restart", "containerd.service")
	both(func(w *watcher) { w.wantOK(t) })
	s.Run(t, "systemctl", "stop", "containerd.service")
	both(func(w *watcher) {
		w.wantProblem(t, "container runtime is down: /run/containerd/containerd.sock is gone; there is no process containerd; containerd.service is stopped")
	})

	s.Unit(t, "config.toml", "version = 2\nroot =\n")
	s.Run(t, "systemctl", "start", "--no-block", "containerd.service")
	lab.Eventually(t, 15*time.Second, "containerd has started three times", func() bool {
		time.Sleep(200 * time.Millisecond)
		return strings.Contains(pod.look(t).Message, "containerd.service restarts again and again (3 times)")
	})
	for _, w := range []*watcher{pod, outside} { // while it runs for a moment systemd does not tell how it ended
		lab.Eventually(t, 10*time.Second, "a look that sees how it ends", func() bool {
			return strings.Contains(w.look(t).Message, "times): exit status 1")
		})
	}
	pod.wantProblem(t, "container runtime is down: /run/containerd/containerd.sock is gone; ", "containerd.service restarts again and again (")
	fresh, _ := watchSystemd(t, s, "cri-latency", slow) // on which it has never answered
	fresh.wantProblem(t, "container runtime is down: there is no socket; ", "containerd.service restarts again and again")

	s.Run(t, "systemctl", "stop", "containerd.service")
	service("")
	s.Run(t, "systemctl", "start", "--no-block", "containerd.service")
	lab.Eventually(t, 10*time.Second, "systemd gives it up", func() bool {
		return strings.Contains(pod.look(t).Message, "containerd.service has failed: exit status 1")
	})
	fresh.wantProblem(t, "containerd.service has failed: exit status 1")

	s.Unit(t, "config.toml", healthy)
	s.Run(t, "systemctl", "start", "containerd.service")
	lab.Eventually(t, 10*time.Second, "containerd answers again", func() bool { return pod.look(t).Status == npd.OK })
	both(func(w *watcher) { w.wantOK(t) })

	s.Unit(t, "config.toml", strings.Replace(healthy, "version = 2\n", "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n", 1))
	s.Run(t, "systemctl", "restart", "containerd.service")
	both(func(w *watcher) {
		w.wantProblem(t, "container runtime has lost its CRI: /run/containerd/containerd.sock answers without it")
	})
}
