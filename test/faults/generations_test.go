package faults

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/test/lab"
)

// eachGeneration runs a test on every generation of containerd that can be had.
func eachGeneration(t *testing.T, test func(t *testing.T, version string)) {
	lab.NeedRoot(t)
	notInGuest(t)
	for _, version := range lab.Generations {
		t.Run("containerd "+version, func(t *testing.T) { test(t, version) })
	}
}

// The checks of the runtime's lists read those of each generation.
func TestListsOfGenerations(t *testing.T) {
	if !lab.InPIDNamespace(t, binaries) {
		return
	}
	eachGeneration(t, func(t *testing.T, version string) {
		containerd := lab.StartContainerd(t, binaries, lab.ContainerdConfig{Version: version})
		says, err := containerd.Runtime.Version(t.Context(), &runtimeapi.VersionRequest{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %s speaks %s", says.RuntimeName, says.RuntimeVersion, says.RuntimeApiVersion)
		if want := strings.TrimSuffix(version, "x"); !strings.HasPrefix(strings.TrimPrefix(says.RuntimeVersion, "v"), want) {
			t.Errorf("containerd %s is %s", version, says.RuntimeVersion)
		}
		pod := lab.PodConfig("web-7d9c5b8f6d", 0, 0)
		sandbox := containerd.RunPods(t, []*runtimeapi.PodSandboxConfig{pod})[0]
		runContainer(t, &containerd.CRI, sandbox, pod)
		watch(t, "runc-init", "--cri-endpoint", containerd.Endpoint).wantOK(t)
		watch(t, "cri-list-size", "--cri-endpoint", containerd.Endpoint).wantOK(t)
		watch(t, "cri-list-size", "--cri-endpoint", containerd.Endpoint, "--limit", "1KiB").wantProblem(t, pod.Metadata.Name)
	})
}
