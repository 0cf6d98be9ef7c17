package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkReadOnlyFS looks at this machine, and at a node with 5,000 bind mounts of its disk.
func BenchmarkReadOnlyFS(b *testing.B) {
	own, bare := cpuInTurns(b, look(b, "readonly-fs", ""), empty())
	tell("readonly-fs, this machine: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, bare), 3)

	const disk = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
	xfs := cpu(b, 0, append(look(b, "readonly-fs", ""), "--host-root="+nodeWithMounts(b, strings.ReplaceAll(disk, "ext4", "xfs")))...)
	tell("  with XFS, which is opened in a process apart: CPU", "%.1f ms", milliseconds(xfs))

	var mounts strings.Builder
	mounts.WriteString(disk)
	for i := range 5000 {
		fmt.Fprintf(&mounts, "%d 27 254:0 /data/%d /var/lib/kubelet/pods/0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f/volume-subpaths/v/c/%d rw,relatime shared:1 - ext4 /dev/vda rw\n", i+100, i, i)
	}
	many := cpu(b, 0, append(look(b, "readonly-fs", ""), "--host-root="+nodeWithMounts(b, mounts.String()))...)
	tell("  with 5,000 bind mounts: CPU", "%.1f ms", milliseconds(many))
}

// nodeWithMounts returns a host root that has only a table of mounts.
func nodeWithMounts(b *testing.B, mounts string) string {
	b.Helper()
	root := b.TempDir()
	file := filepath.Join(root, "proc/1/mountinfo")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(mounts), 0o600); err != nil {
		b.Fatal(err)
	}
	return root
}

// BenchmarkClock looks at this machine's clock, on a node without processes: which time daemon runs is of interest only
// when the clock is not synchronized.
func BenchmarkClock(b *testing.B) {
	own, bare := cpuInTurns(b, append(look(b, "clock", ""), "--failure-threshold=1000", "--host-root="+b.TempDir()), empty())
	tell("clock: CPU", "%.1f ms", milliseconds(own))
	hold(b, "  CPU beside an empty Go program", "%.2f", ratio(own, bare), 3)
	tell("  on this machine: CPU", "%.1f ms", milliseconds(cpu(b, 1, look(b, "clock", "")...)))
}
