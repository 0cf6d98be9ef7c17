package lab

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"runtime"
)

// PauseImage is the only image of the lab: the pause program and nothing else.
const PauseImage = "localhost/pause:1"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// writeImage writes an OCI image layout with one layer that holds one program, as a tar archive for "ctr images
// import".
func writeImage(archive, program string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layer, err := tarOf(file{"pause", 0o755, content})
	if err != nil {
		return err
	}
	var blobs []file
	blob := func(mediaType string, content []byte) descriptor {
		sum := sha256.Sum256(content)
		hash := hex.EncodeToString(sum[:])
		blobs = append(blobs, file{"blobs/sha256/" + hash, 0o644, content})
		return descriptor{MediaType: mediaType, Digest: "sha256:" + hash, Size: len(content)}
	}
	layerBlob := blob("application/vnd.oci.image.layer.v1.tar", layer)
	config := blob("application/vnd.oci.image.config.v1+json", toJSON(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pause"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	}))
	manifest := blob("application/vnd.oci.image.manifest.v1+json", toJSON(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config, "layers": []descriptor{layerBlob},
	}))
	manifest.Annotations = map[string]string{"io.containerd.image.name": PauseImage}
	index := toJSON(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}})
	whole, err := tarOf(append(blobs,
		file{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, file{"index.json", 0o644, index})...)
	if err != nil {
		return err
	}
	return os.WriteFile(archive, whole, 0o644)
}

type file struct {
	name    string
	mode    int64
	content []byte
}

func tarOf(files ...file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only for types that JSON does not have
	}
	return b
}
