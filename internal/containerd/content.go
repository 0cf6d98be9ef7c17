// Package containerd reads the content store of containerd, the files in which
// it keeps what it pulls, without asking containerd.
package containerd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/host"
)

// Roots are the directories of containerd's data unless its config.toml has
// another root.
var Roots = distribution.Every(func(d *distribution.Distribution) []string {
	if !d.Is(distribution.Containerd) {
		return nil
	}
	return []string{d.Storage}
})

// contentDir is the directory of the content store below the root, the same in
// containerd 1.0 to 2.x.
const contentDir = "io.containerd.content.v1.content"

// Ingest is a blob that is being written, or that was when containerd was
// killed.
type Ingest struct {
	Root    string    // that it is below
	Kind    string    // what containerd takes it for: layer, config, manifest, index, attestation, unknown
	Digest  string    // of the whole blob: sha256:...
	Size    uint64    // written so far, in bytes
	Total   uint64    // in bytes, 0 when the registry did not say
	Begun   time.Time // zero when that cannot be read; a resumed ingest keeps that of its first beginning
	Written time.Time // of the last write

	// DataFile ends the path of the file that is written. The path begins with
	// the root as the daemon sees it, which may be another mount.
	DataFile string
}

// maxIngests bounds how many ingests are looked at. containerd fetches 3 layers
// of an image at a time by default.
const maxIngests = 2000

// Ingests lists the blobs of image pulls that are being written below the root
// of a containerd. Others, such as those of an import, are left out.
//
// An ingest whose files are not what containerd writes (content/local/store.go)
// is an error beside the others, unless it was last written before stale: what
// a power failure leaves behind may be empty.
func Ingests(h *host.Root, root string, stale time.Time) (found []Ingest, err error) {
	dir := path.Join(root, contentDir, "ingest")
	names, err := h.ReadNames(dir, maxIngests)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		in, ok, readErr := readIngest(h, dir, name, stale)
		if readErr != nil {
			err = readErr
		}
		if ok {
			in.Root = root
			found = append(found, in)
		}
	}
	return found, err
}

// readIngest reads one directory. ok is false for what is no pull, or is gone
// or not complete yet, as it is for a moment at the beginning and at the end.
func readIngest(h *host.Root, dir, name string, stale time.Time) (in Ingest, ok bool, err error) {
	dir = path.Join(dir, name)
	ref, err := readSmall(h, dir+"/ref")
	if host.Gone(err) || errors.Is(err, unix.ENOTDIR) {
		return in, false, nil
	}
	if err != nil {
		return in, false, err
	}
	data, err := h.Stat(dir + "/data")
	if host.Gone(err) {
		return in, false, nil
	}
	if err != nil {
		return in, false, err
	}
	kind, digest, err := parseRef(ref)
	if err == nil && !data.Mode().IsRegular() {
		err = errors.New("data is no file")
	}
	if err != nil {
		if data.ModTime().Before(stale) {
			return in, false, nil
		}
		return in, false, fmt.Errorf("%s is no ingest of containerd: %w", h.Path(dir), err)
	}
	in = Ingest{Kind: kind, Digest: digest, Size: uint64(data.Size()), Written: data.ModTime(),
		DataFile: path.Join("/", contentDir, "ingest", name, "data")}
	if b, err := readSmall(h, dir+"/total"); err == nil {
		in.Total = parseTotal(b)
	}
	if b, err := readSmall(h, dir+"/startedat"); err == nil {
		in.Begun = parseTime(b)
	}
	return in, kind != "", nil
}

// parseRef reads namespace/number/key (metadata/content.go). Of a pull the key
// is kind-digest, or kind-name@digest when the index names the blob
// (remotes/handlers.go, MakeRefKey). Other keys give kind "".
func parseRef(ref []byte) (kind, digest string, err error) {
	parts := strings.SplitN(string(ref), "/", 3)
	if len(parts) < 3 || parts[0] == "" || parts[2] == "" {
		return "", "", errors.New("the ref is not namespace/number/key")
	}
	if _, err := strconv.ParseUint(parts[1], 10, 64); err != nil {
		return "", "", errors.New("the ref has no number")
	}
	key := parts[2]
	kind, _, _ = strings.Cut(key, "-")
	digest = key[strings.LastIndexAny(key, "-@")+1:]
	if !isWord(kind) || !IsDigest(digest) || len(kind)+len(digest)+1 > len(key) {
		return "", "", nil
	}
	return kind, digest, nil
}

func isWord(s string) bool {
	return s != "" && len(s) <= 20 && strings.IndexFunc(s, func(r rune) bool { return r < 'a' || r > 'z' }) < 0
}

// IsDigest says whether s is a digest as OCI writes it: sha256 or sha512, a
// colon and hexadecimal digits.
func IsDigest(s string) bool {
	algorithm, hex, _ := strings.Cut(s, ":")
	if !(algorithm == "sha256" && len(hex) == 64 || algorithm == "sha512" && len(hex) == 128) {
		return false
	}
	return strings.IndexFunc(hex, func(r rune) bool { return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'f') }) < 0
}

