package lab

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// callTimeout bounds one CRI call of the lab; a sandbox takes a quarter of a second on an idle machine.
const callTimeout = time.Minute

// ContainerdConfig is what tests need to differ from containerd's defaults.
type ContainerdConfig struct {
	// Version is one of Generations, or a version of containerd 2 (v2.3.4); "" for the containerd on PATH.
	Version string
	// MaxSendMessageSize is the server's limit for one reply in bytes, 0 for containerd's own (16 MiB).
	MaxSendMessageSize int
	// Runtimes maps runtime handlers to the runc executables they use. The handler "" is the runc on PATH.
	Runtimes map[string]string
	// CNI is the network plugin, nil when all pods use the host's network.
	CNI *CNI
	// Root is a directory for images, snapshots and the database, "" for one beside the socket.
	Root string
}

// CRI is a running container runtime, with one image and the pods that a test runs on it.
type CRI struct {
	// Endpoint is the CRI endpoint (unix:///…).
	Endpoint string
	// Runtime calls it.
	Runtime runtimeapi.RuntimeServiceClient

	dir          string // of its own
	cgroupParent string
	logs         string // directory of the pods' logs, as the runtime sees it
	daemon       *exec.Cmd

	mu        sync.Mutex
	sandboxes []string
}

// Containerd is a running containerd with its data and socket in a directory of its own, and its state in one in /run,
// where a node has it.
type Containerd struct {
	CRI
	state string
}

// StartContainerd starts a containerd and imports the image PauseImage made from the pause program in binaries (see
// Binaries). Everything ends with the test. The test skips without root, containerd or runc.
func StartContainerd(t testing.TB, binaries string, config ContainerdConfig) *Containerd {
	t.Helper()
	NeedRoot(t)
	NeedCommand(t, "runc", "runc")
	daemon, ctr := containerdCommands(t, config.Version)

	c := &Containerd{CRI: CRI{dir: ShortDir(t), cgroupParent: CgroupParent(t)}}
	state, err := os.MkdirTemp("/run", "npd-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	c.state = state
	c.Endpoint, c.logs = "unix://"+filepath.Join(c.dir, "containerd.sock"), filepath.Join(c.dir, "log-pods")
	configFile := filepath.Join(c.dir, "config.toml")
	if err := os.WriteFile(configFile, []byte(c.toml(config)), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon.Args = append(daemon.Args, "--config", configFile)
	c.start(t, daemon)
	t.Cleanup(func() { c.end(t) })
	c.connect(t, config.Version)
	t.Cleanup(func() { c.RemovePods(t, slices.Clone(c.sandboxes)) })

	archive := filepath.Join(c.dir, "pause.tar")
	if err := writeImage(archive, filepath.Join(binaries, "pause")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(ctr, "-a", c.socket(), "-n", "k8s.io", "images", "import", archive).CombinedOutput(); err != nil {
		t.Fatalf("import image: %v\n%s", err, out)
	}
	return c
}

// containerdCommands returns the daemon of a generation, which finds its own shim, and the path of its ctr.
func containerdCommands(t testing.TB, version string) (daemon *exec.Cmd, ctr string) {
	t.Helper()
	if version == "" {
		return exec.Command(NeedCommand(t, "containerd", "containerd")), NeedCommand(t, "ctr", "containerd")
	}
	dir := containerdDir(t, version)
	daemon = exec.Command(filepath.Join(dir, "containerd"))
	daemon.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	return daemon, filepath.Join(dir, "ctr")
}

func (c *CRI) socket() string { return strings.TrimPrefix(c.Endpoint, "unix://") }

// toml returns the configuration, in the version that all generations read. The native snapshotter works on every filesystem, overlayfs not on an overlay.
// Without restrict_oom_score_adj no sandbox starts where root lacks CAP_SYS_RESOURCE.
func (c *Containerd) toml(config ContainerdConfig) string {
	cni := CNI{filepath.Join(c.dir, "no-cni")}
	if config.CNI != nil {
		cni = *config.CNI
	}
	var b strings.Builder
	fmt.Fprintf(&b, `version = 2
root = "%[8]s"
state = "%[9]s"
[grpc]
  address = "%[2]s"
  max_send_message_size = %[3]d
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[4]s"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[5]s"
    conf_dir = "%[6]s"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
[[plugins."io.containerd.transfer.v1.local".unpack_config]] # with which containerd 2 pulls
  platform = "linux/%[7]s"
  snapshotter = "native"
[plugins."io.containerd.nri.v1.nri"]
  disable = true # its socket is not in a directory of the lab
`, c.dir, c.socket(), config.MaxSendMessageSize, PauseImage, cni.plugins(), cni.configs(), runtime.GOARCH, cmp.Or(config.Root, filepath.Join(c.dir, "root")), c.state)
	for handler, runc := range config.Runtimes {
		fmt.Fprintf(&b, `  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.%[1]s]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.%[1]s.options]
      BinaryName = "%[2]s"
`, handler, runc)
	}
	return b.String()
}

func (c *CRI) start(t testing.TB, daemon *exec.Cmd) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatalf("start %s: %v", daemon.Path, err)
	}
	c.daemon = daemon
}

// end ends the daemon, the shims that outlive it, and what they mounted.
func (c *Containerd) end(t testing.TB) {
	c.stop(t)
	c.killShims(t)
	unmountBelow(t, c.dir)
	unmountBelow(t, c.state)
}

// stop ends the daemon.
func (c *CRI) stop(t testing.TB) {
	if t.Failed() {
		content := c.Log(t)
		t.Logf("the container runtime's last words:\n%s", content[max(0, len(content)-4096):])
	}
	c.daemon.Process.Signal(unix.SIGTERM)
	force := time.AfterFunc(10*time.Second, func() { c.daemon.Process.Kill() })
	c.daemon.Wait()
	force.Stop()
}

// Log is what the daemon has logged so far.
func (c *CRI) Log(t testing.TB) string {
	t.Helper()
	said, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

func (c *CRI) connect(t testing.TB, version string) {
	t.Helper()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(1<<30))}
	if version == "1.4" {
		options = append(options, grpc.WithUnaryInterceptor(callV1alpha2))
	}
	connection, err := grpc.NewClient(c.Endpoint, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	c.Runtime = runtimeapi.NewRuntimeServiceClient(connection)
	c.WaitReady(t) // the socket is there before the CRI service is
}

// WaitReady waits until the daemon answers.
func (c *CRI) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, 20*time.Second, "the container runtime answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		return err == nil
	})
}

