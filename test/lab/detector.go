package lab

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Detector is a running node-problem-detector without Kubernetes.
type Detector struct {
	metrics string // URL
	log     string // file
}

// NeedDetector returns the path of node-problem-detector, from $NPD_BINARY or PATH, or skips the test.
func NeedDetector(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("NPD_BINARY"); path != "" {
		return path
	}
	path, err := exec.LookPath("node-problem-detector")
	if err != nil {
		t.Skip("needs node-problem-detector: set NPD_BINARY or put it on PATH")
	}
	return path
}

// StartDetector starts node-problem-detector with the flags of its monitors (--config.…), until the test ends. Its metrics are
// on a free port of the loopback interface.
func StartDetector(t testing.TB, flags ...string) *Detector {
	t.Helper()
	binary := NeedDetector(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	_, port, _ := net.SplitHostPort(address)
	d := &Detector{metrics: "http://" + address + "/metrics", log: filepath.Join(t.TempDir(), "detector.log")}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, append([]string{"-v=3", "--logtostderr", "--enable-k8s-exporter=false", "--port=0",
		"--hostname-override=node-1", "--prometheus-address=127.0.0.1", "--prometheus-port=" + port}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		force := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		force.Stop()
		if said := d.Log(t); t.Failed() {
			t.Logf("node-problem-detector's last words:\n%s", said[max(0, len(said)-4096):])
		}
	})
	return d
}

// Log is what node-problem-detector has logged so far.
func (d *Detector) Log(t testing.TB) string {
	t.Helper()
	said, err := os.ReadFile(d.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

// Metrics is the page of its metrics, "" while there is none yet.
func (d *Detector) Metrics() string {
	response, err := http.Get(d.metrics)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	page, _ := io.ReadAll(response.Body)
	return string(page)
}

var counter = regexp.MustCompile(`(?m)^problem_counter\{[^}]*reason="([^"]+)"[^}]*\} (\S+)$`)

// Counters are the problem_counter by reason that are not zero.
func (d *Detector) Counters() map[string]int {
	counts := map[string]int{}
	for _, m := range counter.FindAllStringSubmatch(d.Metrics(), -1) {
		if value, _ := strconv.ParseFloat(m[2], 64); value > 0 {
			counts[m[1]] += int(value)
		}
	}
	return counts
}
