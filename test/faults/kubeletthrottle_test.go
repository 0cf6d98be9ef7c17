package faults

import (
	"fmt"
	"testing"
	"time"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// A real kubelet that may ask once a second starts 25 pods, and one with its usual limits does.
func TestKubeletThrottle(t *testing.T) {
	notInGuest(t)
	const once = "kubeAPIQPS: 1\nkubeAPIBurst: 1\neventRecordQPS: 1\neventBurst: 1\n"
	n := lab.StartNode(t, binaries, once)
	args := kubeletArgs(t, n)
	create := func(app string, count int) (running func()) {
		t.Helper()
		last := ""
		for i := range count {
			last = fmt.Sprintf("%s-%d", app, i)
			n.CreatePod(t, last)
		}
		return func() {
			t.Helper()
			lab.Eventually(t, 3*time.Minute, last+" is told to run", func() bool { return n.PodPhase(t, last) == "Running" })
		}
	}
	lab.Eventually(t, time.Minute, "kubelet's own start is over", func() bool {
		return watch(t, "kubelet-throttle", args...).look(t).Status == npd.OK
	})
	time.Sleep(20 * time.Second)
	check := watch(t, "kubelet-throttle", args...)
	check.wantOK(t)
	running := create("slow", 25)
	wantWords(t, check.until(t, time.Minute, npd.NonOK), "kubelet holds back its own requests ", "requests to 127.0.0.1:", "s on average", "; raise ", "Burst")
	running()
	t.Run("OnDetector", func(t *testing.T) {
		d := startDetector(t, map[string][]string{"kubelet-throttle": args})
		d.wait(t, "KubeletThrottled", "KubeletRequestsWait", false)
		running := create("again", 15)
		d.wait(t, "KubeletThrottled", "KubeletRequestsWait", true)
		d.wantSaid(t, "KubeletThrottled", "kubelet holds back its own requests", "; raise ")
		running()
		d.wait(t, "KubeletThrottled", "KubeletRequestsWait", false)
	})

	n.StopKubelet()
	n.StartKubelet(t, "")
	quick := watch(t, "kubelet-throttle", args...)
	quick.wantOK(t)
	create("quick", 25)()
	quick.wantOK(t)
	check.wantOK(t)
}
