package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/cri"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/test/lab"
)

// ociRuntimes are the runtime handlers of a lab.CRIO.
var ociRuntimes = []string{"runc", "crun"}

// onCRIO looks at the node of a CRI-O with the paths that the checks take by themselves.
func onCRIO(t *testing.T, c *lab.CRIO, check string, args ...string) *watcher {
	t.Helper()
	return watch(t, check, append([]string{"--host-root=" + c.HostRoot}, args...)...)
}

// runOnCRIO starts a pod with a container of one of the OCI runtimes, with kubelet's directory of the pod.
func runOnCRIO(t *testing.T, c *lab.CRIO, pod *runtimeapi.PodSandboxConfig, handler string) (sandbox, container string) {
	t.Helper()
	sandbox, container = createOnCRIO(t, c, pod, handler)
	if err := c.StartContainer(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	return sandbox, container
}

// createOnCRIO creates the container and does not start it.
func createOnCRIO(t *testing.T, c *lab.CRIO, pod *runtimeapi.PodSandboxConfig, handler string) (sandbox, container string) {
	t.Helper()
	if err := os.MkdirAll(kubeletDirOnCRIO(c, pod), 0o755); err != nil {
		t.Fatal(err)
	}
	sandbox, err := c.RunPod(t.Context(), pod, handler)
	if err == nil {
		container, err = c.CreateContainer(t.Context(), sandbox, pod, lab.ContainerConfig(pod, "main"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return sandbox, container
}

func kubeletDirOnCRIO(c *lab.CRIO, pod *runtimeapi.PodSandboxConfig) string {
	return c.Path("/var/lib/kubelet/pods/" + pod.Metadata.Uid)
}

func podName(pod *runtimeapi.PodSandboxConfig) string {
	return pod.Metadata.Namespace + "/" + pod.Metadata.Name
}

// CRI-O's own limit for what it sends, 80 MiB, is above what kubelet takes: such a list is not refused, and kubelet fails.
func TestCRIListSizeOnCRIO(t *testing.T) {
	notInGuest(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	check := onCRIO(t, c, "cri-list-size", "--limit=1MiB")
	check.wantOK(t)
	for i, handler := range ociRuntimes {
		runOnCRIO(t, c, lab.PodConfig("web-7d9c5b8f6d", i, 0), handler)
	}
	leaked := c.RunPods(t, podConfigs("report-6b54c9d7f8", 0, 30))
	check.wantOK(t)
	for i, handler := range ociRuntimes {
		pod := lab.PodConfig("job-5d8f9c7b64", i, 0)
		sandbox, _ := runOnCRIO(t, c, pod, handler)
		leaked = append(leaked, sandbox)
	}
	leaked = append(leaked, c.RunPods(t, podConfigs("report-6b54c9d7f8", 30, 140))...)
	c.StopPods(t, leaked)
	if _, err := c.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{}); err != nil {
		t.Fatalf("CRI-O sends no more than 1 MiB: %v", err)
	}
	check.wantProblem(t, "ListPodSandbox", "1MiB", "2 exited containers", "142 NotReady sandboxes", "production/report", "streaming lists")
	c.RemovePods(t, leaked)
	check.wantOK(t)
}

// A CRI-O whose grpc_max_send_msg_size is lowered refuses, as containerd does.
func TestCRIListRefusedOnCRIO(t *testing.T) {
	notInGuest(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{MaxSendMessageSize: 1 << 20})
	check := onCRIO(t, c, "cri-list-size")
	leaked := c.RunPods(t, podConfigs("report-6b54c9d7f8", 0, 60))
	check.wantOK(t) // of kubelet's 16 MiB this is nothing
	c.StopPods(t, leaked)
	leaked = append(leaked, c.RunPods(t, podConfigs("report-6b54c9d7f8", 60, 140))...)
	if _, err := c.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{}); err == nil {
		t.Fatal("the server still sends the list")
	}
	check.wantProblem(t, "refuses ListPodSandbox", "1MiB", "60 NotReady sandboxes", "production/report")
	c.RemovePods(t, leaked)
	check.wantOK(t)
}

func TestContainerGCStalledOnCRIO(t *testing.T) {
	notInGuest(t)
	cni := lab.NewCNI(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{CNI: cni})
	run := func(replicaSet string, n int) (pods []*runtimeapi.PodSandboxConfig, ids, containers []string) {
		for i := range n {
			pod := lab.PodConfig(replicaSet, i, 0)
			pod.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
			sandbox, container := runOnCRIO(t, c, pod, ociRuntimes[i%len(ociRuntimes)])
			pods, ids, containers = append(pods, pod), append(ids, sandbox), append(containers, container)
		}
		return pods, ids, containers
	}
	// deleted pods, of which kubelet does not remove what the runtime has
	removeDirs := func(pods []*runtimeapi.PodSandboxConfig) {
		for _, pod := range pods {
			if err := os.RemoveAll(kubeletDirOnCRIO(c, pod)); err != nil {
				t.Fatal(err)
			}
		}
	}
	const age = 1100 * time.Millisecond
	check := onCRIO(t, c, "cri-gc", "--age=1s", "--count=4")
	_, healthy, _ := run("web-7d9c5b8f6d", 2)
	_, done, _ := run("done-5d8f9c7b64", 2) // finished pods that still exist
	c.StopPods(t, done)
	check.wantOK(t)
	time.Sleep(age)
	check.wantOK(t)

	pods, ids, containers := run("report-6b54c9d7f8", 4)
	networkOf(t, c, ids[0])
	c.StopPods(t, ids)
	for _, container := range containers[2:] {
		if _, err := c.Runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: container}); err != nil {
			t.Fatal(err)
		}
	}
	check.wantOK(t)
	time.Sleep(age)
	check.wantOK(t) // one container of each, and the last sandboxes of pods that still exist
	removeDirs(pods)
	check.wantOK(t) // not for so long
	time.Sleep(age)
	check.wantProblem(t, "2 dead sandboxes and 2 dead containers not collected", podName(pods[0]))
	c.RemovePods(t, ids)
	check.wantOK(t)

	// CRI-O gives up a network after one DEL that fails: kubelet's second attempt succeeds.
	pods, ids, _ = run("stats-6b54c9d7f8", 4)
	cni.Break(t)
	for _, id := range ids {
		if _, err := c.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err == nil {
			t.Error("the sandbox stops although its network cannot be deleted")
		}
	}
	c.StopPods(t, ids)
	check.wantOK(t)
	time.Sleep(age)
	check.wantOK(t)
	removeDirs(pods)
	check.wantOK(t)
	time.Sleep(age)
	check.wantProblem(t, "4 dead containers not collected", podName(pods[0]))
	cni.Heal()
	c.RemovePods(t, append(append(ids, healthy...), done...))
	check.wantOK(t)
}

// networkOf demands that the network namespace that CRI-O tells of a sandbox is there.
func networkOf(t *testing.T, c *lab.CRIO, sandbox string) {
	t.Helper()
	client, err := cri.Connect(t.Context(), hosttest.Open(t, c.HostRoot), "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	path, err := client.NetworkNamespace(t.Context(), sandbox)
	name, ok := strings.CutPrefix(path, "/var/run/netns/")
	if err != nil || !ok {
		t.Fatalf("network namespace %q: %v", path, err)
	}
	if _, err := os.Stat(c.Path("/run/netns/" + name)); err != nil {
		t.Error(err)
	}
}

func TestCRILatencyOnCRIO(t *testing.T) {
	notInGuest(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	for i, handler := range ociRuntimes {
		runOnCRIO(t, c, lab.PodConfig("web-7d9c5b8f6d", i, 0), handler)
	}
	pid := c.PID(t)
	process := fmt.Sprintf("crio (pid %d)", pid)
	check := onCRIO(t, c, "cri-latency", slow)
	check.wantOK(t)

	c.Signal(t, pid, unix.SIGSTOP)
	check.wantProblem(t, "container runtime answers nothing", process+" is stopped", "kill -CONT "+strconv.Itoa(pid))
	c.Signal(t, pid, unix.SIGCONT)
	check.wantOK(t)

	c.Signal(t, pid, unix.SIGKILL)
	lab.WaitGone(t, pid)
	check.wantProblem(t, "container runtime is down: nobody listens at /run/crio/crio.sock", "connection refused")
	c.Restart(t)
	check.wantOK(t)
}

// The configuration on the real node-problem-detector.
func TestCRILatencyOnDetectorOnCRIO(t *testing.T) {
	notInGuest(t)
	lab.NeedDetector(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	pid := c.PID(t)
	d := startDetector(t, map[string][]string{"cri-latency": {slow, "--host-root=" + c.HostRoot}})
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", false)
	c.Signal(t, pid, unix.SIGSTOP)
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", true)
	d.wantSaid(t, "ContainerRuntimeStalled", "answers nothing", fmt.Sprintf("crio (pid %d) is stopped", pid))
	c.Signal(t, pid, unix.SIGCONT)
	d.wait(t, "ContainerRuntimeStalled", "ContainerRuntimeHangs", false)
}

// A container that is created and not started, with either OCI runtime. What waits in it is a process runc:[2:INIT] or crun.
func TestRuncInitOnCRIO(t *testing.T) {
	notInGuest(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	for i, handler := range ociRuntimes {
		t.Run(handler, func(t *testing.T) {
			pod := lab.PodConfig("web-7d9c5b8f6d", i, 0)
			sandbox, container := createOnCRIO(t, c, pod, handler)
			t.Logf("created container: %v", processesOf(t, container))
			patient, check := onCRIO(t, c, "runc-init", "--age=1m"), onCRIO(t, c, "runc-init", "--age=1s")
			time.Sleep(1100 * time.Millisecond)
			patient.wantOK(t)
			check.wantProblem(t, podName(pod), container[:12])
			if err := c.StartContainer(t.Context(), container); err != nil {
				t.Fatal(err)
			}
			check.wantOK(t)

			want := cgroup.Owner{PodUID: pod.Metadata.Uid, Container: container}
			for pid, comm := range processesOf(t, container) {
				file, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
				if got := cgroup.OwnerOfProcess(file); err != nil || got != want || comm != "pause" {
					t.Errorf("%s belongs to %+v, want pause of %+v: %v", comm, got, want, err)
				}
			}
			c.RemovePods(t, []string{sandbox})
		})
	}
}

// processesOf are the processes in the cgroups that have the container's id in their names.
func processesOf(t *testing.T, container string) map[int]string {
	t.Helper()
	found := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, f := range files {
		content, _ := os.ReadFile(f)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && strings.Contains(string(content), container) {
			comm, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "comm"))
			found[pid] = strings.TrimSpace(string(comm))
		}
	}
	return found
}

// What happens in a container of CRI-O has the name of its pod.
func TestZombiesOnCRIO(t *testing.T) {
	notInGuest(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	check := onCRIO(t, c, "zombies", "--count=50")
	check.wantOK(t)
	for i, handler := range ociRuntimes {
		pod := lab.PodConfig("web-7d9c5b8f6d", i, 0)
		_, container := runOnCRIO(t, c, pod, handler)
		culprit := lab.StartCulprit(t)
		enterContainer(t, culprit.Pid, container)
		culprit.Zombies(t, 60)
		check.look(t) // they count from the second look on
		check.wantProblem(t, podName(pod), culprit.Comm)
		culprit.Stop()
		check.wantOK(t)
	}
}

// enterContainer moves a process into the cgroups of a container's first process.
func enterContainer(t *testing.T, pid int, container string) {
	t.Helper()
	for of, comm := range processesOf(t, container) {
		if comm != "pause" {
			continue
		}
		file, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", of))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(file)) {
			parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if parts[1] != "pids" && parts[0] != "0" || !strings.Contains(parts[2], container) {
				continue
			}
			procs := filepath.Join("/sys/fs/cgroup", parts[1], parts[2], "cgroup.procs")
			if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the container has no cgroup with its name")
}

// pullOnCRIO pulls an image and waits until its layer has arrived as far as the registry sends it.
func pullOnCRIO(t *testing.T, c *lab.CRIO, image string) *pulling {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pulling{cancel, make(chan error, 1)}
	go func() { p.result <- c.Pull(ctx, image) }()
	t.Cleanup(cancel)
	lab.Eventually(t, 20*time.Second, "half of the layer arrives", func() bool { return len(halves(c)) > 0 })
	return p
}

// halves are the files that hold some half of the layer.
func halves(c *lab.CRIO) (found []string) {
	files, _ := filepath.Glob(c.Path("/var/tmp/*storage*/*")) // of older releases of the library storage*
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.Size() > layerSize/2-1<<20 {
			found = append(found, f)
		}
	}
	return found
}

func TestImagePullOnCRIO(t *testing.T) {
	notInGuest(t)
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	check := onCRIO(t, c, "image-pull", "--age=2s")
	check.wantOK(t)
	stall := func(image string) (*lab.Registry, *pulling) {
		t.Helper()
		registry := lab.StartRegistry(t, layerSize)
		pull := pullOnCRIO(t, c, registry.Host+image)
		check.wantOK(t)
		time.Sleep(2500 * time.Millisecond)
		check.wantProblem(t, "image pull stalled at 8", fmt.Sprintf("crio (pid %d) waits", c.PID(t)))
		return registry, pull
	}

	registry, pull := stall("/shop/web:1")
	notes := c.Path("/var/lib/kubelet/image_manager/pulling") // kubelet's
	if err := os.MkdirAll(notes, 0o755); err != nil {
		t.Fatal(err)
	}
	writeJSON(t, filepath.Join(notes, "sha256-1"), map[string]any{"kind": "ImagePullIntent", "apiVersion": "kubelet.config.k8s.io/v1beta1", "image": registry.Host + "/shop/web:1"})
	check.wantProblem(t, registry.Host+"/shop/web:1; crio (pid ")
	for range 3 { // a slow download that advances
		registry.Allow(600 << 10)
		time.Sleep(500 * time.Millisecond)
		check.wantOK(t)
	}
	registry.Release()
	if err := pull.ended(t); err != nil {
		t.Fatalf("the pull failed: %v", err)
	}
	check.wantOK(t)
	if err := os.RemoveAll(notes); err != nil {
		t.Fatal(err)
	}

	_, pull = stall("/shop/web:2") // what a killed CRI-O leaves behind
	pid := c.PID(t)
	c.Signal(t, pid, unix.SIGKILL)
	lab.WaitGone(t, pid)
	if err := pull.ended(t); err == nil {
		t.Error("the pull outlived the daemon")
	}
	if len(halves(c)) == 0 {
		t.Error("nothing was left behind")
	}
	check.wantOK(t)
	c.Restart(t)
	time.Sleep(2500 * time.Millisecond)
	check.wantOK(t)
}

// A stalled download of another tool with the same library and the same names of files is no pull of the node.
func TestImagePullOfOthersOnCRIO(t *testing.T) {
	notInGuest(t)
	skopeo := lab.NeedCommand(t, "skopeo", "skopeo")
	c := lab.StartCRIO(t, binaries, lab.CRIOConfig{})
	check := onCRIO(t, c, "image-pull", "--age=2s")
	registry := lab.StartRegistry(t, layerSize)
	download := c.Command(skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+registry.Host+"/shop/web:1",
		"containers-storage:[vfs@/var/lib/skopeo+/run/skopeo]shop/web:1")
	if err := download.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { download.Process.Kill() })
	lab.Eventually(t, 20*time.Second, "half of the layer arrives", func() bool { return len(halves(c)) > 0 })
	time.Sleep(2500 * time.Millisecond)
	check.wantOK(t)
	registry.Release()
	if err := download.Wait(); err != nil {
		t.Errorf("skopeo: %v", err)
	}
}
