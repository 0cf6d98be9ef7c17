package faults

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"npd-plugins/test/lab"
)

// startCulpritInPod starts a culprit in the cgroups of a container.
func startCulpritInPod(t *testing.T) *lab.Culprit {
	t.Helper()
	cgroup := lab.NewCgroup(t, podCgroup+"/"+containerID)
	culprit := lab.StartCulprit(t)
	cgroup.Add(t, culprit.Pid)
	return culprit
}

// waitForInit waits until init has reaped what others on this machine left to it, which would count here too.
func waitForInit(t *testing.T) {
	t.Helper()
	lab.Eventually(t, time.Minute, "fewer than 20 zombies on this machine", func() bool {
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		zombies := 0
		for _, path := range stats {
			if stat, err := os.ReadFile(path); err == nil && bytes.Contains(stat, []byte(") Z ")) {
				zombies++
			}
		}
		return zombies < 20
	})
}

func TestZombies(t *testing.T) {
	lab.NeedRoot(t)
	waitForInit(t)
	culprit := startCulpritInPod(t)
	check := watch(t, "zombies")
	check.wantOK(t)
	culprit.Zombies(t, 60)
	check.wantOK(t) // not seen before
	check.wantProblem(t, fmt.Sprintf("%s (pid %d) of pod %s owns 60", culprit.Comm, culprit.Pid, podUID))

	culprit.Reap(t)
	check.wantOK(t)
	culprit.Zombies(t, 60)
	check.wantOK(t)
	check.wantProblem(t, podUID)
	culprit.Stop() // what is left goes to init, which reaps
	check.wantOK(t)
}

func TestZombiesReapedInTime(t *testing.T) {
	lab.NeedRoot(t)
	waitForInit(t)
	culprit := startCulpritInPod(t)
	check := watch(t, "zombies")
	for range 4 {
		culprit.Zombies(t, 60)
		check.wantOK(t)
		culprit.Reap(t)
	}
}
