package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	content "npd-plugins/internal/containerd"
	"npd-plugins/test/lab"
)

// layerSize is that of the layer that does not arrive, of which the registry sends half.
const layerSize = 16 << 20

// pulling is a pull that goes on while the test looks.
type pulling struct {
	cancel context.CancelFunc
	result chan error
}

// startPull pulls an image and waits until its layer has arrived as far as the registry sends it.
func startPull(t *testing.T, containerd *lab.Containerd, image string) *pulling {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pulling{cancel, make(chan error, 1)}
	go func() { p.result <- containerd.Pull(ctx, image) }()
	t.Cleanup(cancel)
	lab.Eventually(t, 20*time.Second, "half of the layer arrives", func() bool {
		select {
		case err := <-p.result:
			t.Fatalf("the pull ended: %v", err)
		default:
		}
		return arrived(containerd) > layerSize/2-2<<20
	})
	return p
}

// ended waits for the end of the pull.
func (p *pulling) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.result:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the pull does not end")
		return nil
	}
}

// arrived is the size of the largest unfinished blob in bytes, 0 for none.
func arrived(containerd *lab.Containerd) (size int64) {
	files, _ := filepath.Glob(filepath.Join(containerd.Root(), "io.containerd.content.v1.content/ingest/*/data"))
	for _, name := range files {
		if info, err := os.Stat(name); err == nil {
			size = max(size, info.Size())
		}
	}
	return size
}

func shortDigest(digest string) string { return digest[:len("sha256:")+12] }

// kubeletNotes makes a host of this machine's /proc with containerd's data in that directory, on which kubelet waits for
// these images. The returned directory is the host root.
func kubeletNotes(t *testing.T, containerd *lab.Containerd, data string, images ...string) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, mount := range []struct{ from, to string }{{"/proc", "proc"}, {containerd.Root(), data}} {
		target := filepath.Join(root, mount.to)
		if err := os.MkdirAll(target, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(mount.from, target, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	}
	pulling := filepath.Join(root, "var/lib/kubelet/image_manager/pulling")
	if err := os.MkdirAll(pulling, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, image := range images {
		writeJSON(t, filepath.Join(pulling, fmt.Sprintf("sha256-%d", i)),
			map[string]any{"kind": "ImagePullIntent", "apiVersion": "kubelet.config.k8s.io/v1beta1", "image": image})
	}
	return root
}

// A registry stops in the middle of a layer. Healed by the registry, and by the end of the pull.
func TestImagePull(t *testing.T) {
	eachGeneration(t, func(t *testing.T, version string) {
		containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version})
		check := watch(t, "image-pull", "--age=2s", "--containerd-root="+containerd.Root())
		check.wantOK(t)

		registry := lab.StartRegistry(t, layerSize)
		pull := startPull(t, containerd, registry.Host+"/shop/web:1")
		check.wantOK(t)
		time.Sleep(2500 * time.Millisecond)
		check.wantProblem(t, "image pull stalled at ", "MiB of 16.0MiB for ", "layer "+shortDigest(registry.Layer), "manifest "+shortDigest(registry.Manifest), "containerd (pid ")

		onHost := func(images ...string) *watcher {
			return watch(t, "image-pull", "--age=2s", "--host-root="+kubeletNotes(t, containerd, "/var/lib/containerd", images...))
		}
		onHost(registry.Host+"/shop/web:1").wantProblem(t, registry.Host+"/shop/web:1, layer "+shortDigest(registry.Layer))
		onHost("quay.example/a@"+registry.Index, "quay.example/b:1").wantProblem(t, "quay.example/a@sha256:", "kubelet has 2 images to pull")
		onHost("quay.example/a:1", "quay.example/b:1").wantProblem(t, "manifest "+shortDigest(registry.Manifest), "kubelet has 2 images to pull: quay.example/a:1")

		for _, data := range content.Roots { // as k3s and others have it
			watch(t, "image-pull", "--age=2s", "--host-root="+kubeletNotes(t, containerd, data)).
				wantProblem(t, "layer "+shortDigest(registry.Layer), "manifest "+shortDigest(registry.Manifest))
		}

		registry.Release()
		if err := pull.ended(t); err != nil {
			t.Fatalf("the pull failed: %v", err)
		}
		check.wantOK(t)

		registry = lab.StartRegistry(t, layerSize)
		pull = startPull(t, containerd, registry.Host+"/shop/web:2")
		time.Sleep(2500 * time.Millisecond)
		check.wantProblem(t, "layer "+shortDigest(registry.Layer))
		pull.cancel()
		if err := pull.ended(t); err == nil {
			t.Error("the pull that was given up succeeded")
		}
		lab.Eventually(t, 10*time.Second, "the ingest goes with the pull", func() bool { return arrived(containerd) == 0 })
		check.wantOK(t)
	})
}

