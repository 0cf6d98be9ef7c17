package lab

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FakeCRI is a container runtime that only lists. The zero value is a runtime without containers.
type FakeCRI struct {
	runtimeapi.UnimplementedRuntimeServiceServer

	mu         sync.Mutex
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
}

// Set replaces what the runtime lists.
func (f *FakeCRI) Set(sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sandboxes, f.containers = sandboxes, containers
}

// Serve answers on a fresh unix socket until the test ends and returns the endpoint (unix:///…). grpc.MaxSendMsgSize
// among the options makes it refuse long replies as containerd does.
func (f *FakeCRI) Serve(t testing.TB, options ...grpc.ServerOption) string {
	t.Helper()
	socket := filepath.Join(ShortDir(t), "cri.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	runtimeapi.RegisterRuntimeServiceServer(server, f)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return "unix://" + socket
}

// ShortDir returns a fresh directory whose path leaves room for a socket name: the address of a unix socket has at
// most 107 bytes, which t.TempDir often exceeds.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "npd-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (f *FakeCRI) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}, nil
}

func (f *FakeCRI) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true},
		{Type: runtimeapi.NetworkReady, Status: true},
	}}}, nil
}

func (f *FakeCRI) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	filter := req.GetFilter()
	var reply runtimeapi.ListPodSandboxResponse
	for _, s := range f.sandboxes {
		if filter.GetId() != "" && filter.GetId() != s.Id || filter.GetState() != nil && filter.GetState().State != s.State {
			continue
		}
		reply.Items = append(reply.Items, s)
	}
	return &reply, nil
}

func (f *FakeCRI) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	filter := req.GetFilter()
	var reply runtimeapi.ListContainersResponse
	for _, c := range f.containers {
		if filter.GetId() != "" && filter.GetId() != c.Id || filter.GetState() != nil && filter.GetState().State != c.State ||
			filter.GetPodSandboxId() != "" && filter.GetPodSandboxId() != c.PodSandboxId {
			continue
		}
		reply.Containers = append(reply.Containers, c)
	}
	return &reply, nil
}
