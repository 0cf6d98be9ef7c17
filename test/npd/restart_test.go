package npd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// nodeCondition is a condition as kube-apiserver has it.
type nodeCondition struct {
	Type, Status                          string
	LastTransitionTime, LastHeartbeatTime time.Time
}

// startOnNode starts node-problem-detector for the node node-1 of a cluster. The result ends it.
func startOnNode(t *testing.T, cluster *lab.Node, flags ...string) (stop func()) {
	t.Helper()
	kubeconfig, err := os.ReadFile(cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`https://[^\s"]+`).FindString(string(kubeconfig))
	override := server + "?inClusterConfig=false&auth=" + url.QueryEscape(cluster.Kubeconfig())
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(lab.NeedDetector(t), append([]string{"--logtostderr", "--apiserver-override=" + override, "--hostname-override=node-1",
		"--port=0", "--prometheus-port=0"}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cmd.Process.Signal(unix.SIGTERM)
		force := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		force.Stop()
		log.Close()
		if said, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("node-problem-detector's last words:\n%s", said[max(0, len(said)-3000):])
		}
	}
	t.Cleanup(stop)
	return stop
}

// conditionsAfter waits until each of the conditions was reported at or after a time, and has its status.
func conditionsAfter(t *testing.T, cluster *lab.Node, after time.Time, want map[string]string) map[string]nodeCondition {
	t.Helper()
	var got map[string]nodeCondition
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
		var node struct {
			Status struct{ Conditions []nodeCondition }
		}
		if err := json.Unmarshal(cluster.Call(t, http.MethodGet, "/api/v1/nodes/node-1", nil), &node); err != nil {
			t.Fatal(err)
		}
		got = map[string]nodeCondition{}
		for _, c := range node.Status.Conditions {
			if !c.LastHeartbeatTime.Before(after) && c.Status == want[c.Type] {
				got[c.Type] = c
			}
		}
		if len(got) == len(want) {
			return got
		}
	}
	t.Fatalf("no such conditions within a minute: %v, want %v", got, want)
	return nil
}

// A restart of node-problem-detector begins each condition of a plugin anew, skip_initial_status or not: lastTransitionTime is that of its
// start if nothing is wrong, and that of the first run if something is. Only a permanent log rule that looks back keeps it.
// deploy/remediation tells so.
func TestRestartResetsTransition(t *testing.T) {
	lab.NeedDetector(t)
	remote := tool(t, "systemd-journal-remote", "it writes the journal file")
	cluster := lab.StartControlPlane(t)
	cluster.Call(t, http.MethodPost, "/api/v1/nodes", map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]string{"name": "node-1"}})
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plugin := func(name, skip, run string) string {
		return write(name+".json", fmt.Sprintf(`{"plugin": "custom", "source": %[1]q, "pluginConfig": {"invoke_interval": "1s", "timeout": "900ms", "skip_initial_status": %[2]s},
			"conditions": [{"type": %[1]q, "reason": "Fine", "message": "fine", "status": "True", "transition": "2026-01-02T03:04:05Z"}],
			"rules": [{"type": "permanent", "condition": %[1]q, "reason": "%[1]sNow", "path": %[3]q}]}`, name, skip, run))
	}
	custom := []string{plugin("BadSkipping", "true", "/bin/false"), plugin("Bad", "false", "/bin/false"), plugin("GoodSkipping", "true", "/bin/true"), plugin("Good", "false", "/bin/true")}
	journal := filepath.Join(dir, "journal")
	if err := os.Mkdir(journal, 0o755); err != nil {
		t.Fatal(err)
	}
	logged := time.Now()
	writeJournal(t, remote, filepath.Join(journal, "a.journal"), []message{{"special", "it is stuck"}})
	rules := write("log.json", fmt.Sprintf(`{"plugin": "journald", "pluginConfig": {"source": "special"}, "logPath": %q, "lookback": "1h", "source": "log",
		"conditions": [{"type": "Logged", "reason": "Fine", "message": "fine"}],
		"rules": [{"type": "permanent", "condition": "Logged", "reason": "Stuck", "pattern": "it is stuck.*"}]}`, journal))
	flags := []string{"--config.custom-plugin-monitor=" + strings.Join(custom, ","), "--config.system-log-monitor=" + rules}
	want := map[string]string{"BadSkipping": "True", "Bad": "True", "GoodSkipping": "False", "Good": "False", "Logged": "True"}

	stop := startOnNode(t, cluster, flags...)
	before := conditionsAfter(t, cluster, time.Time{}, want)
	stop()
	time.Sleep(2 * time.Second) // the API counts whole ones
	restart := time.Now().Truncate(time.Second)
	startOnNode(t, cluster, flags...)
	for name, c := range conditionsAfter(t, cluster, restart, want) {
		kept := c.LastTransitionTime.Equal(before[name].LastTransitionTime)
		t.Logf("%s: %v, before the restart %v", name, c.LastTransitionTime.Format(time.TimeOnly), before[name].LastTransitionTime.Format(time.TimeOnly))
		if kept != (name == "Logged") || !kept && c.LastTransitionTime.Before(restart) {
			t.Errorf("%s: transition %v, before the restart at %v it was %v", name, c.LastTransitionTime, restart, before[name].LastTransitionTime)
		}
	}
	if at := before["Logged"].LastTransitionTime; at.After(logged) {
		t.Errorf("Logged: transition %v, the line is of before %v", at, logged)
	}
}
