package containerd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hosttest"
)

const (
	root    = "/var/lib/containerd"
	ingests = "var/lib/containerd/io.containerd.content.v1.content/ingest/"
	blobs   = "var/lib/containerd/io.containerd.content.v1.content/blobs/"
)

var (
	now      = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	layer    = digestOf("a")
	manifest = digestOf("b")
	index    = digestOf("c")
	long     = "sha512:" + strings.Repeat("f", 128)
)

func digestOf(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

// open writes the tree, every file of it last written at now.
func open(t testing.TB, tree hosttest.Tree) *host.Root {
	t.Helper()
	dir := t.TempDir()
	tree.Write(t, dir)
	for name := range tree {
		if err := os.Chtimes(filepath.Join(dir, name), now, now); err != nil {
			t.Fatal(err)
		}
	}
	return hosttest.Open(t, dir)
}

func TestParseRef(t *testing.T) {
	tests := []struct {
		ref          string
		kind, digest string
		broken       bool
	}{
		{"k8s.io/12/layer-" + layer, "layer", layer, false},
		{"k8s.io/1/manifest-" + manifest, "manifest", manifest, false},
		{"k8s.io/3/layer-docker.io/library/a-b:1@" + layer, "layer", layer, false},
		{"k8s.io/3/layer-sha512:" + strings.Repeat("0", 128), "layer", "sha512:" + strings.Repeat("0", 128), false},
		{"default/1/import-upload", "", "", false},
		{"default/1/" + layer, "", "", false},
		{"k8s.io/1/layer-sha256:abc", "", "", false},
		{"k8s.io/1/layer-" + strings.ToUpper(layer), "", "", false},
		{"k8s.io/1/LAYER-" + layer, "", "", false},
		{"", "", "", true},
		{"\n", "", "", true},
		{"k8s.io", "", "", true},
		{"k8s.io/1/", "", "", true},
		{"k8s.io/x/layer-" + layer, "", "", true},
		{"/1/layer-" + layer, "", "", true},
		{"layer-" + layer, "", "", true},
	}
	for _, tt := range tests {
		kind, digest, err := parseRef([]byte(tt.ref))
		if kind != tt.kind || digest != tt.digest || (err != nil) != tt.broken {
			t.Errorf("%q: %q, %q, %v", tt.ref, kind, digest, err)
		}
	}
}

func TestIngests(t *testing.T) {
	h := open(t, hosttest.Tree{
		ingests + "1f/ref":       "k8s.io/1/layer-" + layer,
		ingests + "1f/data":      "12345",
		ingests + "1f/total":     "16777216",
		ingests + "1f/startedat": "2026-11-01T11:50:00.5Z",
		ingests + "1f/updatedat": "2026-11-01T11:50:00.5Z",
		ingests + "2f/ref":       "k8s.io/2/manifest-" + manifest,
		ingests + "2f/data":      "",
		ingests + "2f/total":     "many",
		ingests + "2f/startedat": "yesterday",
		ingests + "3f/":          "", // has just begun
		ingests + "4f/ref":       "k8s.io/3/layer-" + layer,
		ingests + "5f/ref":       "default/1/upload",
		ingests + "5f/data":      "1",
		ingests + "file":         "no directory",
	})
	found, err := Ingests(h, root, now)
	if err != nil {
		t.Fatal(err)
	}
	byKind := map[string]Ingest{}
	for _, in := range found {
		in.Written = in.Written.UTC()
		byKind[in.Kind] = in
	}
	want := map[string]Ingest{
		"layer": {root, "layer", layer, 5, 16777216, time.Date(2026, 11, 1, 11, 50, 0, 5e8, time.UTC), now,
			"/io.containerd.content.v1.content/ingest/1f/data"},
		"manifest": {root, "manifest", manifest, 0, 0, time.Time{}, now, "/io.containerd.content.v1.content/ingest/2f/data"},
	}
	if diff := cmp.Diff(want, byKind); diff != "" || len(found) != 2 {
		t.Errorf("%d found: %s", len(found), diff)
	}
}

// What a power failure left may be empty, and is no error when it is old.
func TestBrokenIngests(t *testing.T) {
	for name, tree := range map[string]hosttest.Tree{
		"ref is empty":          {ingests + "1f/ref": "", ingests + "1f/data": "x"},
		"ref is garbage":        {ingests + "1f/ref": "\xff\x00", ingests + "1f/data": "x"},
		"ref is long":           {ingests + "1f/ref": strings.Repeat("7", 1<<20), ingests + "1f/data": "x"},
		"data is a directory":   {ingests + "1f/ref": "k8s.io/1/layer-" + layer, ingests + "1f/data/": ""},
		"one beside a good one": {ingests + "1f/ref": "", ingests + "1f/data": "x", ingests + "2f/ref": "k8s.io/1/layer-" + layer, ingests + "2f/data": "x"},
	} {
		h := open(t, tree)
		good := strings.Count(name, "beside")
		if found, err := Ingests(h, root, now); err == nil || !strings.Contains(err.Error(), "1f is no ingest of containerd") || len(found) != good {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		if found, err := Ingests(h, root, now.Add(time.Second)); err != nil || len(found) != good {
			t.Errorf("%s, old: %+v, %v", name, found, err)
		}
	}
	if _, err := Ingests(open(t, hosttest.Tree{}), root, now); !host.Gone(err) {
		t.Errorf("no store: %v", err)
	}
	outside := filepath.Join(t.TempDir(), "ref")
	if err := os.WriteFile(outside, []byte("k8s.io/1/layer-"+layer), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, _ := Ingests(open(t, hosttest.Tree{ingests + "1f/ref": "-> " + outside, ingests + "1f/data": ""}), root, now); len(found) != 0 {
		t.Errorf("a link out of the host was followed: %+v", found)
	}
}

const (
	image = `{"schemaVersion":2,"config":{"digest":"sha256:%[2]s"},"layers":[{"digest":"%[1]s"}]%[3]s}`
	list  = `{"schemaVersion":2,"manifests":[{"digest":"%[1]s"%[2]s}]%[3]s}`
)

func blobOf(digest string) string { return blobs + strings.Replace(digest, ":", "/", 1) }

func TestManifestOf(t *testing.T) {
	const named = `,"annotations":{"io.containerd.image.name":"quay.example/shop/web:1","org.opencontainers.image.ref.name":"1"}`
	imageOf := func(digest, more string) string { return fmt.Sprintf(image, digest, strings.Repeat("d", 64), more) }
	tests := []struct {
		name string
		tree hosttest.Tree
		want Manifest
	}{
		{"nothing stored", hosttest.Tree{}, Manifest{}},
		{"a manifest", hosttest.Tree{blobOf(manifest): imageOf(layer, "")}, Manifest{Digest: manifest}},
		{"with an index", hosttest.Tree{blobOf(manifest): imageOf(layer, ""), blobOf(index): fmt.Sprintf(list, manifest, "", "")}, Manifest{manifest, index, ""}},
		{"the manifest has a name", hosttest.Tree{blobOf(manifest): imageOf(layer, named)}, Manifest{manifest, "", "quay.example/shop/web:1"}},
		{"the index has one for it", hosttest.Tree{blobOf(manifest): imageOf(layer, ""), blobOf(index): fmt.Sprintf(list, manifest, named, "")}, Manifest{manifest, index, "quay.example/shop/web:1"}},
		{"the index has one", hosttest.Tree{blobOf(manifest): imageOf(layer, ""), blobOf(index): fmt.Sprintf(list, manifest, "", named)}, Manifest{manifest, index, "quay.example/shop/web:1"}},
		{"of sha512", hosttest.Tree{blobOf(long): imageOf(layer, ""), blobOf(index): fmt.Sprintf(list, long, named, "")}, Manifest{long, index, "quay.example/shop/web:1"}},
		{"with an index of sha512", hosttest.Tree{blobOf(manifest): imageOf(layer, ""), blobOf(long): fmt.Sprintf(list, manifest, "", "")}, Manifest{manifest, long, ""}},
		{"of another layer", hosttest.Tree{blobOf(manifest): imageOf(digestOf("e"), "")}, Manifest{}},
		{"the digest stands elsewhere", hosttest.Tree{blobOf(manifest): `{"layers":[],"note":"` + layer + `"}`}, Manifest{}},
		{"no JSON", hosttest.Tree{blobOf(manifest): layer + "{{{"}, Manifest{}},
		{"of other types", hosttest.Tree{blobOf(manifest): `{"layers":"` + layer + `"}`}, Manifest{}},
		{"too large", hosttest.Tree{blobOf(manifest): imageOf(layer, "") + strings.Repeat(" ", maxManifest)}, Manifest{}},
	}
	for _, tt := range tests {
		m, ok := ManifestOf(context.Background(), open(t, tt.tree), root, layer)
		if m != tt.want || ok != (tt.want != Manifest{}) {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, m, ok, tt.want)
		}
	}
}

// Of several images with the layer, that with the newest manifest is being pulled.
func TestManifestOfShared(t *testing.T) {
	tree := hosttest.Tree{}
	for i := range 3 {
		tree[blobOf(digestOf(fmt.Sprint(i)))] = fmt.Sprintf(image, layer, strings.Repeat("d", 64), "")
	}
	dir := t.TempDir()
	tree.Write(t, dir)
	for i, age := range []time.Duration{2, 1, 3} {
		written := now.Add(-age * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, blobOf(digestOf(fmt.Sprint(i)))), written, written); err != nil {
			t.Fatal(err)
		}
	}
	if m, ok := ManifestOf(context.Background(), hosttest.Open(t, dir), root, layer); !ok || m.Digest != digestOf("1") {
		t.Errorf("%+v, %v", m, ok)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, ok := ManifestOf(ended, hosttest.Open(t, dir), root, layer); ok {
		t.Error("looked on after the deadline")
	}
}

func FuzzRef(f *testing.F) {
	for _, seed := range []string{"k8s.io/1/layer-" + layer, "k8s.io/1/layer-a@" + layer, "a/1/-@", "a/1/@", "", "//", "default/1/x-"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, digest, err := parseRef(b)
		if (kind == "") != (digest == "") || err != nil && kind != "" {
			t.Fatalf("%q, %q, %v", kind, digest, err)
		}
		if kind != "" && (!IsDigest(digest) || !isWord(kind) || !strings.HasSuffix(string(b), digest) || !strings.Contains(string(b), "/"+kind+"-")) {
			t.Errorf("%q, %q of %q", kind, digest, b)
		}
	})
}

func FuzzTimes(f *testing.F) {
	for _, seed := range []string{"2026-11-01T11:50:00.5Z", "2026-11-01T11:50:00+02:00", "16777216", "18446744073709551616", "-1", "", "\x00\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := parseTotal(b); n > 1<<63-1 {
			t.Errorf("%d bytes", n)
		}
		if began := parseTime(b); !began.IsZero() {
			text, err := began.MarshalText()
			if err == nil && !parseTime(text).Equal(began) {
				t.Errorf("%s written again is %s", b, text)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	for _, seed := range []string{fmt.Sprintf(image, layer, "d", ""), fmt.Sprintf(list, layer, "", ""), `{"layers":[null]}`, `{"annotations":{"io.containerd.image.name":"%s\n"}}`, `[]`, `null`, "{"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, ok := parseDocument(b)
		if doc.lists(layer) && !ok {
			t.Errorf("%q lists the layer and is no document", b)
		}
		doc.name(layer)
	})
}
