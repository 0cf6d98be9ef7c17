package corpus

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
)

const (
	registryAddress = "127.0.0.1:5000" // containerd speaks plain HTTP to a registry on the loopback
	manifestType    = "application/vnd.oci.image.manifest.v1+json"
)

// registry serves images of one program. Every repository but "absent" exists and holds one image, of its own, so that
// the first container of each is a real pull.
type registry struct{ program []byte }

func newRegistry(t testing.TB, program string) *registry {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return &registry{content}
}

func image(repository string) string { return registryAddress + "/" + repository + ":1" }

// ServeHTTP answers the two requests of a pull: GET or HEAD of /v2/<name>/manifests/<tag or digest> and /v2/<name>/blobs/<digest>.
func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	parts := strings.Split(strings.Trim(request.URL.Path, "/"), "/")
	if len(parts) != 4 || parts[1] == "absent" {
		http.Error(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	blobs, manifest := r.image(parts[1])
	content := blobs[parts[3]]
	if parts[2] == "manifests" {
		content = manifest
		w.Header().Set("Content-Type", manifestType)
		w.Header().Set("Docker-Content-Digest", digest(content))
	}
	if content == nil {
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	if request.Method != http.MethodHead {
		w.Write(content)
	}
}

// image returns the blobs by digest and the manifest of a repository's only image.
func (r *registry) image(name string) (blobs map[string][]byte, manifest []byte) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, path := range []string{"app", "name"} {
		content := r.program
		if path == "name" { // makes the layer, and so the image, one of its own
			content = []byte(name)
		}
		w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg})
		w.Write(content)
	}
	w.Close()
	return r.describe(layer.Bytes())
}

func (r *registry) describe(layer []byte) (blobs map[string][]byte, manifest []byte) {
	config := marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/app"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	descriptor := func(mediaType string, content []byte) map[string]any {
		return map[string]any{"mediaType": mediaType, "digest": digest(content), "size": len(content)}
	}
	manifest = marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	return map[string][]byte{digest(layer): layer, digest(config): config}, manifest
}

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only for types that JSON does not have
	}
	return b
}
