package kubelettest

import (
	"embed"
	"strings"
	"testing"
)

//go:embed testdata
var pages embed.FS

// Versions are those of kubelet whose Page there is.
var Versions = []string{"1.24", "1.28", "1.31", "1.36", "1.37"}

// Page is what kubelet of that version says of its PLEG, the runtime's
// operations and its requests. Each pair of strings replaces the value of the
// line that begins with the first, or adds the line.
func Page(t testing.TB, version string, values ...string) string {
	t.Helper()
	b, err := pages.ReadFile("testdata/kubelet-" + version + ".prom")
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	replaced := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		for i := 0; i < len(values); i += 2 {
			if strings.HasPrefix(line, values[i]+" ") {
				line = values[i] + " " + values[i+1] + "\n"
				replaced[values[i]] = true
			}
		}
		page.WriteString(line)
	}
	for i := 0; i < len(values); i += 2 {
		if !replaced[values[i]] {
			page.WriteString(values[i] + " " + values[i+1] + "\n")
		}
	}
	return page.String()
}

// Without is a page without the lines that begin so.
func Without(page, prefix string) string {
	var kept strings.Builder
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, prefix) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
