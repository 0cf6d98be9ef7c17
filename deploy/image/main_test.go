package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var platforms = []string{"linux/amd64", "linux/arm64"}

// small is a release with one check, to be quick.
func small(root string) release {
	return release{root, []string{"./plugins/zombies", "./cmd/npdctl"}, "v1.2.3", "0123abcd", time.Unix(1793534400, 0).UTC()}
}

func make2(t *testing.T, r release) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dist")
	if err := r.make(dir, platforms); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files are all below a directory.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		all[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestReproducible: another place, other dates and modes of the files and another umask make the same bytes.
func TestReproducible(t *testing.T) {
	first := files(t, make2(t, small("../..")))

	copied := filepath.Join(t.TempDir(), "elsewhere")
	for _, name := range []string{"cmd", "config", "internal", "journal-rules", "plugins"} {
		if err := os.CopyFS(filepath.Join(copied, name), os.DirFS(filepath.Join("../..", name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "LICENSE", "config/zombies.json"} {
		data, err := os.ReadFile(filepath.Join("../..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "-buildvcs=auto")
	t.Setenv("GOAMD64", "v3")
	second := files(t, make2(t, small(copied)))
	if len(first) != len(second) {
		t.Errorf("%d files, then %d", len(first), len(second))
	}
	for name, content := range first {
		if !bytes.Equal(content, second[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

// TestImage reads the layout as a registry's client does.
func TestImage(t *testing.T) {
	dir := make2(t, small("../.."))
	index, err := layout.ImageIndexFromPath(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	top, err := index.IndexManifest()
	if err != nil || len(top.Manifests) != 1 || top.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "v1.2.3" {
		t.Fatalf("%v, %+v", err, top)
	}
	inner, err := index.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	manifests, err := inner.IndexManifest()
	if err != nil || len(manifests.Manifests) != len(platforms) || manifests.Annotations["org.opencontainers.image.revision"] != "0123abcd" {
		t.Fatalf("%v, %+v", err, manifests)
	}
	for n, manifest := range manifests.Manifests {
		if manifest.Platform.String() != platforms[n] {
			t.Errorf("platform %s, want %s", manifest.Platform, platforms[n])
		}
		image, err := inner.Image(manifest.Digest)
		if err != nil {
			t.Fatal(err)
		}
		testConfig(t, image, manifest.Platform)
		contents := testLayer(t, image, map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[manifest.Platform.Architecture])
		testSBOM(t, filepath.Join(dir, "npd-plugins-linux-"+manifest.Platform.Architecture+".spdx.json"), manifest.Digest.Hex, contents)
	}
}

func testConfig(t *testing.T, image v1.Image, platform *v1.Platform) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != platform.Architecture || config.OS != "linux" || config.Created.Unix() != 1793534400 {
		t.Errorf("%s/%s of %v", config.OS, config.Architecture, config.Created)
	}
	c := config.Config
	if strings.Join(append(c.Entrypoint, c.Cmd...), " ") != "/bin/npdctl install" || c.User != "65532:65532" {
		t.Errorf("%+v", c)
	}
	want := map[string]string{"title": "npd-plugins", "version": "v1.2.3", "revision": "0123abcd", "licenses": "Apache-2.0", "created": "2026-11-01T12:00:00Z"}
	for label, value := range want {
		if got := c.Labels["org.opencontainers.image."+label]; got != value {
			t.Errorf("label %s: %q", label, got)
		}
	}
	if len(c.Labels) != len(want)+1 { // and description
		t.Errorf("labels %v", c.Labels)
	}
}

// testLayer returns the files of the image.
func testLayer(t *testing.T, image v1.Image, machine elf.Machine) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	layer, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer layer.Close()
	contents := map[string][]byte{}
	for r := tar.NewReader(layer); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || header.ModTime.Unix() != 1793534400 {
			t.Errorf("%+v", header)
		}
		mode := int64(0o644)
		if header.Typeflag == tar.TypeDir || strings.HasPrefix(header.Name, "bin/") {
			mode = 0o755
		}
		if header.Mode != mode {
			t.Errorf("%s has mode %o", header.Name, header.Mode)
		}
		if header.Typeflag == tar.TypeDir {
			continue
		}
		if contents[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"LICENSE", "bin/npdctl", "bin/zombies", "config/zombies.json", "journal-rules/kubelet.json", "journal-rules/filelog/rfc3339/kubelet.json"} {
		if contents[name] == nil {
			t.Errorf("no %s", name)
		}
	}
	for name, content := range contents {
		top, _, _ := strings.Cut(name, "/")
		if !slices.Contains([]string{"LICENSE", "bin", "config", "journal-rules"}, top) || strings.Contains(name, "testdata") || strings.HasSuffix(name, ".go") {
			t.Errorf("%s is in the image", name)
		}
		if top == "bin" {
			testStatic(t, name, content, machine)
		}
	}
	return contents
}

func testStatic(t *testing.T, name string, content []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if f.Machine != machine {
		t.Errorf("%s is for %v", name, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static", name)
		}
	}
}

// testSBOM holds an SBOM against the rules of SPDX 2.3 that a reader relies on, and against the image.
func testSBOM(t *testing.T, path, manifest string, contents map[string][]byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{d.ID: true}
	take := func(id string) {
		if ids[id] || id != "SPDXRef-"+notInIdentifier.ReplaceAllString(strings.TrimPrefix(id, "SPDXRef-"), "") {
			t.Errorf("identifier %s is there twice or not one", id)
		}
		ids[id] = true
	}
	for _, p := range d.Packages {
		take(p.ID)
	}
	var sums []string
	for _, f := range d.Files {
		take(f.ID)
		content := contents[strings.TrimPrefix(f.Name, "./")]
		sum1, sum256 := sha1.Sum(content), sha256.Sum256(content)
		if f.Checksums[0].Value != hex.EncodeToString(sum1[:]) || f.Checksums[1].Value != hex.EncodeToString(sum256[:]) {
			t.Errorf("%s is not the file of the image", f.Name)
		}
		sums = append(sums, f.Checksums[0].Value)
	}
	if len(d.Files) != len(contents) {
		t.Errorf("%d files, %d in the image", len(d.Files), len(contents))
	}
	slices.Sort(sums)
	code := sha1.Sum([]byte(strings.Join(sums, "")))
	image := d.Packages[0]
	if image.Verification.Value != hex.EncodeToString(code[:]) || image.Checksums[0].Value != manifest {
		t.Errorf("the image is %+v", image)
	}
	links := map[string]int{}
	for _, r := range d.Relationships {
		if !ids[r.Element] || !ids[r.Related] {
			t.Errorf("relationship of %s and %s, which are not there", r.Element, r.Related)
		}
		links[r.Element+" "+r.Type]++
	}
	if links["SPDXRef-DOCUMENT DESCRIBES"] != 1 || links["SPDXRef-Image CONTAINS"] != len(contents) || links["SPDXRef-File-bin-zombies STATIC_LINK"] < 3 {
		t.Errorf("relationships %v", links)
	}
	if !slices.ContainsFunc(d.Packages, func(p *pkg) bool {
		return p.Name == "github.com/sirupsen/logrus" && strings.HasPrefix(p.References[0].Locator, "pkg:golang/github.com/sirupsen/logrus@v1")
	}) || !slices.ContainsFunc(d.Packages, func(p *pkg) bool { return p.Name == "stdlib" }) {
		t.Error("modules are missing")
	}
}

// TestOnlyOwnDirectoryIsReplaced: what is not from here is not removed.
func TestOnlyOwnDirectoryIsReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := removeOld(dir); err == nil || !strings.Contains(err.Error(), "holds thesis.txt") {
		t.Error(err)
	}
	r := small("../..")
	r.packages = []string{"./plugins/none"}
	own := make2(t, release{"../..", []string{"./plugins/zombies"}, "v1", "", time.Unix(0, 0).UTC()})
	before := files(t, own)
	if err := r.make(own, platforms); err == nil || !strings.Contains(err.Error(), "build for amd64") {
		t.Error(err)
	}
	if after := files(t, own); len(after) != len(before) {
		t.Errorf("%d files left of %d", len(after), len(before))
	}
	if err := small("../..").make(own, []string{"windows/amd64"}); err == nil {
		t.Error("made an image for windows")
	}
}
