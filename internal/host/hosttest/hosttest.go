// Package hosttest builds small trees of a node's files for tests.
package hosttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npd-plugins/internal/host"
)

// Tree is a node's files by path. A path that ends in "/" is an empty
// directory, a content that begins with "-> " a symlink.
type Tree map[string]string

// Write puts the files below dir and replaces those that are there.
func (tree Tree) Write(t testing.TB, dir string) {
	t.Helper()
	for name, content := range tree {
		path := filepath.Join(dir, name)
		parent := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			parent = path
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else if parent != path {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Open writes the tree to a fresh directory and opens that as a host root.
func (tree Tree) Open(t testing.TB) *host.Root {
	t.Helper()
	dir := t.TempDir()
	tree.Write(t, dir)
	return Open(t, dir)
}

// Open opens dir as a host root.
func Open(t testing.TB, dir string) *host.Root {
	t.Helper()
	h, err := host.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
