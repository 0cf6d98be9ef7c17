package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replayEntries are in the journal that npdctl replay reads, each with 24 fields as journald gives them to a line of kubelet.
const replayEntries = 300_000

// BenchmarkReplayJournal has npdctl replay with all rules for kubelet read a directory of the journal, on one core, beside
// journalctl that only prints it.
func BenchmarkReplayJournal(b *testing.B) {
	npdctl, dir := filepath.Join(binaries, "npdctl"), b.TempDir()
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", npdctl, "npd-plugins/cmd/npdctl").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	writeJournal(b, dir)
	b.Setenv("GOMAXPROCS", "1")
	replay := []string{npdctl, "replay", "--rules", "../../journal-rules/kubelet.json", dir}
	own := cpu(b, 1, replay...)
	tell("npdctl replay, 300,000 journal entries of 24 fields", "%.0f entries/s", replayEntries/own.Seconds())
	hold(b, "  CPU per entry", "%.2f µs", float64(own.Microseconds())/replayEntries, 5)
	hold(b, "  RSS", "%.1f MiB", rss(b, replay), 80)
	var times []time.Duration
	for range 3 {
		times = append(times, cpuOnce(b, 0, []string{"sh", "-c", `exec journalctl -D "$0" -o export >/dev/null`, dir}))
	}
	printing := median(times)
	tell("  journalctl -o export: CPU", "%.2f µs per entry", float64(printing.Microseconds())/replayEntries)
	hold(b, "  CPU beside journalctl -o export", "%.2f", ratio(own, printing), 0.5)
}

// writeJournal makes a journal file of a busy kubelet. One line in a hundred is one that rules match, or nearly.
func writeJournal(b *testing.B, dir string) {
	b.Helper()
	samples, err := os.ReadFile("../../journal-rules/testdata/kubelet.txt")
	if err != nil {
		b.Fatal(err)
	}
	rare := strings.Split(strings.TrimSpace(string(samples)), "\n")
	inJournal(b, dir, "npdctl replay of a journal", func(out io.Writer) {
		for i := range replayEntries {
			line := fmt.Sprintf(`I1021 10:11:%02d.%06d    1234 reconciler_common.go:%d] "operationExecutor.VerifyControllerAttachedVolume started for volume" volume="kube-api-access-%x" pod="a/web-%d"`, i%60, i, i%300, i, i%110)
			if _, sample, ok := strings.Cut(rare[i/100%len(rare)], " "); ok && i%100 == 0 {
				line = sample
			}
			entry(out, 1763700000000000+i*1000, "kubelet", line)
		}
	})
}

// inJournal makes a journal of what is written in the export format, or tells that what cannot be measured.
func inJournal(b *testing.B, dir, what string, write func(io.Writer)) {
	b.Helper()
	remote := "/usr/lib/systemd/systemd-journal-remote"
	for _, needed := range []string{remote, "journalctl"} {
		if _, err := exec.LookPath(needed); err != nil {
			tell(what, "no %s", filepath.Base(needed))
			b.Skip(err)
		}
	}
	cmd := exec.Command(remote, "--output="+filepath.Join(dir, "bench.journal"), "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	out := bufio.NewWriter(in)
	write(out)
	if out.Flush() != nil || in.Close() != nil || cmd.Wait() != nil {
		b.Fatal("the journal could not be written")
	}
}

// entry writes an entry in the export format. Its time is in microseconds since 1970.
func entry(to io.Writer, at int, identifier, message string) {
	fmt.Fprintf(to, `__REALTIME_TIMESTAMP=%d
__MONOTONIC_TIMESTAMP=%d
_BOOT_ID=11111111222233334444555566667777
_TRANSPORT=stdout
_STREAM_ID=abcdefabcdefabcdefabcdefabcdefab
PRIORITY=6
SYSLOG_FACILITY=3
SYSLOG_IDENTIFIER=%s
MESSAGE=%s
_PID=4321
_UID=0
_GID=0
_COMM=kubelet
_EXE=/usr/bin/kubelet
_CMDLINE=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml
_CAP_EFFECTIVE=1ffffffffff
_SELINUX_CONTEXT=unconfined
_SYSTEMD_CGROUP=/system.slice/kubelet.service
_SYSTEMD_UNIT=kubelet.service
_SYSTEMD_SLICE=system.slice
_SYSTEMD_INVOCATION_ID=abcdefabcdefabcdefabcdefabcdef00
_MACHINE_ID=aaaabbbbccccddddeeeeffff00001111
_HOSTNAME=node-1
_RUNTIME_SCOPE=system
SYSLOG_TIMESTAMP=%d
_SOURCE_REALTIME_TIMESTAMP=%d

`, at, at-1763600000000000, identifier, message, at/1000000, at-7)
}
