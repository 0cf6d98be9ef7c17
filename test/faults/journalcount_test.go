package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// count watches a journald with one of the configurations.
func count(t *testing.T, j *lab.Journald, name string, args ...string) *watcher {
	t.Helper()
	config, err := npd.LoadCustom("../../config/journal-count-" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return watch(t, "journal-count", append(append(config.Rules[0].Args, "--host-root="+j.Root), args...)...)
}

// wantSoon looks until it is a Problem, or OK: journald writes a moment after it was told. Messages of a Problem hold all words.
func (w *watcher) wantSoon(t *testing.T, status npd.Status, words ...string) {
	t.Helper()
	lab.Eventually(t, 30*time.Second, status.String(), func() bool {
		result := npd.RunPlugin(context.Background(), filepath.Join(binaries, w.check), w.args, 30*time.Second, 256)
		return result.Status == status
	})
	if status == npd.OK {
		w.wantOK(t)
	} else {
		w.wantProblem(t, words...)
	}
}

// cniOf is what a containerd with pods whose network cannot be torn down logs, while kubelet tries again.
func cniOf(t *testing.T, tries int) (lines []string, heal func()) {
	t.Helper()
	cni := lab.NewCNI(t)
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{CNI: cni})
	pod := lab.PodConfig("report-6b54c9d7f8", 0, 0)
	pod.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
	ids := containerd.RunPods(t, []*runtimeapi.PodSandboxConfig{pod})
	before := len(containerd.Log(t))
	cni.Break(t)
	for range tries {
		if _, err := containerd.Runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: ids[0]}); err == nil {
			t.Fatal("the network was torn down")
		}
	}
	lines = strings.Split(strings.TrimSpace(containerd.Log(t)[before:]), "\n")
	return lines, func() {
		cni.Heal()
		containerd.RemovePods(t, ids)
	}
}

func TestCNITeardownFailing(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	j := lab.StartJournald(t)
	lines, heal := cniOf(t, 12)
	defer heal()
	check := count(t, j, "cni-teardown", "--window=15s")
	j.Log(t, "containerd", "containerd successfully booted")
	check.wantSoon(t, npd.OK)
	j.Log(t, "containerd", lines[:len(lines)/2]...) // one bad minute
	check.wantOK(t)
	j.Rotate(t)
	j.Log(t, "containerd", lines[len(lines)/2:]...)
	check.wantSoon(t, npd.NonOK, "networks of deleted pods cannot be torn down: 12 lines in 15s", "last containerd: failed to destroy network for sandbox", "the network daemon does not answer")
	j.Log(t, "node-problem-detector", lines...)
	check.wantSoon(t, npd.OK) // when the window has passed
}

// inK0s is a line as k0s logs what a component of it has written.
func inK0s(line, component string) string {
	var b bytes.Buffer
	log := &logrus.Logger{Out: &b, Level: logrus.InfoLevel, Formatter: &logrus.TextFormatter{TimestampFormat: time.DateTime, FullTimestamp: true}}
	log.WithFields(logrus.Fields{"component": component, "stream": "stderr"}).Info(line)
	return strings.TrimSpace(b.String())
}

// TestCNITeardownFailingElsewhere has the lines of a real containerd where k0s has them, wrapped in its own, and where k3s and rke2
// have them, in a file that the journal knows nothing of.
func TestCNITeardownFailingElsewhere(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	j := lab.StartJournald(t)
	file := filepath.Join(t.TempDir(), "containerd.log")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	inJournal := count(t, j, "cni-teardown", "--window=30s")
	inFile := count(t, j, "cni-teardown", "--window=30s", "--file="+file)
	j.Log(t, "k0s", "all is well")
	inJournal.wantSoon(t, npd.OK)
	inFile.wantOK(t)

	lines, heal := cniOf(t, 12)
	defer heal()
	var wrapped, others []string
	for _, line := range lines {
		wrapped, others = append(wrapped, inK0s(line, "containerd")), append(others, inK0s(line, "konnectivity-agent"))
	}
	j.Log(t, "k0s", others...)
	inJournal.wantOK(t)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	inFile.wantSoon(t, npd.NonOK, "networks of deleted pods cannot be torn down: 12 lines in 30s", "last containerd: failed to destroy network for sandbox")
	inJournal.wantOK(t)
	j.Log(t, "k0s", wrapped...)
	inJournal.wantSoon(t, npd.NonOK, "networks of deleted pods cannot be torn down: 12 lines in 30s", "last k0s: failed to destroy network for sandbox", "the network daemon does not answer")
	for _, check := range []*watcher{inFile, inJournal} {
		lab.Eventually(t, time.Minute, "the window has passed", func() bool {
			return npd.RunPlugin(context.Background(), filepath.Join(binaries, check.check), check.args, 30*time.Second, 256).Status == npd.OK
		})
	}
}

