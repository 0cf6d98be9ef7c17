package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkEviction looks at this machine with kubelet's default thresholds, which takes a second process for statfs, and at
// its memory alone, which does not.
func BenchmarkEviction(b *testing.B) {
	dir := b.TempDir()
	config := func(name, hard string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("kind: KubeletConfiguration\nevictionHard: "+hard+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
		return "--kubelet-config=" + path
	}
	all := config("all", `{memory.available: "1", nodefs.available: "1", nodefs.inodesFree: "1", imagefs.available: "1", imagefs.inodesFree: "1"}`)
	memory := config("memory", `{memory.available: "1"}`)
	own, other := cpuInTurns(b, append(look(b, "eviction", ""), all, "--kubelet-dir="+dir, "--image-dir="+dir), empty())
	tell("eviction, room everywhere: CPU of both processes", "%.1f ms", milliseconds(own))
	tell("  CPU beside an empty Go program", "%.2f", ratio(own, other))
	own, other = cpuInTurns(b, append(look(b, "eviction", ""), memory), empty())
	tell("  memory alone: CPU", "%.1f ms", milliseconds(own))
	hold(b, "    beside an empty Go program", "%.2f", ratio(own, other), 5)
}
