package lab

import (
	"cmp"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
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
	listener := Listen(t, ShortDir(t), "cri.sock")
	ServeCRI(t, listener, "v1", f, options...)
	return "unix://" + listener.Addr().String()
}

// ServeCRI answers for the given version of the API until the test ends: v1, v1alpha2, or "" for a gRPC server that is no
// container runtime. It is as strict as the strictest real one.
func ServeCRI(t testing.TB, listener net.Listener, version string, runtime runtimeapi.RuntimeServiceServer, options ...grpc.ServerOption) {
	t.Helper()
	server := grpc.NewServer(append(options, Strict())...)
	if version != "" {
		desc := runtimeapi.RuntimeService_ServiceDesc
		desc.ServiceName = "runtime." + version + ".RuntimeService"
		server.RegisterService(&desc, runtime)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
}

// Strict refuses what CRI-O's multiplexer does (cmd/crio/main.go): it passes on the content type application/grpc, to the
// letter, and closes the connection of everything else, although the protocol has application/grpc+proto too.
func Strict() grpc.ServerOption {
	return grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if got := info.Header.Get("content-type"); !slices.Equal(got, []string{"application/grpc"}) {
			return nil, status.Errorf(codes.Unavailable, "content type %q", got)
		}
		return ctx, nil
	})
}

// Listen listens at the unix socket at path below the host root until the test ends. See ShortDir for the root.
func Listen(t testing.TB, root, path string) *net.UnixListener {
	t.Helper()
	socket := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// LeaveSocket makes a unix socket at path below the host root at which nobody listens any more.
func LeaveSocket(t testing.TB, root, path string) {
	t.Helper()
	listener := Listen(t, root, path)
	listener.SetUnlinkOnClose(false)
	listener.Close()
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
	id := wholeID(filter.GetId(), f.sandboxes)
	for _, s := range f.sandboxes {
		if id != "" && id != s.Id || !matches(s.Labels, filter.GetLabelSelector()) || filter.GetState() != nil && filter.GetState().State != s.State {
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
	id := wholeID(filter.GetId(), f.containers)
	for _, c := range f.containers {
		if id != "" && id != c.Id || !matches(c.Labels, filter.GetLabelSelector()) || filter.GetState() != nil && filter.GetState().State != c.State ||
			filter.GetPodSandboxId() != "" && filter.GetPodSandboxId() != c.PodSandboxId {
			continue
		}
		reply.Containers = append(reply.Containers, c)
	}
	return &reply, nil
}

// wholeID finds the one id that begins so, as containerd and CRI-O do (truncindex).
func wholeID[Item interface{ GetId() string }](beginning string, items []Item) string {
	if beginning == "" {
		return ""
	}
	whole := ""
	for _, item := range items {
		if strings.HasPrefix(item.GetId(), beginning) {
			if whole != "" {
				return beginning // of several, so that it is the id of none
			}
			whole = item.GetId()
		}
	}
	return cmp.Or(whole, beginning)
}

func matches(labels, selector map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return true
}
