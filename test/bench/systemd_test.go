package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"npd-plugins/internal/systemd/systemdtest"
	"npd-plugins/test/lab"
)

// startUnits serves a systemd with a kubelet and n scopes of kubelet's mounts, whose descriptions have extra bytes more than
// usual. It returns the host root.
func startUnits(b *testing.B, n, extra int) string {
	b.Helper()
	m := &systemdtest.Manager{Properties: map[string]map[string]any{"kubelet.service": {"NRestarts": uint32(0), "InvocationID": []byte{1}, "Result": "success",
		"ExecMainCode": int32(0), "ExecMainStatus": int32(0), "ExecMainStartTimestamp": uint64(1)}}}
	m.Units = append(m.Units, systemdtest.Unit("kubelet.service", "kubelet", "active/running"))
	padding := strings.Repeat("x", extra)
	for i := range n {
		u := systemdtest.Unit(fmt.Sprintf("run-r%032x.scope", i), fmt.Sprintf("Kubernetes transient mount for /var/lib/kubelet/pods/3f6c1a52-8d0e-4b7f-9a61-%012d/volumes/kubernetes.io~projected/kube-api-access-x7k2p%s", i, padding), "active/running")
		m.Units = append(m.Units, u)
		if i < 100 {
			m.Properties[u.Name] = map[string]any{"ActiveEnterTimestamp": uint64(1)}
		}
	}
	root := lab.ShortDir(b)
	m.Serve(b, root)
	return root
}

// BenchmarkSystemd has a systemd of a healthy node, and sick ones.
func BenchmarkSystemd(b *testing.B) {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binaries+"/", "./property")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	on := func(check, root string) []string {
		return []string{filepath.Join(binaries, check), "--host-root=" + root, "--state-dir=" + stateDir(b)}
	}
	healthy := startUnits(b, 300, 0)
	bare := []string{filepath.Join(binaries, "property"), filepath.Join(healthy, systemdtest.Private)}
	units, property := cpuInTurns(b, on("systemd-units", healthy), bare)
	restarts, _ := cpuInTurns(b, on("service-restarts", healthy), bare)
	tell("systemd-units, 300 units: CPU", "%.1f ms", milliseconds(units))
	hold(b, "  CPU beside a bare connection and one property", "%.2f", ratio(units, property), 2)
	hold(b, "  RSS", "%.1f MiB", rss(b, on("systemd-units", healthy)), 20)
	tell("  a bare connection and one property: CPU", "%.1f ms", milliseconds(property))
	tell("service-restarts, one service: CPU", "%.1f ms", milliseconds(restarts))
	tell("  CPU beside a bare connection and one property", "%.2f", ratio(restarts, property))
	hold(b, "  RSS", "%.1f MiB", rss(b, on("service-restarts", healthy)), 20)
	for _, sick := range []struct {
		what         string
		units, extra int
	}{
		{"600 scopes", 600, 0},
		{"9,900 units, all listed", 9900, 0},
		{"9,900 units with long descriptions, too much to list", 9900, 2000},
		{"100,000 units, a sample listed", 100000, 0},
	} {
		check := on("systemd-units", startUnits(b, sick.units, sick.extra))
		tell("systemd-units, "+sick.what+": CPU", "%.1f ms", milliseconds(cpu(b, 1, check...)))
		hold(b, "  RSS", "%.1f MiB", rss(b, check), 40)
	}
}
