package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

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

func TestZombies(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
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
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	culprit := startCulpritInPod(t)
	check := watch(t, "zombies")
	for range 4 {
		culprit.Zombies(t, 60)
		check.wantOK(t)
		culprit.Reap(t)
	}
}

// With a full state directory nobody knows whether the zombies stay.
func TestZombiesCannotRemember(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	full := lab.FullDir(t)
	culprit := startCulpritInPod(t)
	check := watch(t, "zombies", "--state-dir="+full)
	check.wantOK(t)
	culprit.Zombies(t, 60)
	for range 3 {
		check.wantUnkept(t, "60 zombies")
	}
	if err := os.Remove(filepath.Join(full, "filler")); err != nil {
		t.Fatal(err)
	}
	check.wantOK(t) // not seen before
	check.wantProblem(t, podUID)
	culprit.Reap(t)
	check.wantOK(t)
}
