package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkImagePull has a containerd that pulls nothing.
func BenchmarkImagePull(b *testing.B) {
	root := b.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "io.containerd.content.v1.content/ingest"), 0o755); err != nil {
		b.Fatal(err)
	}
	check := append(look(b, "image-pull", ""), "--containerd-root="+root)
	own, bare := cpuInTurns(b, check, empty())
	tell("image-pull, nothing is pulled: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside a check that looks at nothing", "%.2f", ratio(cpuInTurns(b, check, look(b, "nothing", ""))), 1.5)
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, bare), 1.5)
}
