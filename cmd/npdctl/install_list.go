package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// listFile holds the files of an install, staging those that are being written; both are in its directory.
const (
	listFile = ".npd-plugins"
	staging  = ".npd-plugins.new"
)

// list is what listFile says, in the form of sha256sum. While files are put in place a path stands there twice, with the sum of the
// old file and that of the new one.
type list struct {
	version  string
	complete bool                // false from before the first file is put in place until after the last one
	files    map[string][]string // sums by path
	kept     map[string][]string // those of earlier installs only
}

const (
	listHead     = "# npd-plugins "
	listComplete = ", complete"
	listBroken   = ", not complete"
	listKept     = "# kept from earlier installs"
)

func (l *list) format() []byte {
	var b bytes.Buffer
	state := listBroken
	if l.complete {
		state = listComplete
	}
	fmt.Fprintln(&b, listHead+l.version+state)
	write := func(files map[string][]string) {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			for _, sum := range files[name] {
				fmt.Fprintf(&b, "%s  %s\n", sum, name)
			}
		}
	}
	write(l.files)
	fmt.Fprintln(&b, listKept)
	write(l.kept)
	return b.Bytes()
}

var listLine = regexp.MustCompile(`^([0-9a-f]{64})  (\S.*)$`)

func parseList(text string) (*list, error) {
	head, rest, _ := strings.Cut(text, "\n")
	l := &list{files: map[string][]string{}, kept: map[string][]string{}}
	version, ok := strings.CutPrefix(head, listHead)
	if l.version, l.complete = strings.CutSuffix(version, listComplete); !l.complete && ok {
		l.version, ok = strings.CutSuffix(version, listBroken)
	}
	into, ended := l.files, false
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		if line == listKept {
			into, ended = l.kept, true
			continue
		}
		m := listLine.FindStringSubmatch(line)
		if m == nil || !filepath.IsLocal(m[2]) {
			ok = false
			break
		}
		into[m[2]] = append(into[m[2]], m[1])
	}
	if !ok || !ended {
		return nil, fmt.Errorf("%s is not the list of an install: give another directory, or remove what is in this one", listFile)
	}
	return l, nil
}

// all are the sums of all files, kept ones too.
func (l *list) all() map[string][]string {
	all := maps.Clone(l.files)
	for name, sums := range l.kept {
		all[name] = slices.Concat(all[name], sums)
	}
	return all
}

// readList returns the list of an install, nil for an empty directory, and an error for one that is somebody else's.
func readList(root *os.Root, dir string) (*list, error) {
	text, err := root.ReadFile(listFile)
	if err == nil {
		l, err := parseList(string(text))
		if err != nil {
			err = fmt.Errorf("%s: %w", dir, err)
		}
		return l, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if entry.Name() != staging && entry.Name() != "lost+found" { // an install that broke off, a volume
			return nil, fmt.Errorf("%s holds %s and no %s, so it is not from an install: give a directory that is empty or not there",
				dir, entry.Name(), listFile)
		}
	}
	return nil, nil
}

// sumOf is the SHA-256 of a file, "" if it is not there.
func sumOf(root *os.Root, name string) (string, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
