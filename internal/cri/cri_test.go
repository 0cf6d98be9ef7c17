package cri

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/test/lab"
)

func connect(t *testing.T, root, endpoint string) (*Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	c, err := Connect(ctx, hosttest.Open(t, root), endpoint)
	if err == nil {
		t.Cleanup(c.Close)
	}
	return c, err
}

const (
	containerdSocket = "/run/containerd/containerd.sock"
	dockerSocket     = "/run/cri-dockerd.sock"
)

func TestConnect(t *testing.T) {
	tests := []struct {
		name     string
		servers  map[string]string // path to version
		endpoint string
		want     string
		version  string
	}{
		{"containerd", map[string]string{containerdSocket: "v1"}, "", containerdSocket, "v1"},
		{"CRI-O", map[string]string{"/run/crio/crio.sock": "v1"}, "", "/run/crio/crio.sock", "v1"},
		{"k3s", map[string]string{"/run/k3s/containerd/containerd.sock": "v1"}, "", "/run/k3s/containerd/containerd.sock", "v1"},
		{"k0s", map[string]string{"/run/k0s/containerd.sock": "v1"}, "", "/run/k0s/containerd.sock", "v1"},
		{"before v1", map[string]string{containerdSocket: "v1alpha2"}, "", containerdSocket, "v1alpha2"},
		{"the containerd of Docker", map[string]string{containerdSocket: "", dockerSocket: "v1"}, "", dockerSocket, "v1"},
		{"CRI-O before cri-dockerd", map[string]string{"/run/crio/crio.sock": "v1", dockerSocket: "v1"}, "", "/run/crio/crio.sock", "v1"},
		{"told, path", map[string]string{containerdSocket: "v1", "/run/other.sock": "v1"}, "/run/other.sock", "/run/other.sock", "v1"},
		{"told by the old name of /run", map[string]string{containerdSocket: "v1"}, "/var/run/containerd/containerd.sock", "/var/run/containerd/containerd.sock", "v1"},
		{"told, a link of the node", map[string]string{"/data/containerd.sock": "v1"}, "/run/link.sock", "/run/link.sock", "v1"},
		{"told, and mounted there", map[string]string{"/var/run/other.sock": "v1"}, "/var/run/other.sock", "/var/run/other.sock", "v1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := lab.ShortDir(t)
			if tt.servers["/var/run/other.sock"] == "" {
				hosttest.Tree{"run/link.sock": "-> /data/containerd.sock", "var/run": "-> /run"}.Write(t, root)
			}
			for path, version := range tt.servers {
				lab.ServeCRI(t, lab.Listen(t, root, path), version, &lab.FakeCRI{})
			}
			c, err := connect(t, root, tt.endpoint)
			if err != nil {
				t.Fatal(err)
			}
			if c.Endpoint != tt.want || c.version != tt.version {
				t.Errorf("%s at %s, want %s at %s", c.version, c.Endpoint, tt.version, tt.want)
			}
		})
	}
}

func TestConnectFails(t *testing.T) {
	tests := []struct {
		name     string
		prepare  func(t *testing.T, root string)
		endpoint string
		want     string // in the reason
	}{
		{"no socket", func(*testing.T, string) {}, "", "no container runtime socket under"},
		{"no socket where told", func(*testing.T, string) {}, "/run/x.sock", "mount the socket's directory, or set --cri-endpoint"},
		{"a link to what only the reader has", func(t *testing.T, root string) {
			hosttest.Tree{"run/x.sock": "-> /dev/null"}.Write(t, root)
		}, "/run/x.sock", "no such file"},
		{"nobody listens", func(t *testing.T, root string) {
			lab.LeaveSocket(t, root, containerdSocket)
		}, "", containerdSocket + ": connect: connection refused"},
		{"a file", func(t *testing.T, root string) {
			hosttest.Tree{containerdSocket: "not a socket"}.Write(t, root)
		}, "", containerdSocket + " is no socket: set --cri-endpoint"},
		{"no CRI", func(t *testing.T, root string) {
			lab.ServeCRI(t, lab.Listen(t, root, containerdSocket), "", nil)
		}, "", "the container runtime has no CRI: "},
		{"garbage", func(t *testing.T, root string) {
			l := lab.Listen(t, root, containerdSocket)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.Write(bytes.Repeat([]byte("garbage\xff\x00"), 1000))
					conn.Close()
				}
			}()
		}, "", "the container runtime is not reachable: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := lab.ShortDir(t)
			tt.prepare(t, root)
			_, err := connect(t, root, tt.endpoint)
			if err == nil || !strings.Contains(Reason(err).Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
		})
	}
}

// The socket that a removed runtime left behind does not hide the one that is there.
func TestConnectPassesStaleSocket(t *testing.T) {
	root := lab.ShortDir(t)
	lab.LeaveSocket(t, root, containerdSocket)
	lab.ServeCRI(t, lab.Listen(t, root, "/run/crio/crio.sock"), "v1", &lab.FakeCRI{})
	c, err := connect(t, root, "")
	if err != nil || c.Endpoint != "/run/crio/crio.sock" {
		t.Errorf("%+v, %v", c, err)
	}
}

