package faults

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/test/lab"
)

// collected are pods of their own network, with kubelet's directories of those that still exist.
type collected struct {
	containerd *lab.Containerd
	cni        *lab.CNI
	kubeletDir string
}

func newCollected(t *testing.T, version string) *collected {
	t.Helper()
	c := &collected{cni: lab.NewCNI(t), kubeletDir: t.TempDir()}
	c.containerd = lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version, CNI: c.cni})
	return c
}

// run starts pods of a Deployment with a container each, as kubelet does.
func (c *collected) run(t *testing.T, replicaSet string, n int) (pods []*runtimeapi.PodSandboxConfig, ids []string) {
	t.Helper()
	for i := range n {
		pod := lab.PodConfig(replicaSet, i, 0)
		pod.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
		pods = append(pods, pod)
		if err := os.MkdirAll(c.dir(pod), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ids = c.containerd.RunPods(t, pods)
	for i, id := range ids {
		runContainer(t, &c.containerd.CRI, id, pods[i])
	}
	return pods, ids
}

func (c *collected) dir(pod *runtimeapi.PodSandboxConfig) string {
	return filepath.Join(c.kubeletDir, "pods", pod.Metadata.Uid)
}

// stopInVain stops sandboxes whose network cannot be deleted.
func (c *collected) stopInVain(t *testing.T, ids []string) {
	t.Helper()
	for _, id := range ids {
		if _, err := c.containerd.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err == nil {
			t.Fatal("the sandbox stops although its network cannot be deleted")
		}
	}
}

func TestContainerGCStalled(t *testing.T) {
	eachGeneration(t, func(t *testing.T, version string) {
		c := newCollected(t, version)
		_, healthy := c.run(t, "web-7d9c5b8f6d", 2)
		_, done := c.run(t, "job-5d8f9c7b64", 2) // finished pods that still exist
		c.containerd.StopPods(t, done)
		check := watch(t, "cri-gc", "--age=1s", "--count=4", "--kubelet-dir="+c.kubeletDir, "--cri-endpoint="+c.containerd.Endpoint)
		check.wantOK(t)
		time.Sleep(1100 * time.Millisecond)
		check.wantOK(t)

		pods, ids := c.run(t, "report-6b54c9d7f8", 4)
		c.cni.Break(t)
		c.stopInVain(t, ids) // as kubelet does of deleted pods; it keeps their directories
		check.wantOK(t)
		time.Sleep(1100 * time.Millisecond)
		check.wantProblem(t, "4 dead sandboxes not collected", "network teardown fails: 4 namespaces left in /run/netns", pods[0].Metadata.Namespace+"/"+pods[0].Metadata.Name)
		for _, pod := range pods[:2] { // a kubelet that has given up two of them
			if err := os.RemoveAll(c.dir(pod)); err != nil {
				t.Fatal(err)
			}
		}
		check.wantProblem(t, "4 dead sandboxes not collected", "network teardown fails: 4 namespaces left in /run/netns")
		time.Sleep(1100 * time.Millisecond)
		check.wantProblem(t, "4 dead sandboxes and 2 dead containers not collected", "network teardown fails: 4 namespaces left in /run/netns")

		c.cni.Heal()
		c.containerd.RemovePods(t, ids)
		check.wantOK(t)
		c.containerd.RemovePods(t, append(healthy, done...))
	})
}

// The configuration on the real node-problem-detector.
func TestContainerGCStalledOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	c := newCollected(t, "")
	d := startDetector(t, map[string][]string{"cri-gc": {"--age=1s", "--count=3", "--kubelet-dir=" + c.kubeletDir, "--cri-endpoint=" + c.containerd.Endpoint}})
	d.wait(t, "ContainerGCStalled", "DeadContainersNotCollected", false)
	pods, ids := c.run(t, "report-6b54c9d7f8", 3)
	c.cni.Break(t)
	c.stopInVain(t, ids)
	d.wait(t, "ContainerGCStalled", "DeadContainersNotCollected", true)
	d.wantSaid(t, "ContainerGCStalled", "network teardown fails: 3 namespaces left in /run/netns", pods[0].Metadata.Namespace+"/"+pods[0].Metadata.Name)
	c.cni.Heal()
	c.containerd.RemovePods(t, ids)
	d.wait(t, "ContainerGCStalled", "DeadContainersNotCollected", false)
}