// taskDeleteLines is what a containerd whose shim does not answer logs, and what kubelet makes of the errors it gets. Which of the two gives
// up first is a matter of chance: containerd then says "context deadline exceeded" or "context canceled".
func taskDeleteLines(t *testing.T, tries int) (ofContainerd, ofKubelet []string) {
	t.Helper()
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{})
	ids := containerd.RunPods(t, podConfigs("report-6b54c9d7f8", 0, 1))
	before := len(containerd.Log(t))
	for _, pid := range shimsOf(t, ids[0]) {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) })
	}
	for i := range tries {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := containerd.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: ids[0]})
		cancel()
		if err == nil {
			t.Fatal("the sandbox was stopped by a shim that does not run")
		}
		ofKubelet = append(ofKubelet, fmt.Sprintf(`E1101 12:%02d:00.123456    4321 log.go:32] "StopPodSandbox from runtime service failed" err=%q podSandboxID=%q`, i, err, ids[0]))
	}
	return strings.Split(strings.TrimSpace(containerd.Log(t)[before:]), "\n"), ofKubelet
}

// shimsOf returns the shims that have the id of a sandbox in their command line.
func shimsOf(t *testing.T, id string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		cmdline, _ := os.ReadFile(file)
		if strings.Contains(string(cmdline), "shim") && strings.Contains(string(cmdline), id) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatalf("no shim of %s", id)
	}
	return pids
}

func TestTaskDeleteTimingOut(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	j := lab.StartJournald(t)
	check := count(t, j, "task-delete", "--window=20s")
	j.Log(t, "containerd", "containerd successfully booted")
	check.wantSoon(t, npd.OK)
	ofContainerd, ofKubelet := taskDeleteLines(t, 6)
	j.Log(t, "kubelet", ofKubelet[:2]...) // one that was stopped in the end
	check.wantOK(t)
	j.Log(t, "containerd", ofContainerd...)
	j.Log(t, "kubelet", ofKubelet[2:]...)
	check.wantSoon(t, npd.NonOK, "containers cannot be stopped or deleted in time: ", "last kubelet: StopPodSandbox from runtime service failed", "context deadline exceeded")
	check.wantSoon(t, npd.OK)
}

// A real program that cannot start its threads, in a cgroup with too few tasks.
func TestTaskForkFailing(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	containerd := lab.NeedCommand(t, "containerd", "containerd")
	j := lab.StartJournald(t)
	check := count(t, j, "task-fork", "--window=10s")
	group := lab.NewCgroup(t, "containerd.service")
	j.RunIn(t, group, "containerd", containerd, "--version")
	check.wantSoon(t, npd.OK)
	group.LimitTasks(t, 1)
	for range 3 {
		check.wantOK(t)
		j.RunIn(t, group, "containerd", containerd, "--version")
	}
	check.wantSoon(t, npd.NonOK, "cannot start: 3 lines in 10s", "last containerd: ")
	check.wantSoon(t, npd.OK)
}

// A real refusal of containerd, in the line that kubelet makes of it.
func TestCRIMessageTooLarge(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{MaxSendMessageSize: 1 << 10})
	containerd.RunPods(t, podConfigs("report-6b54c9d7f8", 0, 3))
	j := lab.StartJournald(t)
	check := count(t, j, "cri-message-size", "--window=10s")
	for i := range 12 {
		_, err := containerd.Runtime.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		if err == nil {
			t.Fatal("the list was sent")
		}
		j.Log(t, "k3s", fmt.Sprintf(`E1101 12:00:%02d.123456    4321 log.go:32] "ListPodSandbox with filter from runtime service failed" err=%q filter="nil"`, i, err))
		if i == 5 {
			check.wantOK(t)
		}
	}
	check.wantSoon(t, npd.NonOK, "exceed their limit: 12 lines in 10s", "last k3s: message larger than max (")
	check.wantSoon(t, npd.OK)
}

// Lines as kubelet writes them, as text and as JSON: no start of it is a Problem, and a flap is one for the window.
func TestPLEGUnhealthyLogged(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	j := lab.StartJournald(t)
	check := count(t, j, "pleg")
	for range 5 {
		j.Log(t, "kubelet", `E1101 12:00:00.123456    4321 kubelet.go:2480] "Skipping pod synchronization" err="[container runtime status check may not have completed yet, PLEG is not healthy: pleg has yet to be successful]"`)
	}
	check.wantSoon(t, npd.OK)
	unhealthy := []string{
		`E1101 12:03:05.123456    4321 kubelet.go:2480] "Skipping pod synchronization" err="PLEG is not healthy: pleg was last seen active 3m5.3s ago; threshold is 3m0s"`,
		`I1101 12:03:05.223456    4321 setters.go:600] "Node became not ready" node="node-1" condition={"type":"Ready","status":"False","reason":"KubeletNotReady","message":"PLEG is not healthy: pleg was last seen active 3m5.3s ago; threshold is 3m0s"}`,
		`{"ts":1793534590123.456,"caller":"kubelet/kubelet.go:2480","msg":"Skipping pod synchronization","err":"PLEG is not healthy: pleg was last seen active 3m10.3s ago; threshold is 3m0s"}`,
	}
	j.Log(t, "kubelet", unhealthy[:2]...)
	check.wantOK(t)
	j.Log(t, "kubelet", unhealthy[2])
	check.wantSoon(t, npd.NonOK, "kubelet says that its PLEG is not healthy: 3 lines in 10m", "pleg was last seen active 3m10.3s ago; threshold is 3m0s")
	j.Log(t, "kubelet", `I1101 12:05:05.123456    4321 kubelet_node_status.go:683] "Recording event message for node" node="node-1" event="NodeReady"`)
	check.wantProblem(t, "3 lines in 10m")

	short := count(t, j, "pleg", "--window=5s")
	short.wantSoon(t, npd.OK)
	j.Log(t, "kubelet", append(unhealthy, `I1101 12:05:05.123456    4321 kubelet_node_status.go:683] "Recording event message for node" node="node-1" event="NodeReady"`)...)
	short.wantSoon(t, npd.NonOK, "3 lines in 5s")
	short.wantSoon(t, npd.OK)
}