// A runtime that accepts and never answers.
func TestConnectHangs(t *testing.T) {
	root := lab.ShortDir(t)
	lab.Listen(t, root, containerdSocket)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := Connect(ctx, hosttest.Open(t, root), "")
	if got, want := Reason(err).Error(), "the container runtime accepts connections but does not answer in time"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Calls without Connect find the version of the API by themselves.
func TestDial(t *testing.T) {
	for _, version := range versions {
		root := lab.ShortDir(t)
		lab.ServeCRI(t, lab.Listen(t, root, containerdSocket), version, &lab.FakeCRI{})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := Dial(ctx, hosttest.Open(t, root), containerdSocket)
		if err != nil {
			t.Fatal(err)
		}
		if pid := c.Listener(); pid != os.Getpid() {
			t.Errorf("pid %d listens, want this process, %d", pid, os.Getpid())
		}
		for name, call := range map[string]func(context.Context) error{"Version": c.Version, "Status": c.Status} {
			if err := call(ctx); err != nil {
				t.Errorf("%s: %s: %v", version, name, err)
			}
		}
		if list, err := c.Containers(ctx, nil, func(*Container) {}); err != nil || list.Items != 0 {
			t.Errorf("%s: containers %+v, %v", version, list, err)
		}
		c.Close()
		if pid := c.Listener(); pid != 0 {
			t.Errorf("pid %d listens at a closed connection", pid)
		}
	}
}

// A client that makes no call leaves no connection behind.
func TestDialOnly(t *testing.T) {
	root := lab.ShortDir(t)
	listener := lab.Listen(t, root, containerdSocket)
	c, err := Dial(context.Background(), hosttest.Open(t, root), containerdSocket)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	c.Close()
	accepted.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after Close the server reads %v, want the end", err)
	}
}

// Whatever becomes of the connection, there is no second one.
func TestDialsOnce(t *testing.T) {
	root := lab.ShortDir(t)
	listener := lab.Listen(t, root, containerdSocket)
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn
			conn.Close()
		}
	}()
	c, err := Dial(context.Background(), hosttest.Open(t, root), containerdSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if err := c.Version(context.Background()); status.Code(err) != codes.Unavailable {
			t.Errorf("%v, want it unavailable", err)
		}
		c.conn.ResetConnectBackoff()
	}
	if n := len(accepted); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestDialRefused(t *testing.T) {
	root := lab.ShortDir(t)
	lab.LeaveSocket(t, root, containerdSocket)
	if _, err := Dial(context.Background(), hosttest.Open(t, root), containerdSocket); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want it refused", err)
	}
}

func TestLists(t *testing.T) {
	at := time.Unix(0, 1793534400123456789)
	fake := &lab.FakeCRI{}
	fake.Set([]*runtime.PodSandbox{sandbox(1, at), sandbox(2, at)}, []*runtime.Container{container(1, at), container(2, at), container(3, at)})
	for _, version := range []string{"v1", "v1alpha2"} {
		root := lab.ShortDir(t)
		lab.ServeCRI(t, lab.Listen(t, root, containerdSocket), version, fake)
		c, err := connect(t, root, "")
		if err != nil {
			t.Fatal(err)
		}
		var seen []string
		list, err := c.Containers(context.Background(), nil, func(k *Container) { seen = append(seen, string(k.ID)) })
		if err != nil || list.Items != 3 || len(seen) != 3 {
			t.Errorf("%s: containers %+v, %q, %v", version, list, seen, err)
		}
		filter := &runtime.ContainerFilter{Id: container(2, at).Id}
		if list, err := c.Containers(context.Background(), filter, func(*Container) {}); err != nil || list.Items != 1 {
			t.Errorf("%s: one container: %+v, %v", version, list, err)
		}
		seen = nil
		list, err = c.Sandboxes(context.Background(), nil, func(s *Sandbox) { seen = append(seen, string(s.Name)) })
		if err != nil || list.Items != 2 || len(seen) != 2 {
			t.Errorf("%s: sandboxes %+v, %q, %v", version, list, seen, err)
		}
		ready := &runtime.PodSandboxFilter{State: &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_READY}}
		if list, err := c.Sandboxes(context.Background(), ready, func(*Sandbox) {}); err != nil || list.Items != 1 {
			t.Errorf("%s: ready sandboxes: %+v, %v", version, list, err)
		}
	}
}

