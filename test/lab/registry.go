package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Registry is an image registry on the loopback interface, to which container runtimes speak without TLS. It has one
// image under any name, behind an index, with one layer, and stops in the middle of the layer until it is told to go on.
type Registry struct {
	// Host is its address, the first part of the names of its images.
	Host string
	// Layer, Manifest and Index are digests.
	Layer, Manifest, Index string
	// LayerSize is in bytes.
	LayerSize int

	blobs map[string]blob
	layer []byte

	mu      sync.Mutex
	allowed int           // bytes of the layer that may be sent
	more    chan struct{} // closed and made anew when allowed grows
}

type blob struct {
	mediaType string
	content   []byte
}

// StartRegistry starts a registry that ends with the test. It sends half of its layer, which has about that many bytes.
func StartRegistry(t testing.TB, layerSize int) *Registry {
	t.Helper()
	random := make([]byte, layerSize)
	rand.Read(random)
	r := startRegistry(t, file{"random", 0o644, random})
	r.allowed = len(r.layer) / 2
	return r
}

// startRegistry starts a registry whose image has that file. It sends nothing of the layer yet.
func startRegistry(t testing.TB, only file) *Registry {
	t.Helper()
	layer, err := tarOf(only)
	if err != nil {
		t.Fatal(err)
	}
	r := &Registry{LayerSize: len(layer), layer: layer, blobs: map[string]blob{}, more: make(chan struct{})}
	add := func(mediaType string, content []byte) descriptor {
		sum := sha256.Sum256(content)
		d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(content)}
		r.blobs[d.Digest] = blob{mediaType, content}
		return d
	}
	layerBlob := add("application/vnd.oci.image.layer.v1.tar", layer)
	config := add("application/vnd.oci.image.config.v1+json", toJSON(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/" + only.name}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	}))
	manifest := add("application/vnd.oci.image.manifest.v1+json", toJSON(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []descriptor{layerBlob},
	}))
	const indexType = "application/vnd.oci.image.index.v1+json"
	index := add(indexType, toJSON(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []any{map[string]any{
		"mediaType": manifest.MediaType, "digest": manifest.Digest, "size": manifest.Size,
		"platform": map[string]any{"os": "linux", "architecture": runtime.GOARCH},
	}}}))
	r.Layer, r.Manifest, r.Index = layerBlob.Digest, manifest.Digest, index.Digest

	server := httptest.NewServer(r)
	r.Host = strings.TrimPrefix(server.URL, "http://")
	t.Cleanup(func() {
		r.Release()
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

// ServeHTTP answers a pull: the index for a tag, a manifest or a blob for a digest.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	name := request.URL.Path[strings.LastIndex(request.URL.Path, "/")+1:]
	if strings.Contains(request.URL.Path, "/manifests/") && !strings.Contains(name, ":") {
		name = r.Index
	}
	b, ok := r.blobs[name]
	switch {
	case request.URL.Path == "/v2/":
		return
	case !ok:
		http.NotFound(w, request)
		return
	}
	w.Header().Set("Content-Type", b.mediaType)
	w.Header().Set("Docker-Content-Digest", name)
	if name == r.Layer {
		http.ServeContent(w, request, "", time.Time{}, &heldLayer{registry: r, ctx: request.Context()})
		return
	}
	http.ServeContent(w, request, "", time.Time{}, bytes.NewReader(b.content))
}

// Allow lets the registry send that many bytes more of the layer.
func (r *Registry) Allow(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed = min(r.allowed+n, r.LayerSize)
	close(r.more)
	r.more = make(chan struct{})
}

// Release lets the registry send the whole layer.
func (r *Registry) Release() { r.Allow(r.LayerSize) }

// heldLayer reads the layer as far as that is allowed, and then waits.
type heldLayer struct {
	registry *Registry
	ctx      context.Context
	offset   int
}

func (h *heldLayer) Read(p []byte) (int, error) {
	for {
		h.registry.mu.Lock()
		allowed, more := h.registry.allowed, h.registry.more
		h.registry.mu.Unlock()
		if h.offset >= h.registry.LayerSize {
			return 0, io.EOF
		}
		if h.offset < allowed {
			n := copy(p, h.registry.layer[h.offset:allowed])
			h.offset += n
			return n, nil
		}
		select {
		case <-more:
		case <-h.ctx.Done():
			return 0, h.ctx.Err()
		}
	}
}

func (h *heldLayer) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += int64(h.offset)
	case io.SeekEnd:
		offset += int64(h.registry.LayerSize)
	}
	if offset < 0 {
		return 0, errors.New("seek before the layer")
	}
	h.offset = int(offset)
	return offset, nil
}

// Root is the directory of the daemon's data.
func (c *Containerd) Root() string { return filepath.Join(c.dir, "root") }

// Pull pulls an image through CRI, under the service name that the daemon knows. It waits until the image is there or
// ctx ends.
func (c *CRI) Pull(ctx context.Context, image string) error {
	pull := func(options ...grpc.DialOption) error {
		connection, err := grpc.NewClient(c.Endpoint, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			return err
		}
		defer connection.Close()
		_, err = runtimeapi.NewImageServiceClient(connection).PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
		return err
	}
	err := pull()
	if status.Code(err) == codes.Unimplemented {
		err = pull(grpc.WithUnaryInterceptor(callV1alpha2))
	}
	return err
}

// Restart starts the daemon of that version again after it was killed.
func (c *Containerd) Restart(t testing.TB, version string) {
	t.Helper()
	c.daemon.Wait()
	c.StartAgain(t, version)
	c.WaitReady(t)
}
