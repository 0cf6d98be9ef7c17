package bench

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/npd"
)

// BenchmarkJournalCount has 200,000 entries in the window of 10 minutes, none of them kubelet's, then half, then all. The patterns are the
// most that one condition has.
func BenchmarkJournalCount(b *testing.B) {
	config, err := npd.LoadCustom("../../config/journal-count-cni-teardown.json")
	if err != nil {
		b.Fatal(err)
	}
	const entries = 200_000
	for _, kubelets := range []int{0, 50, 100} {
		dir := b.TempDir()
		inJournal(b, dir, "journal-count", func(out io.Writer) {
			first := time.Now().Add(-9 * time.Minute).UnixMicro()
			for i := range entries {
				identifier := "other"
				if i%100 < kubelets {
					identifier = "kubelet"
				}
				entry(out, int(first)+i*1000, identifier, fmt.Sprintf(`I1021 10:11:%02d.%06d    1234 reconciler_common.go:%d] "operationExecutor.VerifyControllerAttachedVolume started for volume" volume="kube-api-access-%x" pod="a/web-%d"`, i%60, i, i%300, i, i%110))
			}
		})
		check := append([]string{filepath.Join(binaries, "journal-count")}, config.Rules[0].Args...)
		check = append(check, "--state-dir="+stateDir(b), "--journal="+dir)
		if out, _ := exec.Command(check[0], append(check[1:], "--output=json")...).Output(); !strings.Contains(string(out), fmt.Sprintf(`"entries_read","value":%d,`, entries/100*kubelets)) {
			b.Fatalf("not all entries are read: %s", out)
		}
		own := cpu(b, 0, check...)
		name := fmt.Sprintf("journal-count, 200,000 entries, %d percent kubelet's: CPU", kubelets)
		hold(b, name, "%.0f ms", milliseconds(own), 300)
		var times []time.Duration
		for range 3 {
			times = append(times, cpuOnce(b, 1, []string{"sh", "-c", `exec journalctl -D "$0" -q -t kubelet --since=-10min >/dev/null`, dir}))
		}
		printing := median(times)
		if kubelets == 0 {
			tell("  journalctl -t kubelet, which prints nothing: CPU", "%.0f ms", milliseconds(printing))
		} else {
			hold(b, "  CPU beside journalctl -t kubelet --since=-10min", "%.2f", ratio(own, printing), 1.5)
		}
		hold(b, "  RSS", "%.1f MiB", rss(b, check), 40)
	}
}