// The error of a server that refuses to send, as it comes over the wire.
func TestRefused(t *testing.T) {
	fake := &lab.FakeCRI{}
	var many []*runtime.Container
	for i := range 100 {
		many = append(many, container(i, time.Now()))
	}
	fake.Set(nil, many)
	root := lab.ShortDir(t)
	lab.ServeCRI(t, lab.Listen(t, root, containerdSocket), "v1", fake, grpc.MaxSendMsgSize(4096))
	c, err := connect(t, root, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Containers(context.Background(), nil, func(*Container) { t.Error("visited an item of a refused list") })
	size, limit, ok := TooLarge(err)
	if !ok || limit != 4096 || size <= 4096 {
		t.Errorf("%d of %d, %v: %v", size, limit, ok, err)
	}
}

func TestTooLarge(t *testing.T) {
	exhausted := func(text string) error {
		return fmt.Errorf("CRI ListContainers at /run/containerd/containerd.sock: %w", status.Error(codes.ResourceExhausted, text))
	}
	tests := []struct {
		err         error
		size, limit uint64
		ok          bool
	}{
		{exhausted("grpc: trying to send message larger than max (17248000 vs. 16777216)"), 17248000, 16777216, true},
		{exhausted("grpc: received message larger than max (12320000 vs. 4194304)"), 12320000, 4194304, true},
		{exhausted("grpc: received message after decompression larger than max (5 vs. 4)"), 5, 4, true},
		{exhausted("grpc: received message after decompression larger than max 4194304"), 0, 0, true},
		{exhausted("grpc: trying to send message larger than max (99999999999999999999 vs. 1)"), 0, 0, true},
		{exhausted("too many requests"), 0, 0, false},
		{status.Error(codes.Internal, "grpc: trying to send message larger than max (2 vs. 1)"), 0, 0, false},
		{errors.New("message larger than max (2 vs. 1)"), 0, 0, false},
		{nil, 0, 0, false},
	}
	for _, tt := range tests {
		if size, limit, ok := TooLarge(tt.err); size != tt.size || limit != tt.limit || ok != tt.ok {
			t.Errorf("%v: %d, %d, %v", tt.err, size, limit, ok)
		}
	}
}

func TestReason(t *testing.T) {
	for want, err := range map[string]error{
		"no socket": errors.New("no socket"),
		"the container runtime accepts connections but does not answer in time": status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
		"the container runtime is not reachable: refused":                       status.Error(codes.Unavailable, "refused"),
		"the container runtime is not reachable: dial unix /run/x.sock: connect: connection refused": status.Error(codes.Unavailable,
			`connection error: desc = "transport: Error while dialing: dial unix /run/x.sock: connect: connection refused"`),
		"the container runtime has no CRI: unknown service": status.Error(codes.Unimplemented, "unknown service"),
		"bolt: timeout": status.Error(codes.Unknown, "bolt: timeout"),
		"CRI Status at /run/x.sock: bolt: timeout":         fmt.Errorf("CRI Status at /run/x.sock: %w", status.Error(codes.Unknown, "bolt: timeout")),
		"the container runtime has no CRI: unknown method": fmt.Errorf("CRI Status at /run/x.sock: %w", status.Error(codes.Unimplemented, "unknown method")),
	} {
		if got := Reason(err).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// streamer is a runtime with the streaming lists.
type streamer struct{ lab.FakeCRI }

func (*streamer) StreamPodSandboxes(_ *runtime.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[runtime.StreamPodSandboxesResponse]) error {
	return stream.Send(&runtime.StreamPodSandboxesResponse{PodSandboxes: []*runtime.PodSandbox{sandbox(1, time.Now())}})
}

func TestStreams(t *testing.T) {
	for _, tt := range []struct {
		server runtime.RuntimeServiceServer
		want   bool
	}{{&lab.FakeCRI{}, false}, {&streamer{}, true}} {
		root := lab.ShortDir(t)
		lab.ServeCRI(t, lab.Listen(t, root, containerdSocket), "v1", tt.server)
		c, err := connect(t, root, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Streams(context.Background()); got != tt.want {
			t.Errorf("%T: %v", tt.server, got)
		}
		c.Close()
		if c.Streams(context.Background()) {
			t.Error("streams over a closed connection")
		}
	}
}

func TestEndpointFlag(t *testing.T) {
	var endpoint string
	fs := flag.NewFlagSet("toy", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	EndpointVar(fs, &endpoint)
	for text, want := range map[string]string{"unix:///run/x.sock": "/run/x.sock", "/run/x.sock": "/run/x.sock"} {
		if err := fs.Parse([]string{"--cri-endpoint=" + text}); err != nil || endpoint != want {
			t.Errorf("%s: %q, %v", text, endpoint, err)
		}
	}
	for _, text := range []string{"", "x", "run/x.sock", "unix://run/x.sock", "http://localhost", "tcp://127.0.0.1:1"} {
		if err := fs.Parse([]string{"--cri-endpoint=" + text}); err == nil || !strings.Contains(err.Error(), "for flag -cri-endpoint: want unix:///path") {
			t.Errorf("%q: %q, %v", text, endpoint, err)
		}
	}
}