// callV1alpha2 gives methods the names they have in the API before runtime.v1, whose messages read the same.
func callV1alpha2(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, strings.Replace(method, "/runtime.v1.", "/runtime.v1alpha2.", 1), req, reply, cc, opts...)
}

// RunPod starts a pod's sandbox with a runtime handler ("" for the default) and returns its id.
func (c *CRI) RunPod(ctx context.Context, pod *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m := pod.Metadata
	pod.LogDirectory = filepath.Join(c.logs, fmt.Sprintf("%s_%s_%s", m.Namespace, m.Name, m.Uid))
	pod.Linux.CgroupParent = filepath.Join(c.cgroupParent, "kubepods/burstable/pod"+m.Uid)
	reply, err := c.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod, RuntimeHandler: handler})
	if err != nil {
		return "", fmt.Errorf("run pod %s: %w", m.Name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sandboxes = append(c.sandboxes, reply.PodSandboxId)
	return reply.PodSandboxId, nil
}

// CreateContainer creates a container in a sandbox, without starting it, and returns its id. pod is the configuration
// that the sandbox was started with.
func (c *CRI) CreateContainer(ctx context.Context, sandbox string, pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := c.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandbox, Config: container, SandboxConfig: pod})
	if err != nil {
		return "", fmt.Errorf("create container %s of pod %s: %w", container.Metadata.Name, pod.Metadata.Name, err)
	}
	return reply.ContainerId, nil
}

// StartContainer starts a created container. The call ends with ctx.
func (c *CRI) StartContainer(ctx context.Context, id string) error {
	_, err := c.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	return err
}

// RunPods starts the sandboxes of many pods, a few at a time, and returns their ids in order.
func (c *CRI) RunPods(t testing.TB, pods []*runtimeapi.PodSandboxConfig) []string {
	t.Helper()
	ids := make([]string, len(pods))
	c.each(t, len(pods), func(ctx context.Context, i int) (err error) {
		ids[i], err = c.RunPod(ctx, pods[i], "")
		return err
	})
	return ids
}

// StopPods stops sandboxes: they stay in the list as not ready.
func (c *CRI) StopPods(t testing.TB, ids []string) {
	t.Helper()
	c.each(t, len(ids), func(ctx context.Context, i int) error {
		_, err := c.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: ids[i]})
		return err
	})
}

// RemovePods stops and removes sandboxes with their containers.
func (c *CRI) RemovePods(t testing.TB, ids []string) {
	t.Helper()
	c.StopPods(t, ids)
	c.each(t, len(ids), func(ctx context.Context, i int) (err error) {
		// A container whose start has just failed cannot be removed for a moment.
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if _, err = c.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: ids[i]}); err == nil {
				break
			}
		}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sandboxes = slices.DeleteFunc(c.sandboxes, func(id string) bool { return slices.Contains(ids, id) })
}

// each calls f for 0 to n-1, four at a time (more does not make containerd faster), and reports the first error.
func (c *CRI) each(t testing.TB, n int, f func(ctx context.Context, i int) error) {
	t.Helper()
	// Not the test's own context, which has ended when pods are cleaned up.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	errs := make(chan error, n)
	next := make(chan int)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					errs <- err
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	if len(errs) > 0 {
		t.Fatalf("%d of %d calls to the container runtime failed, first: %v", len(errs), n, <-errs)
	}
}

// Shims are the pids of the daemon's shims: their command lines name its socket.
func (c *Containerd) Shims() []int { return naming(c.socket()) }

// naming are the pids of the processes with that argument.
func naming(argument string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		cmdline, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(cmdline, []byte("\x00"+argument+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (c *Containerd) killShims(t testing.TB) {
	for _, pid := range c.Shims() {
		unix.Kill(pid, unix.SIGKILL)
		WaitGone(t, pid) // until then it writes to what is removed next
	}
}

// unmountBelow takes away what is mounted below dir.
func unmountBelow(t testing.TB, dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", fields[1], err)
			}
		}
	}
}
