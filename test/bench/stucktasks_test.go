package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"npd-plugins/test/lab"
)

// BenchmarkStuckTasks has up to 30,000 tasks, a sixth of them processes, as many as the machine's PIDs allow.
func BenchmarkStuckTasks(b *testing.B) {
	idle, busy := lab.HostWithLoad(b, "0.20 0.38 0.41 2/744 32012\n"), lab.HostWithLoad(b, "9.20 8.38 7.41 2/744 32012\n")
	check := func(root string) []string {
		return append(look(b, "stuck-tasks", ""), "--host-root="+root)
	}
	own, nothing := cpuInTurns(b, check(idle), empty())
	tell("stuck-tasks, load average below 0.83: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, nothing), 3)

	tasks := startTasks(b, 30000)
	own, nothing = cpuInTurns(b, check(idle), empty())
	tell(fmt.Sprintf("  with %d tasks: CPU", tasks), "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, nothing), 3)
	scan, bare := cpu(b, 1, check(busy)...), cpu(b, 0, filepath.Join(binaries, "scan"), "threads") // others' tasks may be stuck
	tell("stuck-tasks, the same with load: CPU", "%.1f ms", milliseconds(scan))
	hold(b, "  CPU beside a bare loop of open, read, close over all threads", "%.2f", ratio(scan, bare), 1.3)
	hold(b, "  RSS", "%.1f MiB", rss(b, check(busy)), 12)
}

// startTasks starts about that many, and returns how many there are.
func startTasks(b *testing.B, want int) int {
	b.Helper()
	if limit, err := os.ReadFile("/proc/sys/kernel/pid_max"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(limit))); err == nil {
			want = min(want, n-2700) // for all else on the machine
		}
	}
	lab.StartCulprit(b).Tasks(b, want/6)
	for range 5 {
		lab.StartCulprit(b).Threads(b, want/6)
	}
	return want / 6 * 6
}

// BenchmarkIOStall has a machine without pressure, and a host without pressure stall information, of which the disks are
// read at each look.
func BenchmarkIOStall(b *testing.B) {
	own, nothing := cpuInTurns(b, look(b, "io-stall", ""), empty())
	tell("io-stall, no pressure: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, nothing), 3)

	blind := b.TempDir()
	for _, file := range []string{"diskstats", "uptime", "1/mountinfo", "sys/kernel/random/boot_id"} {
		content, err := os.ReadFile("/proc/" + file)
		if err != nil {
			b.Fatal(err)
		}
		copied := filepath.Join(blind, "proc", file)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(copied, content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	own, nothing = cpuInTurns(b, append(look(b, "io-stall", ""), "--host-root="+blind), empty())
	tell("io-stall, no pressure stall information: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, nothing), 3)
}
