package main

import (
	"testing"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/test/lab"
)

// CRI-O sends up to 80 MiB, which is more than this check takes. What it does not take was no refusal of the runtime's,
// and is weighed all the same.
func TestLargerThanTaken(t *testing.T) {
	const most = 80 << 20
	var fake lab.FakeCRI
	pods := lab.PodConfig("report-6b54c9d7f8", 0, 2<<20)
	var sandboxes []*runtime.PodSandbox
	for i := range 33 {
		state := runtime.PodSandboxState(i % 2)
		sandboxes = append(sandboxes, lab.Sandbox(pods, i, state, 1))
	}
	fake.Set(sandboxes, nil)
	root := lab.ShortDir(t)
	lab.ServeCRI(t, lab.Listen(t, root, "run/crio/crio.sock"), "v1", &fake, grpc.MaxSendMsgSize(most))
	c := check{limit: 16 << 20, percent: 50}
	v := c.look(t.Context(), plugintest.Look(t, hosttest.Open(t, root)))
	plugintest.Want(t, v, plugin.Problem, "ListPodSandbox reply is 66", "of the gRPC limit 16MiB", "16 NotReady sandboxes")
	if size := v.Measurements[1].Value; size <= cri.MaxReply || size > most {
		t.Errorf("%+v", v.Measurements[1])
	}
}
