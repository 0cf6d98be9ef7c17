package faults

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"npd-plugins/test/lab"
)

// eachSystemd runs the test with a systemd of each version as process 1 of a PID namespace.
func eachSystemd(t *testing.T, test func(*testing.T, *lab.Systemd)) {
	if lab.InGuest() {
		t.Setenv("PATH", os.Getenv("PATH")+":/usr/bin") // nsenter and unshare
	}
	for _, version := range lab.SystemdVersions() {
		t.Run(version, func(t *testing.T) { test(t, lab.StartSystemd(t, version)) })
	}
}

// watchSystemd returns a watcher that looks as from a pod on the node, and one that looks from outside, which systemd's own
// socket does not serve: it takes the bus.
func watchSystemd(t *testing.T, s *lab.Systemd, check string, args ...string) (pod, outside *watcher) {
	t.Helper()
	args = append(args, "--host-root", s.Root)
	pod, outside = watch(t, check, args...), watch(t, check, args...)
	pod.through = s.Pod()
	return pod, outside
}

// transientMount is how kubelet describes the scope of a mount.
const transientMount = "Kubernetes transient mount for /var/lib/kubelet/pods/" + podUID + "/volumes/kubernetes.io~secret/token"

func TestSystemdUnits(t *testing.T) {
	eachSystemd(t, func(t *testing.T, s *lab.Systemd) {
		many, limit := 520, "--scopes=500"
		if lab.InGuest() { // where a scope takes half a second
			many, limit = 110, "--scopes=100"
		}
		pod, outside := watchSystemd(t, s, "systemd-units", "--age=2s", limit)
		young, _ := watchSystemd(t, s, "systemd-units", "--age=1h", limit)
		pod.wantOK(t)
		outside.wantOK(t)

		s.Run(t, "systemd-run", "--scope", "--quiet", "--description=make -j8", "true")
		s.Scopes(t, many, transientMount)
		time.Sleep(3 * time.Second) // until the last one is old
		words := []string{"scopes of kubelet's mounts stay in systemd, oldest ", "of pod " + podUID + ", volume kubernetes.io~secret/token; systemd has "}
		pod.wantProblem(t, append(words, fmt.Sprintf("%d scopes", many))...)
		outside.wantProblem(t, words...)
		young.wantOK(t) // as many, of mounts that are being made

		units, _ := watchSystemd(t, s, "systemd-units", fmt.Sprintf("--units=%d", many), "--scopes=1000")
		units.wantProblem(t, fmt.Sprintf("units in systemd, limit %[1]d; %[1]d of ", many), "are run-*.scope", fmt.Sprintf("kubelet's mounts: %d of pod %s", many, podUID))

		s.Run(t, "systemctl", "stop", "run-*.scope")
		pod.wantOK(t)
		outside.wantOK(t)
		units.wantOK(t)

		// What kubelet does all the time: scopes that end.
		for range 20 {
			s.Run(t, "systemd-run", "--scope", "--quiet", "--description="+transientMount, "true")
		}
		pod.wantOK(t)
	})
}

// A look that comes with the end of the authentication in one piece is answered too, every time.
func TestSystemdAnswersEachLook(t *testing.T) {
	eachSystemd(t, func(t *testing.T, s *lab.Systemd) {
		for range 25 {
			pod, outside := watchSystemd(t, s, "systemd-units", "--timeout=5s")
			pod.wantOK(t)
			outside.wantOK(t)
		}
	})
}

// The configurations on the real node-problem-detector, which is outside and goes by the bus.
func TestSystemdChecksOnDetector(t *testing.T) {
	notInGuest(t)
	lab.NeedDetector(t)
	s := lab.StartSystemd(t, "252")
	startServices(t, s)
	root := "--host-root=" + s.Root
	d := startDetector(t, map[string][]string{"systemd-units": {root, "--scopes=60", "--age=1s"}, "service-restarts": {root, "--window=10s"}})
	healthy := func() {
		t.Helper()
		d.wait(t, "SystemdUnitLeak", "SystemdUnitsLeaked", false)
		d.wait(t, "NodeServiceFlapping", "NodeServiceRestartsOften", false)
	}
	healthy()
	s.Scopes(t, 80, transientMount)
	d.wait(t, "SystemdUnitLeak", "SystemdUnitsLeaked", true)
	d.wantSaid(t, "SystemdUnitLeak", "scopes of kubelet's mounts stay in systemd", podUID)
	s.Unit(t, "sick", "")
	s.Run(t, "systemctl", "restart", "kubelet.service")
	d.wait(t, "NodeServiceFlapping", "NodeServiceRestartsOften", true)
	d.wantSaid(t, "NodeServiceFlapping", "kubelet.service started ", "times in 10s")
	lab.Eventually(t, 30*time.Second, "a second service is told of while the condition is True", func() bool {
		s.Run(t, "systemctl", "restart", "containerd.service")
		said := d.said(t, "NodeServiceFlapping")
		return strings.Contains(said, "2 services: containerd.service started ") && strings.Contains(said, "; kubelet.service started ")
	})
	heal(t, s)
	s.Run(t, "systemctl", "stop", "run-*.scope")
	healthy()
}
