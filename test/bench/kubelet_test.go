package bench

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/kubelet/kubelettest"
)

// BenchmarkKubeletMetrics has a kubelet with a page of 1,644 lines, which is what kubelet 1.36 gives on a node with few
// pods, and of 30 MB.
func BenchmarkKubeletMetrics(b *testing.B) {
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binaries+"/", "./httpsget")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	small := servePage(b, func(size, lines int) bool { return lines >= 1644 })
	get := []string{filepath.Join(binaries, "httpsget"), "https://" + small.Address + "/metrics", small.CAFile, small.TokenFile}
	for _, name := range []string{"pleg", "kubelet-throttle"} {
		own, bare := cpuInTurns(b, asks(b, name, small), get)
		tell(name+", a page of 1,644 lines: CPU", "%.1f ms", milliseconds(own))
		hold(b, "  CPU beside a bare GET over HTTPS", "%.2f", ratio(own, bare), 2)
		tell("  a bare GET over HTTPS: CPU", "%.1f ms", milliseconds(bare))
		hold(b, "  RSS", "%.1f MiB", rss(b, asks(b, name, small)), 20)
	}
	large := servePage(b, func(size, lines int) bool { return size >= 30e6 })
	get[1], get[2], get[3] = "https://"+large.Address+"/metrics", large.CAFile, large.TokenFile
	for _, name := range []string{"pleg", "kubelet-throttle"} {
		own, bare := cpu(b, 0, asks(b, name, large)...), cpu(b, 0, get...)
		tell(name+", a page of 30 MB: CPU", "%.0f ms", milliseconds(own))
		hold(b, "  CPU beside a bare GET over HTTPS", "%.2f", ratio(own, bare), 2)
		hold(b, "  RSS", "%.1f MiB", rss(b, asks(b, name, large)), 20)
	}
}

func asks(b *testing.B, name string, s *kubelettest.Server) []string {
	b.Helper()
	return append(look(b, name, ""), s.Flags()...)
}

// servePage serves a kubelet's page with as many lines of containers' logs as it takes to be whole.
func servePage(b *testing.B, whole func(size, lines int) bool) *kubelettest.Server {
	b.Helper()
	page := kubelettest.Page(b, "1.36", "kubelet_pleg_last_seen_seconds", fmt.Sprint(time.Now().Unix()))
	var logs strings.Builder
	for i, lines := 0, strings.Count(page, "\n"); !whole(logs.Len()+len(page), lines+i); i++ {
		fmt.Fprintf(&logs, "kubelet_container_log_filesystem_used_bytes{container=\"app\",namespace=\"production\",pod=\"web-7d9c5b8f6d-%05d\",uid=\"3f6c1a52-8d0e-4b7f-9a61-%012d\"} %d\n", i, i, 4096*i)
	}
	page = logs.String() + page
	return kubelettest.Serve(b, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) })
}
