package main

import (
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/containerd"
	"npd-plugins/internal/host"
)

// crioSockets is the directory that every CRI-O makes for its socket.
const crioSockets = "/run/crio"

// crioPrefixes begin the names of the directories in which containers/image,
// the library with which CRI-O pulls, keeps the blobs of an image until it has
// all of them (storage/storage_dest.go, internal/tmpdir); the second is that of
// older releases. Each blob is a file "1", "2", ... that is open for writing as
// long as it is fetched. Nothing there tells the digest, the size or the image.
var crioPrefixes = []string{"container_images_storage", "storage"}

const (
	maxTempNames = 10000
	maxBlobFiles = 1000 // of one image; OCI images have at most 127 layers on overlayfs
)

func crioDownloads(h *host.Root, temp string) (found []download, err error) {
	names, err := h.ReadNames(temp, maxTempNames)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !isBlobDir(name) {
			continue
		}
		dir := path.Join(temp, name)
		files, err := h.ReadNames(dir, maxBlobFiles)
		if err != nil {
			continue // the pull has just ended, or the name is another's
		}
		for _, file := range files {
			info, err := h.Stat(path.Join(dir, file))
			if err != nil || !info.Mode().IsRegular() || !isNumber(file) {
				continue
			}
			found = append(found, download{runtime: crioRuntime, Ingest: containerd.Ingest{
				Size: uint64(info.Size()), Written: info.ModTime(), DataFile: path.Join("/", name, file)}})
		}
	}
	return found, nil
}

// isBlobDir says whether the name is one of the prefixes and the number that
// os.MkdirTemp adds.
func isBlobDir(name string) bool {
	return slices.ContainsFunc(crioPrefixes, func(prefix string) bool {
		number, ok := strings.CutPrefix(name, prefix)
		return ok && isNumber(number)
	})
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