// While journald writes and rotates, no look is Unknown, and none counts a line twice or forgets one.
func TestJournalBeingWritten(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	j := lab.StartJournald(t)
	j.Log(t, "kubelet", "Started kubelet")
	check := watch(t, "journal-count", "--host-root="+j.Root, "--identifier=kubelet", "--pattern=broken .*", "--count=1000000")
	check.wantSoon(t, npd.OK)
	const rounds, lines = 40, 2000
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range rounds {
			j.Log(t, "kubelet", strings.Split(strings.Repeat("broken line\n", lines-1)+"broken line", "\n")...)
		}
	}()
	looked, counted := 0, 0
	look := func() {
		t.Helper()
		result := npd.RunPlugin(t.Context(), filepath.Join(binaries, check.check), check.args, 30*time.Second, 256)
		before := counted
		if _, err := fmt.Sscanf(result.Message, "%d line", &counted); err != nil || result.Status != npd.OK || counted < before {
			t.Fatalf("look %d, %d lines so far: %v: %s", looked, before, result.Status, result.Message)
		}
		looked++
	}
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
		}
		look()
		if looked%4 == 3 {
			j.Rotate(t)
		}
	}
	// What is written goes through a socket that journald empties as it can.
	lab.Eventually(t, 30*time.Second, "all lines are counted", func() bool { look(); return counted >= rounds*lines })
	look()
	t.Logf("%d looks", looked)
	if counted != rounds*lines {
		t.Errorf("%d lines counted, %d were written", counted, rounds*lines)
	}
}

// All configurations on the real node-problem-detector, with the faults made and healed.
func TestJournalCountOnDetector(t *testing.T) {
	lab.NeedRoot(t)
	notInGuest(t)
	j := lab.StartJournald(t)
	cni, heal := cniOf(t, 12)
	defer heal()
	_, deletes := taskDeleteLines(t, 6)
	j.Log(t, "kubelet", "Started kubelet")
	args := []string{"--window=20s", "--host-root=" + j.Root}
	d := startDetector(t, map[string][]string{"journal-count-cni-teardown": args, "journal-count-cri-message-size": args, "journal-count-task-fork": args,
		"journal-count-task-delete": args, "journal-count-pleg": args})
	conditions := map[string]string{"CNITeardownFailing": "CNITeardownFailuresLogged", "CRIMessageTooLarge": "CRIMessagesRefused",
		"TaskForkFailing": "TaskForkFailuresLogged", "TaskDeleteTimingOut": "TaskDeleteTimeoutsLogged", "PLEGUnhealthyLogged": "PLEGUnhealthyInLog"}
	for condition, reason := range conditions {
		d.wait(t, condition, reason, false)
	}
	repeat := func(n int, line string) []string { return strings.Split(strings.Repeat(line+"\n", n-1)+line, "\n") }
	j.Log(t, "containerd", cni...)
	d.wait(t, "CNITeardownFailing", "CNITeardownFailuresLogged", true)
	d.wantSaid(t, "CNITeardownFailing", "12 lines in 20s", "the network daemon does not answer")
	j.Log(t, "kubelet", deletes...)
	d.wait(t, "TaskDeleteTimingOut", "TaskDeleteTimeoutsLogged", true)
	j.Log(t, "kubelet", repeat(10, `E1101 12:00:00.123456    4321 log.go:32] "ListContainers with filter from runtime service failed" err="rpc error: code = ResourceExhausted desc = grpc: trying to send message larger than max (16779852 vs. 16777216)" filter="nil"`)...)
	d.wait(t, "CRIMessageTooLarge", "CRIMessagesRefused", true)
	j.Log(t, "containerd", repeat(3, "runtime/cgo: pthread_create failed: Resource temporarily unavailable")...)
	d.wait(t, "TaskForkFailing", "TaskForkFailuresLogged", true)
	j.Log(t, "kubelet", repeat(3, `E1101 12:03:05.123456    4321 kubelet.go:2480] "Skipping pod synchronization" err="PLEG is not healthy: pleg was last seen active 3m5.3s ago; threshold is 3m0s"`)...)
	d.wait(t, "PLEGUnhealthyLogged", "PLEGUnhealthyInLog", true)
	for condition, reason := range conditions {
		d.wait(t, condition, reason, false)
	}
}
