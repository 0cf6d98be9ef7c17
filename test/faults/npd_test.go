package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/test/lab"
)

// detector is a running node-problem-detector with the configurations of the suite.
type detector struct{ *lab.Detector }

// startDetector starts node-problem-detector with the files of config/, each looking every second. args are added to those of
// a check.
func startDetector(t *testing.T, args map[string][]string) detector {
	t.Helper()
	lab.NeedDetector(t)
	dir := t.TempDir()
	var configs []string
	for check, more := range args {
		configs = append(configs, quickConfig(t, dir, check, more))
	}
	return detector{lab.StartDetector(t, "--config.custom-plugin-monitor="+strings.Join(configs, ","))}
}

// quickConfig copies a configuration of the suite with the check's real path, a look every second, and more arguments.
func quickConfig(t *testing.T, dir, check string, more []string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../config", check+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	config["pluginConfig"].(map[string]any)["invoke_interval"] = "1s"
	rule := config["rules"].([]any)[0].(map[string]any)
	rule["path"] = filepath.Join(binaries, filepath.Base(rule["path"].(string)))
	arguments := rule["args"].([]any)
	for _, a := range append(more, "--state-dir="+filepath.Join(dir, "state"), "--failure-threshold=1") {
		arguments = append(arguments, a)
	}
	rule["args"] = arguments
	path := filepath.Join(dir, check+".json")
	writeJSON(t, path, config)
	return path
}

// wait waits until the condition is set for the reason, or not.
func (d detector) wait(t *testing.T, condition, reason string, set bool) {
	t.Helper()
	want := fmt.Sprintf("problem_gauge{reason=%q,type=%q} 0", reason, condition)
	if set {
		want = strings.TrimSuffix(want, "0") + "1"
	}
	lab.Eventually(t, 30*time.Second, want, func() bool { return strings.Contains(d.Metrics(), want+"\n") })
}

// said is the message with which node-problem-detector last set the condition to True, "" for never.
func (d detector) said(t *testing.T, condition string) string {
	t.Helper()
	said := ""
	for line := range strings.Lines(d.Log(t)) {
		if _, status, ok := strings.Cut(line, "{Type:"+condition+" Status:True "); ok {
			_, said, _ = strings.Cut(strings.TrimSpace(status), " Message:")
		}
	}
	return said
}

// wantSaid demands that node-problem-detector set the condition to True with a message that holds all of the words.
func (d detector) wantSaid(t *testing.T, condition string, words ...string) {
	t.Helper()
	said := d.said(t, condition)
	t.Logf("%s is True: %s", condition, said)
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("the message of %s does not say %q", condition, word)
		}
	}
}

// Every configuration on the real node-problem-detector, with its fault made and healed.
func TestConfigsOnDetector(t *testing.T) {
	notInGuest(t)
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{MaxSendMessageSize: 1 << 20})
	d := startDetector(t, map[string][]string{
		"cri-list-size": {"--limit=1MiB", "--cri-endpoint=" + containerd.Endpoint},
		"runc-init":     {"--age=2s", "--cri-endpoint=" + containerd.Endpoint},
		"task-limit":    nil,
		"zombies":       nil,
		"pipe-pages":    nil,
	})
	healthy := func() {
		t.Helper()
		d.wait(t, "CRIListNearLimit", "CRIListReplyTooLarge", false)
		d.wait(t, "RuncInitStuck", "ContainerStuckBeforeStart", false)
		d.wait(t, "TasksNearLimit", "TaskLimitNearlyReached", false)
		d.wait(t, "ZombieProcesses", "ZombiesNotReaped", false)
		d.wait(t, "PipePagesExhausted", "PipeUserPagesSoftExceeded", false)
	}
	healthy()

	leaked := containerd.RunPods(t, podConfigs("report-6b54c9d7f8", 0, 70))
	d.wait(t, "CRIListNearLimit", "CRIListReplyTooLarge", true)
	d.wantSaid(t, "CRIListNearLimit", "production/report")

	zombies := startCulpritInPod(t)
	zombies.Zombies(t, 60)
	d.wait(t, "ZombieProcesses", "ZombiesNotReaped", true)
	d.wantSaid(t, "ZombieProcesses", podUID)

	service := lab.NewCgroup(t, "containerd.service")
	service.LimitTasks(t, taskLimit)
	tasks := lab.StartCulprit(t)
	service.Add(t, tasks.Pid)
	tasks.Tasks(t, nearLimit)
	d.wait(t, "TasksNearLimit", "TaskLimitNearlyReached", true)
	d.wantSaid(t, "TasksNearLimit", "containerd.service")

	b := newBundle(t)
	pipes := exceedPipeLimit(t)
	d.wait(t, "PipePagesExhausted", "PipeUserPagesSoftExceeded", true)
	d.wantSaid(t, "PipePagesExhausted", fmt.Sprint(pipes.Pid))
	b.start(t)
	waitForStuckInit(t, b.cgroupParent)
	d.wait(t, "RuncInitStuck", "ContainerStuckBeforeStart", true)
	d.wantSaid(t, "RuncInitStuck", containerID[:12], "fs.pipe-user-pages-soft")

	pid, _ := runcInit(b.cgroupParent)
	unix.Kill(pid, unix.SIGKILL)
	pipes.Stop()
	tasks.Stop()
	zombies.Stop()
	containerd.RemovePods(t, leaked)
	healthy()
}
