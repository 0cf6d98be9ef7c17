package bench

import "testing"

// BenchmarkKernelTables looks at this machine, whose tables have room.
func BenchmarkKernelTables(b *testing.B) {
	own, bare := cpuInTurns(b, look(b, "kernel-tables", ""), empty())
	tell("kernel-tables, all have room: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, bare), 3)
}
