// Package cmux tests the CRI client of the checks through github.com/soheilhy/cmux, set up as CRI-O does.
package cmux

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/soheilhy/cmux"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/test/lab"
)

const socket = "/run/crio/crio.sock"

// runtime is one with streaming lists, as CRI-O 1.37 is.
type runtime struct{ lab.FakeCRI }

func (r *runtime) StreamPodSandboxes(_ *runtimeapi.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	return stream.Send(&runtimeapi.StreamPodSandboxesResponse{})
}

// serve answers at CRI-O's socket below a host root, behind its multiplexer (cmd/crio/main.go, CRI-O 1.37).
func serve(t *testing.T, server runtimeapi.RuntimeServiceServer, options ...grpc.ServerOption) (root string) {
	t.Helper()
	root = lab.ShortDir(t)
	m := cmux.New(lab.Listen(t, root, socket))
	grpcL := m.MatchWithWriters(cmux.HTTP2MatchHeaderFieldSendSettings("content-type", "application/grpc"))
	httpL := m.Match(cmux.HTTP1Fast())
	lab.ServeCRI(t, grpcL, "v1", server, options...)
	info := &http.Server{Handler: http.NotFoundHandler(), ReadTimeout: 5 * time.Second}
	go info.Serve(httpL)
	go m.Serve()
	t.Cleanup(func() { info.Close() })
	return root
}

// The multiplexer is as strict as CRI-O's: another content type of the protocol is not let in. What it does with it is
// what the client must never meet.
func TestMultiplexerIsStrict(t *testing.T) {
	root := serve(t, new(runtime))
	conn, err := grpc.NewClient("unix://"+root+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	if _, err := client.Version(t.Context(), &runtimeapi.VersionRequest{}, grpc.CallContentSubtype("proto")); status.Code(err) != codes.Unavailable {
		t.Errorf("application/grpc+proto: %v", err)
	}
	if _, err := client.Version(t.Context(), &runtimeapi.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("application/grpc: %v", err)
	}
}

// Every call that a check makes comes through, the first of a connection and those at the same time.
func TestClientThroughMultiplexer(t *testing.T) {
	server := new(runtime)
	var sandboxes []*runtimeapi.PodSandbox
	var containers []*runtimeapi.Container
	for i := range 200 { // some 2 MiB each: many frames, and more than the windows of the connection hold
		pod := lab.PodConfig("report-6b54c9d7f8", i, 10<<10)
		sandboxes = append(sandboxes, lab.Sandbox(pod, i, runtimeapi.PodSandboxState_SANDBOX_READY, 1))
		k := lab.Container(lab.ContainerConfig(pod, "main"), 1000+i, i, runtimeapi.ContainerState_CONTAINER_RUNNING, 1)
		k.Annotations = pod.Annotations
		containers = append(containers, k)
	}
	server.Set(sandboxes, containers)
	root := serve(t, server, grpc.MaxSendMsgSize(80<<20))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	h := hosttest.Open(t, root)
	client, err := cri.Connect(ctx, h, "")
	if err != nil {
		t.Fatal(cri.Reason(err))
	}
	defer client.Close()
	if client.Endpoint != socket {
		t.Errorf("endpoint %s", client.Endpoint)
	}
	if list, err := client.Sandboxes(ctx, nil, func(*cri.Sandbox) {}); err != nil || list.Items != 200 || list.Bytes < 2<<20 {
		t.Errorf("sandboxes %+v: %v", list, err)
	}
	if list, err := client.Containers(ctx, nil, func(*cri.Container) {}); err != nil || list.Items != 200 || list.Bytes < 2<<20 {
		t.Errorf("containers %+v: %v", list, err)
	}
	if !client.Streams(ctx) {
		t.Error("the runtime has streaming lists")
	}
	if _, err := client.NetworkNamespace(ctx, "x"); status.Code(err) != codes.Unimplemented {
		t.Errorf("PodSandboxStatus: %v, want the server's own answer", err)
	}

	fresh, err := cri.Dial(ctx, h, socket) // as cri-latency: all calls at once are the first ones
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	errs := make(chan error, 3)
	go func() { errs <- fresh.Version(ctx) }()
	go func() { errs <- fresh.Status(ctx) }()
	go func() {
		_, err := fresh.Sandboxes(ctx, nil, func(*cri.Sandbox) {})
		errs <- err
	}()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(cri.Reason(err))
		}
	}
}