func parseTotal(b []byte) uint64 {
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// parseTime reads RFC 3339, which is what time.Time.MarshalText writes.
func parseTime(b []byte) time.Time {
	var t time.Time
	if t.UnmarshalText(bytes.TrimSpace(b)) != nil {
		return time.Time{}
	}
	return t
}

// maxSmall is the largest file of an ingest that is read, in bytes. A ref is
// 100 bytes long, or 300 with a name.
const maxSmall = 8 << 10

func readSmall(h *host.Root, name string) ([]byte, error) {
	f, err := h.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSmall))
}

// Manifest is what the stored manifest of an image tells of it.
type Manifest struct {
	Digest string // of the manifest
	Index  string // digest of the index that lists the manifest, "" when none is stored
	Name   string // that the index or the manifest gives the image, "" when none does
}

const (
	maxBlobs    = 50000   // names of blobs of an algorithm that are looked at
	maxManifest = 1 << 20 // bytes; the largest that are seen have some 50 KiB
	maxRead     = 300     // blobs small enough for a manifest that are read, the newest first
)

// ManifestOf finds the image with that blob: the newest stored manifest that
// lists it. A blob that several images share is in several manifests.
func ManifestOf(ctx context.Context, h *host.Root, root, digest string) (m Manifest, ok bool) {
	dir := path.Join(root, contentDir, "blobs")
	blobs := smallBlobs(ctx, h, dir)
	find := func(digest string) (document, string, bool) {
		for _, b := range blobs {
			if ctx.Err() != nil {
				break
			}
			content, err := h.ReadFile(path.Join(dir, b.algorithm, b.name))
			if err != nil || !bytes.Contains(content, []byte(digest)) {
				continue
			}
			if doc, ok := parseDocument(content); ok && doc.lists(digest) {
				return doc, b.algorithm + ":" + b.name, true
			}
		}
		return document{}, "", false
	}
	manifest, name, ok := find(digest)
	if !ok {
		return m, false
	}
	m = Manifest{Digest: name, Name: manifest.name("")}
	if index, name, ok := find(m.Digest); ok {
		m.Index = name
		m.Name = cmp.Or(index.name(m.Digest), m.Name)
	}
	return m, true
}

// algorithms are the directories of blobs, and the first part of their digests.
var algorithms = []string{"sha256", "sha512"}

// blob is a file of the content store.
type blob struct {
	algorithm, name string
	written         int64 // in ns since 1970
}

// smallBlobs are the blobs that may be manifests, the newest first. A commit
// sets the modification time.
func smallBlobs(ctx context.Context, h *host.Root, blobs string) []blob {
	var small []blob
	for _, algorithm := range algorithms {
		small = append(small, smallBlobsOf(ctx, h, blobs, algorithm)...)
	}
	slices.SortFunc(small, func(a, b blob) int { return cmp.Or(cmp.Compare(b.written, a.written), cmp.Compare(a.name, b.name)) })
	return small[:min(len(small), maxRead)]
}

func smallBlobsOf(ctx context.Context, h *host.Root, blobs, algorithm string) (small []blob) {
	dir, err := h.Open(path.Join(blobs, algorithm))
	if err != nil {
		return nil
	}
	defer dir.Close()
	for seen := 0; seen < maxBlobs && ctx.Err() == nil; {
		names, err := dir.Readdirnames(512)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size <= maxManifest {
				small = append(small, blob{algorithm, name, st.Mtim.Nano()})
			}
		}
		seen += len(names)
		if err != nil {
			break
		}
	}
	return small
}

// document is an image manifest or an index of OCI or Docker.
type document struct {
	Config      descriptor        `json:"config"`
	Layers      []descriptor      `json:"layers"`
	Manifests   []descriptor      `json:"manifests"`
	Annotations map[string]string `json:"annotations"`
}

type descriptor struct {
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func parseDocument(b []byte) (doc document, ok bool) {
	if err := json.Unmarshal(b, &doc); err != nil {
		return document{}, false
	}
	return doc, true
}

func (d document) lists(digest string) bool {
	is := func(x descriptor) bool { return x.Digest == digest }
	return is(d.Config) || slices.ContainsFunc(d.Layers, is) || slices.ContainsFunc(d.Manifests, is)
}

// name is what the annotations call the image: of the descriptor with that
// digest, else of the document. Few builders set them.
func (d document) name(digest string) string {
	for _, m := range d.Manifests {
		if name := annotatedName(m.Annotations); m.Digest == digest && name != "" {
			return name
		}
	}
	return annotatedName(d.Annotations)
}

// annotatedName is the full name. org.opencontainers.image.ref.name is not
// asked for, it may be a bare tag.
func annotatedName(annotations map[string]string) string {
	return annotations["io.containerd.image.name"]
}
