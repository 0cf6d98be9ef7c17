package faults

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// kubeletArgs are those with which a check asks the node's kubelet, as a service account that may do what
// deploy/rbac.yaml grants.
func kubeletArgs(t *testing.T, n *lab.Node) []string {
	t.Helper()
	t.Setenv("NODE_NAME", lab.NodeName)
	n.Apply(t, "../../deploy/rbac.yaml")
	return []string{"--kubelet=" + n.Kubelet, "--ca-file=" + n.Certificate, "--token-file=" + n.ServiceAccount(t, "kube-system", "node-problem-detector")}
}

// until looks every two seconds until the check says so, and returns what it said then.
func (w *watcher) until(t *testing.T, limit time.Duration, status npd.Status) string {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Second) {
		result := w.look(t)
		if result.Status == status {
			return result.Message
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not %s within %v", w.check, status, limit)
		}
	}
}

func wantWords(t *testing.T, message string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(message, word) {
			t.Errorf("the message does not say %q: %s", word, message)
		}
	}
}

// wantOwnCertificate looks as from a pod with the host's files at /host: the certificate that kubelet has made for itself is
// trusted for being on the node, whatever name it has.
func wantOwnCertificate(t *testing.T, n *lab.Node, args []string) {
	t.Helper()
	t.Setenv("NODE_NAME", "not-the-name-in-it")
	own, err := os.ReadFile(n.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	hosttest.Tree{"proc/sys/kernel/random/boot_id": "of-this-test\n"}.Write(t, root)
	args = append(slices.Clone(args), "--host-root="+root, "--ca-file=")
	unknown := watch(t, "pleg", args...).look(t)
	wantWords(t, unknown.Message, "signed by nobody in", "/var/lib/kubelet/pki/kubelet.crt", "mount")
	hosttest.Tree{"var/lib/kubelet/pki/kubelet.crt": string(own)}.Write(t, root)
	watch(t, "pleg", args...).wantOK(t)
}

// A real kubelet whose containerd is stopped: the check says so, by itself and on node-problem-detector, while the node
// is still Ready.
func TestPLEG(t *testing.T) {
	notInGuest(t)
	n := lab.StartNode(t, binaries, "")
	args := kubeletArgs(t, n)
	n.CreatePod(t, "web-1")
	lab.Eventually(t, time.Minute, "the pod runs", func() bool { return n.PodPhase(t, "web-1") == "Running" })

	// Who may not is told what to allow.
	stranger := n.ServiceAccount(t, "kube-system", "stranger")
	refused := watch(t, "pleg", append(args, "--token-file="+stranger)...).look(t)
	wantWords(t, refused.Message, "403", "get nodes/metrics", "deploy/rbac.yaml")

	t.Run("OwnCertificate", func(t *testing.T) { wantOwnCertificate(t, n, args) })
	check := watch(t, "pleg", args...)
	check.wantOK(t)
	pid := n.Containerd.PID(t)
	stop := func() { n.Containerd.Signal(t, pid, unix.SIGSTOP) }
	t.Run("OnDetector", func(t *testing.T) {
		d := startDetector(t, map[string][]string{"pleg": append(args, "--age=20s"), "kubelet-throttle": args})
		d.wait(t, "PLEGStalled", "PLEGRelistStalled", false)
		d.wait(t, "KubeletThrottled", "KubeletRequestsWait", false)
		stop()
		d.wait(t, "PLEGStalled", "PLEGRelistStalled", true)
		d.wantSaid(t, "PLEGStalled", "PLEG stalled: kubelet waits for the container runtime")
		n.Containerd.Signal(t, pid, unix.SIGCONT)
		d.wait(t, "PLEGStalled", "PLEGRelistStalled", false)
		d.wait(t, "KubeletThrottled", "KubeletRequestsWait", false)
	})
	check.wantOK(t)

	stop()
	stopped := time.Now()
	said := check.until(t, 2*time.Minute, npd.NonOK)
	wantWords(t, said, "PLEG stalled: kubelet waits for the container runtime for 6", "ContainerRuntimeStalled")
	if ready := n.Condition(t, "Ready"); ready != "True" {
		t.Errorf("the node's Ready is %s when the check says Problem", ready)
	}
	t.Logf("Problem %v after containerd was stopped, the node is still Ready", time.Since(stopped).Round(time.Second))
	n.Containerd.Signal(t, pid, unix.SIGCONT)
	check.until(t, 30*time.Second, npd.OK)

	// A kubelet that starts anew has not relisted yet, and counts from zero.
	n.StopKubelet()
	down := check.look(t)
	if down.Status != npd.Unknown { // at once: that nobody listens was seen
		t.Errorf("%s of a kubelet that is down", down.Status)
	}
	wantWords(t, down.Message, "connection refused", "--kubelet")
	n.StartKubelet(t, "")
	for range 5 {
		check.wantOK(t)
		time.Sleep(time.Second)
	}

	// With a containerd that is gone relists fail at once: kubelet gives its page, and the numbers tell.
	quick := watch(t, "pleg", append(args, "--age=15s")...)
	quick.wantOK(t)
	n.Containerd.Signal(t, pid, unix.SIGKILL)
	lab.WaitGone(t, pid)
	wantWords(t, quick.until(t, time.Minute, npd.NonOK), "PLEG stalled: the last relist was 1", "list_podsandbox failed")
	n.Containerd.Restart(t, "")
	quick.until(t, time.Minute, npd.OK)
}

// kubelet with Evented PLEG: since 1.37 it relists every second all the same and is judged, before it is not. With streaming
// lists its log has other words for a runtime that hangs, which the journal rules know.
func TestPLEGEvented(t *testing.T) {
	notInGuest(t)
	n := lab.StartNodeWith(t, binaries, lab.NodeConfig{
		Settings:   "featureGates: {EventedPLEG: true, CRIListStreaming: true}\n",
		Containerd: lab.ContainerdConfig{Version: "2.x"},
	})
	args := kubeletArgs(t, n)
	n.CreatePod(t, "web-1")
	lab.Eventually(t, time.Minute, "the pod runs", func() bool { return n.PodPhase(t, "web-1") == "Running" })
	metrics := string(askKubelet(t, n, n.ServiceAccount(t, "kube-system", "node-problem-detector"), "/metrics"))
	if !strings.Contains(metrics, "kubelet_evented_pleg_connection_success_count 1\n") || !strings.Contains(metrics, `kubernetes_feature_enabled{name="CRIListStreaming",stage="ALPHA"} 1`) {
		t.Fatal("kubelet has no Evented PLEG, or does not stream")
	}
	check := watch(t, "pleg", args...)
	check.wantOK(t)
	if version := n.KubeletVersion(t); strings.HasPrefix(version, "v1.36.") {
		wantWords(t, check.look(t).Message, "kubelet has Evented PLEG")
		return
	}
	wantWords(t, check.look(t).Message, "the last relist was")

	pid := n.Containerd.PID(t)
	n.Containerd.Signal(t, pid, unix.SIGSTOP)
	wantWords(t, check.until(t, 2*time.Minute, npd.NonOK), "PLEG stalled: kubelet waits for the container runtime for 6", "ContainerRuntimeStalled")
	if ready := n.Condition(t, "Ready"); ready != "True" {
		t.Errorf("the node's Ready is %s when the check says Problem", ready)
	}
	// The streams end with kubelet's deadline of two minutes.
	for _, method := range []string{"StreamPodSandboxes", "StreamContainers"} {
		var line string
		lab.Eventually(t, 2*time.Minute, method+" fails", func() bool {
			for said := range strings.Lines(n.KubeletLog(t)) {
				if strings.Contains(said, method+" recv failed") {
					line = strings.TrimSpace(said)
				}
			}
			return line != ""
		})
		t.Logf("kubelet's line: %s", line)
		if !regexp.MustCompile(kubeletRule(t, "KubeletStreamTimeout")).MatchString(line) {
			t.Errorf("no journal rule for it")
		}
	}
	n.Containerd.Signal(t, pid, unix.SIGCONT)
	check.until(t, 30*time.Second, npd.OK)
}

// kubeletRule is the pattern of a journal rule for kubelet.
func kubeletRule(t *testing.T, reason string) string {
	t.Helper()
	content, err := os.ReadFile("../../journal-rules/kubelet.json")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Rules []struct{ Reason, Pattern string }
	}
	if err := json.Unmarshal(content, &config); err != nil {
		t.Fatal(err)
	}
	for _, rule := range config.Rules {
		if rule.Reason == reason {
			return rule.Pattern
		}
	}
	t.Fatalf("no rule %s", reason)
	return ""
}
