package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/containerd"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

// describe names the download that has hung longest, and says what else waits.
func describe(ctx context.Context, l *plugin.Look, stalled []download, advance int) (message string, details []string) {
	asked := pullsOfKubelet(l.Host)
	for i, d := range stalled[:min(len(stalled), 10)] {
		var image containerd.Manifest
		if d.Digest != "" {
			image, _ = containerd.ManifestOf(ctx, l.Host, d.Root, d.Digest)
		}
		name := nameOf(image, asked)
		if i == 0 {
			message = fmt.Sprintf("image pull stalled%s for %s: %s", d.progress(), seconds(d.idle), d.what(name, image))
		}
		details = append(details, fmt.Sprintf("%s%s for %s: %s of image %s, manifest %s, index %s; %s",
			d.DataFile, d.progress(), seconds(d.idle), cmp.Or(d.Digest, "blob"), cmp.Or(name, "?"), cmp.Or(image.Digest, "?"), cmp.Or(image.Index, "?"), d.origin(l)))
	}
	message += "; " + stalled[0].origin(l)
	switch others := len(stalled) - 1; {
	case others > 0:
		message += fmt.Sprintf("; others stalled: %d, that advance: %d", others, advance)
	case advance > 0:
		message += fmt.Sprintf("; others that advance: %d", advance)
	}
	if len(asked) > 1 {
		message += fmt.Sprintf("; kubelet has %s to pull: %s", plugin.Count(len(asked), "image"), plugin.Safe(strings.Join(asked, ", "), 4*plugin.MaxMessage))
		details = append(details, "kubelet has to pull "+strings.Join(asked, ", "))
	}
	return message, details
}

func (d download) progress() string {
	switch {
	case d.Total > 0 && d.Size >= d.Total:
		return " with all of " + plugin.FormatBytes(float64(d.Total)) + " written and not yet closed (disk?)"
	case d.Total > 0:
		return " at " + plugin.FormatBytes(float64(d.Size)) + " of " + plugin.FormatBytes(float64(d.Total))
	default:
		return " at " + plugin.FormatBytes(float64(d.Size))
	}
}

// what names the image, and the part of it that does not arrive.
func (d download) what(name string, image containerd.Manifest) string {
	part := strings.TrimSpace(d.Kind + " " + short(d.Digest))
	switch {
	case name != "" && part != "":
		return plugin.Safe(name, 90) + ", " + part
	case name != "":
		return plugin.Safe(name, 90)
	case image.Digest != "":
		return part + " of the image with manifest " + short(image.Digest)
	case part != "":
		return part
	default:
		return "an image that CRI-O does not name"
	}
}

// origin tells the process that waits, and since when.
func (d download) origin(l *plugin.Look) string {
	text := fmt.Sprintf("%s (pid %d) waits", plugin.Safe(d.writer.Comm, 16), d.writer.PID)
	if age := l.Now.Sub(d.Begun); !d.Begun.IsZero() && age >= 0 {
		text += ", begun " + seconds(age) + " ago"
	}
	return text
}

func seconds(d time.Duration) string { return d.Truncate(time.Second).String() }

// short is the digest as far as it takes to find it.
func short(digest string) string {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok {
		return ""
	}
	return algorithm + ":" + hex[:min(len(hex), 12)]
}

// nameOf is the name of the image when it is certain: the manifest or its index
// has it, or kubelet waits for that digest, or for one image only.
func nameOf(image containerd.Manifest, asked []string) string {
	if image.Name != "" {
		return image.Name
	}
	for _, name := range asked {
		if _, digest, ok := strings.Cut(name, "@"); ok && digest != "" && (digest == image.Digest || digest == image.Index) {
			return name
		}
	}
	if len(asked) == 1 {
		return asked[0]
	}
	return ""
}

// pullingDir is where kubelet notes an image before it asks the runtime for it,
// or waits until it may, and until it has it (kubelet 1.35 and later, before it
// with the feature gate KubeletEnsureSecretPulledImages;
// pkg/kubelet/images/pullmanager/fs_pullrecords.go).
const pullingDir = "/var/lib/kubelet/image_manager/pulling"

const maxIntents = 200

// pullsOfKubelet names the images that kubelet waits for, none where kubelet
// does not note them. Of pods with the same image there is one note.
func pullsOfKubelet(h *host.Root) (images []string) {
	names, err := h.ReadNames(pullingDir, maxIntents)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "sha256-") || strings.HasSuffix(name, ".tmp") {
			continue
		}
		if b, err := h.ReadFile(path.Join(pullingDir, name)); err == nil {
			if image := intendedImage(b); image != "" {
				images = append(images, image)
			}
		}
	}
	slices.Sort(images)
	return images
}

func intendedImage(b []byte) string {
	var intent struct {
		Kind  string `json:"kind"`
		Image string `json:"image"`
	}
	if json.Unmarshal(b, &intent) != nil || intent.Kind != "ImagePullIntent" {
		return ""
	}
	return intent.Image
}
