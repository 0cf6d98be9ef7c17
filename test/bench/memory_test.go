package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/host"
	"npd-plugins/test/lab"
)

// BenchmarkMemoryStall looks at this machine, which has memory.
func BenchmarkMemoryStall(b *testing.B) {
	own, bare := cpuInTurns(b, look(b, "memory-stall", ""), empty())
	tell("memory-stall, nobody waits for memory: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, bare), 3)
}

// BenchmarkDyingCgroups looks at this machine, and counts the cgroups of a node with 200 pods.
func BenchmarkDyingCgroups(b *testing.B) {
	own, bare := cpuInTurns(b, look(b, "dying-cgroups", ""), empty())
	tell("dying-cgroups: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, bare), 3)

	hierarchy := "/sys/fs/cgroup/memory"
	if _, err := os.Stat(hierarchy + "/release_agent"); err != nil {
		tell("  counting 1,000 cgroups (v1)", "no cgroup v1 here")
		return
	}
	lab.NeedRoot(b)
	parent := lab.CgroupParent(b)
	makePods(b, hierarchy+parent, 200)
	for _, other := range []string{"systemd", "pids"} { // as a container runtime does
		if _, err := os.Stat("/sys/fs/cgroup/" + other + "/release_agent"); err == nil {
			makePods(b, "/sys/fs/cgroup/"+other+parent, 200)
		}
	}
	root, err := host.Open("/")
	if err != nil {
		b.Fatal(err)
	}
	count := func() (n int, took time.Duration) {
		began := cpuSoFar(b)
		n, err := cgroup.CountTo(root, hierarchy, 1<<30)
		if err != nil {
			b.Fatal(err)
		}
		return n, cpuSoFar(b) - began
	}
	var times []float64
	for range 10 * runs {
		n, took := count()
		times = append(times, milliseconds(took)*1000/float64(n))
	}
	tell("  counting 1,000 cgroups (v1), of which 200 are pods: CPU, median", "%.1f ms", median(times))
	hold(b, "  the same, least", "%.1f ms", slices.Min(times), 5) // neighbours cost the median up to twice that
}

// makePods makes pods with four containers each.
func makePods(b *testing.B, dir string, pods int) {
	b.Helper()
	for pod := range pods {
		for container := range 4 {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("pod%d/%d", pod, container)), 0o755); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// cpuSoFar is the CPU time of this process.
func cpuSoFar(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
