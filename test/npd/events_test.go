package npd

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"npd-plugins/test/lab"
)

// apiServer answers node-problem-detector as far as it asks, and keeps the Events that it makes, in protobuf.
type apiServer struct {
	*httptest.Server
	mutex  sync.Mutex
	events []string
}

func startAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.Contains(r.URL.Path, "/events") {
			fmt.Fprint(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"node-1"}}`)
			return
		}
		if event, err := io.ReadAll(r.Body); err == nil && r.Method == http.MethodPost { // a PATCH counts up one that is there
			s.mutex.Lock()
			s.events = append(s.events, string(event))
			s.mutex.Unlock()
		}
		fmt.Fprint(w, `{"kind":"Event","apiVersion":"v1","metadata":{"name":"e"}}`)
	}))
	t.Cleanup(s.Close)
	return s
}

// count is the number of Events with a reason.
func (s *apiServer) count(reason string) (n int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, event := range s.events {
		if strings.Contains(event, reason) {
			n++
		}
	}
	return n
}

// TestStormHidesNothing: of what one source writes, node-problem-detector makes 25 Events and then one in five minutes. Storms of OOM
// kills, disk errors and dropped packets do not swallow the one line of the file system that turned read-only, nor that of a hung task.
func TestStormHidesNothing(t *testing.T) {
	lab.NeedDetector(t)
	server := startAPIServer(t)
	dir := t.TempDir()
	log := filepath.Join(dir, "syslog")
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(rulesDir + "/filelog/rfc3339/kernel*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no kernel rules: %v", err)
	}
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = filepath.Join(dir, filepath.Base(file))
		data = []byte(strings.Replace(string(data), `"/var/log/syslog"`, `"`+log+`"`, 1))
		if err := os.WriteFile(files[i], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := lab.StartDetector(t, "--enable-k8s-exporter=true", "--apiserver-override="+server.URL+"?inClusterConfig=false",
		"--config.system-log-monitor="+strings.Join(files, ","))
	lab.Eventually(t, 20*time.Second, "node-problem-detector serves", func() bool { return d.Metrics() != "" })

	var text strings.Builder
	say := func(format string, args ...any) {
		fmt.Fprintf(&text, time.Now().Format("2006-01-02T15:04:05.000000Z07:00")+" node-1 kernel: [  123.456789] "+format+"\n", args...)
	}
	const storm = 100
	for i := range storm {
		say("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/kubepods/pod1/a,task_memcg=/kubepods/pod1/a,task=java,pid=%d,uid=0", 1000+i)
		say("Memory cgroup out of memory: Killed process %d (java) total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1204kB oom_score_adj:996", 1000+i)
		say("I/O error, dev sda, sector %d op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2", 2048+8*i)
		say("nf_conntrack: nf_conntrack: table full, dropping packet")
	}
	say("EXT4-fs (sda1): Remounting filesystem read-only")
	say("INFO: task java:31007 blocked for more than 122 seconds.")
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text.String()); err != nil {
		t.Fatal(err)
	}

	lab.Eventually(t, time.Minute, "each line is counted", func() bool {
		c := d.Counters()
		return c["KernelOOMContainer"] == storm && c["KernelIOError"] == storm && c["KernelConntrackFull"] == storm && c["KernelFilesystemReadonly"] == 1 && c["KernelTaskHung"] == 1
	})
	for _, once := range []string{"KernelFilesystemReadonly", "KernelTaskHung"} {
		lab.Eventually(t, 30*time.Second, "an Event "+once, func() bool { return server.count(once) == 1 })
	}
	if n := server.count("KernelOOMContainer"); n == 0 || n >= storm {
		t.Errorf("%d Events of %d OOM kills: the limit of node-problem-detector does not show, the test sees nothing", n, storm)
	}
	if c := d.Counters(); len(c) != 5 {
		t.Errorf("counted %v, want the five reasons alone", c)
	}
}
