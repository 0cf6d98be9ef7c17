package faults

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

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
			runContainer(t, containerd, sandbox, pods[i])
		}
		pid := containerd.PID(t)
		process := fmt.Sprintf("containerd (pid %d)", pid)
		check := watch(t, "cri-latency", slow, "--cri-endpoint", containerd.Endpoint)
		check.wantOK(t)

		containerd.Signal(t, pid, unix.SIGSTOP)
		check.wantProblem(t, "container runtime answers nothing: Version, Status, ListContainers, ListPodSandbox hang for", process, "is stopped, state T", "kill -CONT "+strconv.Itoa(pid))
		containerd.Signal(t, pid, unix.SIGCONT)
		check.wantOK(t)

		// Two looks in a row, as in the configuration; what stalls for one is not told.
		twice := watch(t, "cri-latency", slow, "--cri-endpoint", containerd.Endpoint, "--for=2")
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
}