// A slow download that advances, and a fast one, are no stalled pulls.
func TestImagePullAdvances(t *testing.T) {
	eachGeneration(t, func(t *testing.T, version string) {
		containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version})
		registry := lab.StartRegistry(t, layerSize)
		check := watch(t, "image-pull", "--age=2s", "--containerd-root="+containerd.Root())
		pull := startPull(t, containerd, registry.Host+"/shop/web:1")
		// containerd writes when it has 1 MiB.
		for range 10 {
			registry.Allow(600 << 10)
			time.Sleep(500 * time.Millisecond)
			check.wantOK(t)
		}
		registry.Release()
		if err := pull.ended(t); err != nil {
			t.Fatalf("the pull failed: %v", err)
		}
		check.wantOK(t)
	})
}

// What a killed containerd leaves behind is no pull, until a pull takes it up again and hangs too.
func TestImagePullLeftBehind(t *testing.T) {
	eachGeneration(t, func(t *testing.T, version string) {
		containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version})
		registry := lab.StartRegistry(t, layerSize)
		check := watch(t, "image-pull", "--age=2s", "--containerd-root="+containerd.Root())
		pull := startPull(t, containerd, registry.Host+"/shop/web:1")
		time.Sleep(2500 * time.Millisecond)
		check.wantProblem(t, "layer "+shortDigest(registry.Layer))

		pid := containerd.PID(t)
		containerd.Signal(t, pid, unix.SIGKILL)
		lab.WaitGone(t, pid)
		if err := pull.ended(t); err == nil {
			t.Error("the pull outlived the daemon")
		}
		check.wantOK(t)
		containerd.Restart(t, version)
		time.Sleep(2500 * time.Millisecond)
		if arrived(containerd) == 0 {
			t.Error("nothing was left behind")
		}
		check.wantOK(t)

		again := startPull(t, containerd, registry.Host+"/shop/web:1")
		time.Sleep(2500 * time.Millisecond)
		check.wantProblem(t, "layer "+shortDigest(registry.Layer))
		registry.Release()
		if err := again.ended(t); err != nil {
			t.Fatalf("the pull failed: %v", err)
		}
		check.wantOK(t)
	})
}

// The configuration on the real node-problem-detector, with the fault made and healed.
func TestImagePullOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{})
	d := startDetector(t, map[string][]string{"image-pull": {"--age=2s", "--containerd-root=" + containerd.Root()}})
	d.wait(t, "ImagePullStalled", "ImageDownloadStalled", false)
	registry := lab.StartRegistry(t, layerSize)
	pull := startPull(t, containerd, registry.Host+"/shop/web:1")
	d.wait(t, "ImagePullStalled", "ImageDownloadStalled", true)
	d.wantSaid(t, "ImagePullStalled", "layer "+shortDigest(registry.Layer), "manifest "+shortDigest(registry.Manifest))
	registry.Release()
	if err := pull.ended(t); err != nil {
		t.Errorf("the pull failed: %v", err)
	}
	d.wait(t, "ImagePullStalled", "ImageDownloadStalled", false)
}
