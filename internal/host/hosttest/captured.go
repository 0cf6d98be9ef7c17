package hosttest

import (
	"os"
	"strings"
	"testing"
)

// Captured reads a tree that was written down from a real host into one file,
// with a line "-- path --" before the content of each.
func Captured(t testing.TB, file string) Tree {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tree, name := Tree{}, ""
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(path, " --\n")
			tree[name] = ""
			continue
		}
		tree[name] += line
	}
	return tree
}
