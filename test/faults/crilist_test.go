package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// manifestBytes is the size of the annotation that kubectl apply leaves on each pod of this test; some 120 such pods
// fill a list reply of 1 MiB.
const manifestBytes = 8 << 10

// runReport starts the pods from the first to before the last of a job that leaks them.
func runReport(t *testing.T, containerd *lab.Containerd, first, last int) (ids []string) {
	t.Helper()
	return containerd.RunPods(t, podConfigs("report-6b54c9d7f8", first, last))
}

func podConfigs(replicaSet string, first, last int) (pods []*runtimeapi.PodSandboxConfig) {
	for i := first; i < last; i++ {
		pods = append(pods, lab.PodConfig(replicaSet, i, manifestBytes))
	}
	return pods
}

func TestCRIListSize(t *testing.T) {
	notInGuest(t)
	const limit = 1 << 20
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{MaxSendMessageSize: limit})
	check := watch(t, "cri-list-size", "--limit", "1MiB", "--cri-endpoint", containerd.Endpoint)
	check.wantOK(t)

	healthy := podConfigs("web-7d9c5b8f6d", 0, 10)
	for i, sandbox := range containerd.RunPods(t, healthy) {
		runContainer(t, &containerd.CRI, sandbox, healthy[i])
	}
	check.wantOK(t)
	leaked := runReport(t, containerd, 0, 30)
	check.wantOK(t)
	for i, pod := range podConfigs("report-6b54c9d7f8", 0, 5) {
		runContainer(t, &containerd.CRI, leaked[i], pod)
	}
	leaked = append(leaked, runReport(t, containerd, 30, 65)...)
	containerd.StopPods(t, leaked)
	check.wantProblem(t, "ListPodSandbox", "1MiB", "5 exited containers", "65 NotReady sandboxes", "production/report", "full in about")

	leaked = append(leaked, runReport(t, containerd, 65, 130)...)
	_, err := containerd.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	t.Logf("with 140 pods ListPodSandbox says: %v", err)
	if err == nil {
		t.Fatal("the server still sends the list")
	}
	check.wantProblem(t, "refuses ListPodSandbox", "1MiB", "5 exited containers", "65 NotReady sandboxes", "production/report")
	containerd.StopPods(t, leaked) // now those not ready are too many for a list of their own
	check.wantProblem(t, "refuses ListPodSandbox", "5 exited containers", "of NotReady sandboxes; most: production/report-* about 1.")
	atOnce := watch(t, "cri-list-size", "--limit", "1MiB", "--cri-endpoint", containerd.Endpoint)
	atOnce.wantProblem(t, "refuses ListPodSandbox", "of NotReady sandboxes; most: production/report-* about 1.")
	wantNamedDespiteHungLogs(t, containerd)

	containerd.RemovePods(t, leaked)
	check.wantOK(t)
}

// wantNamedDespiteHungLogs looks for the first time where kubelet's directory of logs is on a file system that does not
// answer: the check names who fills the list all the same, and ends.
func wantNamedDespiteHungLogs(t *testing.T, containerd *lab.Containerd) {
	t.Helper()
	root, socket := filepath.Split(strings.TrimPrefix(containerd.Endpoint, "unix://"))
	logs := filepath.Join(root, "var/log/pods")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	fuse := lab.StartFuse(t)
	if err := unix.Mount(fuse.Dir, logs, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(logs, unix.MNT_DETACH)
	fuse.Silence(t)
	check := watch(t, "cri-list-size", "--limit", "1MiB", "--host-root", root, "--cri-endpoint", "/"+socket, "--log-level", "info")
	result := check.look(t)
	if result.Status != npd.NonOK || result.Hung || !strings.Contains(result.Message, "most: production/report-* about 1.") || !strings.Contains(result.Stderr, "the pods with logs are not known") {
		t.Errorf("hung %v; want a Problem that names the owner, and a word on stderr:\n%s", result.Hung, result.Stderr)
	}
	fuse.Stop(t)
}

func runContainer(t *testing.T, containerd *lab.CRI, sandbox string, pod *runtimeapi.PodSandboxConfig) {
	t.Helper()
	id, err := containerd.CreateContainer(t.Context(), sandbox, pod, lab.ContainerConfig(pod, "main"))
	if err == nil {
		err = containerd.StartContainer(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
}
