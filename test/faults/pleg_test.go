package faults

import (
	"os"
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
	wantWords(t, check.look(t).Message, "was OK", "connection refused", "--kubelet")
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
