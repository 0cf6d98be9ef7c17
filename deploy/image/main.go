// Command image makes the container image of npd-plugins without a container engine: an OCI layout for linux/amd64 and linux/arm64, and
// beside it an SBOM for each. The same source, version, revision, date and Go release give the same bytes.
//
// The image holds what npdctl install copies: /bin, /config and /journal-rules, and nothing else but the license. Its
// entry point is npdctl.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// release is what is made, and from what.
type release struct {
	root     string // of the source
	packages []string
	version  string
	revision string    // of the source, "" when unknown
	date     time.Time // of everything in the image
}

func main() {
	var (
		root      = flag.String("root", "../..", "`directory` of the source")
		out       = flag.String("out", "", "`directory` to make, for the layout (image) and the SBOMs (*.spdx.json)")
		version   = flag.String("version", "devel", "`version` that the binaries tell, and tag of the image")
		revision  = flag.String("revision", "", "`commit` of the source")
		epoch     = flag.Int64("date", 0, "`seconds` since 1970: the date of everything, as SOURCE_DATE_EPOCH")
		platforms = flag.String("platforms", "linux/amd64,linux/arm64", "`platforms`, with commas between")
	)
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "image: give --out DIR and no other argument")
		os.Exit(2)
	}
	r := release{*root, []string{"./plugins/...", "./cmd/npdctl"}, *version, *revision, time.Unix(*epoch, 0).UTC()}
	if err := r.make(*out, strings.Split(*platforms, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// make makes the directory as a whole, or leaves what was there.
func (r release) make(out string, platforms []string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(filepath.Dir(out), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	fresh := filepath.Join(temp, "out")
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, name := range platforms {
		platform, err := v1.ParsePlatform(name)
		if err != nil || platform.OS != "linux" {
			return fmt.Errorf("platform %s: want linux/ARCHITECTURE", name)
		}
		contents, err := r.contents(filepath.Join(temp, "bin", platform.Architecture), platform.Architecture)
		if err != nil {
			return err
		}
		image, err := r.image(filepath.Join(temp, platform.Architecture+".tar"), contents, platform)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
		if err := r.writeSBOM(filepath.Join(fresh, "npd-plugins-linux-"+platform.Architecture+".spdx.json"), image, contents); err != nil {
			return err
		}
	}
	if err := r.writeLayout(filepath.Join(fresh, "image"), index); err != nil {
		return err
	}
	if err := removeOld(out); err != nil {
		return err
	}
	return os.Rename(fresh, out)
}

// removeOld removes what an earlier run made.
func removeOld(out string) error {
	entries, err := os.ReadDir(out)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != "image" && filepath.Ext(entry.Name()) != ".json" {
			return fmt.Errorf("%s holds %s, so it is not from here: remove it", out, entry.Name())
		}
	}
	return os.RemoveAll(out)
}

// build builds static binaries into a directory. What the environment would change in them is set.
func (r release) build(dir, architecture string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	flags := "-s -w -X npd-plugins/internal/plugin.version=" + r.version + " -X main.version=" + r.version
	build := exec.Command("go", append([]string{"build", "-C", r.root, "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", dir + "/"}, r.packages...)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %s: %w\n%s", architecture, err, out)
	}
	return nil
}

// user is what distroless images call nonroot. It may write to an emptyDir; for a directory of the node runAsUser: 0 is needed.
const user = "65532:65532"

// image is the image for one platform. Its layer is written to a file.
func (r release) image(layerFile string, contents []content, platform *v1.Platform) (v1.Image, error) {
	if err := writeTar(layerFile, contents, r.date); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromFile(layerFile, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: r.date}, CreatedBy: "deploy/image", Comment: "npd-plugins " + r.version},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: r.date}
	config.Config = v1.Config{
		Entrypoint: []string{"/bin/npdctl"},
		Cmd:        []string{"install"},
		Env:        []string{"PATH=/bin"},
		WorkingDir: "/",
		User:       user,
		Labels:     r.labels(),
	}
	return mutate.ConfigFile(image, config)
}

// labels are annotations of the OCI image specification.
func (r release) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	labels := map[string]string{
		prefix + "title":       "npd-plugins",
		prefix + "description": "checks and journal rules for node-problem-detector, and npdctl, which installs them",
		prefix + "version":     r.version,
		prefix + "created":     r.date.Format(time.RFC3339),
		prefix + "licenses":    license,
	}
	if r.revision != "" {
		labels[prefix+"revision"] = r.revision
	}
	return labels
}

// writeLayout writes an OCI image layout whose one image has the version for its tag.
func (r release) writeLayout(dir string, index v1.ImageIndex) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	labelled := mutate.Annotations(index, r.labels()).(v1.ImageIndex)
	return path.AppendIndex(labelled, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.version}))
}
