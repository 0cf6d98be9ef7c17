package bench

import (
	"path/filepath"
	"testing"
)

// BenchmarkCRILatency has a runtime that answers. Its lists are empty, as the check's filter makes them.
func BenchmarkCRILatency(b *testing.B) {
	endpoint := startLists(b, 0)
	own, version := cpuInTurns(b, look(b, "cri-latency", endpoint), []string{filepath.Join(binaries, "version"), endpoint})
	tell("cri-latency, healthy runtime: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside a bare call of Version", "%.2f", ratio(own, version), 1.5)
	tell("  a bare call of Version: CPU", "%.1f ms", milliseconds(version))
}
