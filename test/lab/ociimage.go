package lab

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Import imports an OCI image layout. Its images have the names base:TAG, with the tags that the layout says. It is for the
// containerd on PATH.
func (c *Containerd) Import(t testing.TB, layout, base string) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	ctr := NeedCommand(t, "ctr", "containerd")
	if out, err := exec.Command(ctr, "-a", c.socket(), "-n", "k8s.io", "images", "import", "--snapshotter", "native", "--base-name", base, archive).CombinedOutput(); err != nil {
		t.Fatalf("import image: %v\n%s", err, out)
	}
}

// RunToEnd runs a container in a sandbox until it ends, and returns its exit code and what it wrote to stdout and stderr. pod is
// the configuration that the sandbox was started with.
func (c *CRI) RunToEnd(t testing.TB, sandbox string, pod *runtimeapi.PodSandboxConfig, container *runtimeapi.ContainerConfig) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*callTimeout)
	defer cancel()
	id, err := c.CreateContainer(ctx, sandbox, pod, container)
	if err == nil {
		err = c.StartContainer(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	var status *runtimeapi.ContainerStatus
	Eventually(t, 2*callTimeout, "the container ends", func() bool {
		reply, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			t.Fatal(err)
		}
		status = reply.Status
		return status.State == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	return int(status.ExitCode), c.output(t, filepath.Join(pod.LogDirectory, container.LogPath))
}

// output is what a container's log holds, without its time stamps (k8s.io/cri-api, "time stream tag line").
func (c *CRI) output(t testing.TB, log string) string {
	t.Helper()
	var said strings.Builder
	// The log is written by another process than the one that sees the end.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		said.Reset()
		content, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
				fmt.Fprint(&said, fields[3])
			}
		}
		if said.Len() > 0 || time.Now().After(deadline) {
			return said.String()
		}
	}
}
