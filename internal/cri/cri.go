// Package cri asks a container runtime for its lists over the Container
// Runtime Interface, without decoding more of a reply than a check needs.
package cri

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hostnet"
)

// MaxReply is the largest reply in bytes that is taken. It is four times the
// limit of kubelet and containerd (16 MiB), so that the limit under watch is
// theirs and never ours, and still fits the memory that
// node-problem-detector's DaemonSet has.
const MaxReply = 64 << 20

// endpoints are the sockets of the runtimes on the host, most common first.
// Docker has a containerd beside cri-dockerd's socket whose CRI is off.
var endpoints = distribution.Every(func(d *distribution.Distribution) []string { return []string{d.Socket} })

// EndpointVar defines the flag that every check of the runtime has.
func EndpointVar(fs *flag.FlagSet, p *string) {
	fs.Var((*endpoint)(p), "cri-endpoint", "`socket` of the container runtime below --host-root, unix:///path or /path (default: the first of containerd, CRI-O, cri-dockerd, k3s that is there)")
}

// endpoint is the path of a socket on the host.
type endpoint string

func (e *endpoint) String() string { return string(*e) }

func (e *endpoint) Set(s string) error {
	path := strings.TrimPrefix(s, "unix://")
	if !strings.HasPrefix(path, "/") {
		return errors.New("want unix:///path or /path of a socket")
	}
	*e = endpoint(path)
	return nil
}

// Client talks to one runtime over one connection, which is never made anew.
type Client struct {
	conn     *grpc.ClientConn
	socket   net.Conn // below conn
	version  string   // of the API: v1, or v1alpha2 for runtimes before 2022; "" until one has answered
	Endpoint string   // path of the socket on the host
}

// Connect finds the runtime of the host, or takes the socket that the flag of
// EndpointVar gave, and asks its version. An error says what to mend.
func Connect(ctx context.Context, h *host.Root, endpoint string) (*Client, error) {
	sockets, err := Sockets(h, endpoint)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, path := range sockets {
		c, err := Dial(ctx, h, path)
		if err == nil {
			if err = c.negotiate(ctx); err == nil {
				return c, nil
			}
			c.Close()
		}
		if failed == nil || status.Code(failed) == codes.Unimplemented {
			failed = err
		}
		if status.Code(err) == codes.DeadlineExceeded {
			break // it is the runtime, and it hangs
		}
	}
	return nil, failed
}

// Sockets finds the sockets of runtimes on the host, or the one that the flag
// of EndpointVar gave. There is at least one when there is no error.
func Sockets(h *host.Root, endpoint string) ([]string, error) {
	candidates := endpoints
	if endpoint != "" {
		if rest, ok := strings.CutPrefix(endpoint, "/var/run/"); ok {
			if _, err := h.Stat(endpoint); err != nil { // /var/run is a link to /run, and before Linux 5.6 an absolute one is not followed
				endpoint = "/run/" + rest
			}
		}
		candidates = []string{endpoint}
	}
	var found []string
	for _, path := range candidates {
		_, err := h.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && endpoint == "" {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, missing{fmt.Sprintf("CRI endpoint: %v: mount the socket's directory, or set --cri-endpoint", err)}
		}
		if err != nil {
			return nil, fmt.Errorf("CRI endpoint: %w: mount the socket's directory, or set --cri-endpoint", err)
		}
		found = append(found, path)
	}
	if len(found) == 0 {
		return nil, missing{fmt.Sprintf("no container runtime socket under %s (containerd, CRI-O, cri-dockerd, k3s): mount the socket's directory, or set --cri-endpoint", h.Path("/run"))}
	}
	return found, nil
}

// missing is the error of a host without the socket of a runtime.
type missing struct{ words string }

func (m missing) Error() string { return m.words }

func (missing) Is(target error) bool { return target == fs.ErrNotExist || target == host.ErrGone }

// Dial connects to a socket and makes no call. Its errors are those of
// hostnet.DialUnix.
func Dial(ctx context.Context, h *host.Root, path string) (*Client, error) {
	socket, err := hostnet.DialUnix(ctx, h, path)
	if err != nil {
		if info, statErr := h.Stat(path); statErr == nil && info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("CRI endpoint %s is no socket: set --cri-endpoint", h.Path(path)) // the kernel calls that refused, too
		}
		return nil, err
	}
	once := make(chan net.Conn, 1)
	once <- socket
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case socket := <-once:
				return socket, nil
			default:
				return nil, errors.New("the connection was lost")
			}
		}),
		// A server that says nothing is given up by the deadline of the call alone.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: time.Hour}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithInitialWindowSize(1<<20), // fewer wake-ups for a long reply
		grpc.WithInitialConnWindowSize(1<<20),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxReply), grpc.ForceCodecV2(codec{})))
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("CRI endpoint %s: %w", path, err)
	}
	return &Client{conn: conn, socket: socket, Endpoint: path}, nil
}

// negotiate finds the version of the API that the runtime speaks.
func (c *Client) negotiate(ctx context.Context) (err error) {
	for _, c.version = range versions {
		if err = c.Version(ctx); status.Code(err) != codes.Unimplemented {
			break
		}
	}
	return err
}

var versions = []string{"v1", "v1alpha2"}

// Close ends the connection.
func (c *Client) Close() {
	c.conn.Close()
	c.socket.Close() // which conn has not taken before the first call
}

// Listener is the process that listens at the socket: its pid in the PID
// namespace of this process, 0 when it is out of sight there. A daemon that
// systemd listens for (socket activation) is not told.
func (c *Client) Listener() int {
	unixConn, ok := c.socket.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	})
	return pid
}

// call asks in the version of the API that was negotiated, else in the first
// of all that the runtime speaks.
func (c *Client) call(ctx context.Context, method string, request proto.Message, reply any) (err error) {
	ask := versions
	if c.version != "" {
		ask = []string{c.version}
	}
	for _, version := range ask {
		err = c.conn.Invoke(ctx, "/runtime."+version+".RuntimeService/"+method, request, reply)
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("CRI %s at %s: %w", method, c.Endpoint, err)
	}
	return nil
}

// Version asks for the version of the runtime, of which no check wants to know
// more than that it comes.
func (c *Client) Version(ctx context.Context) error {
	return c.call(ctx, "Version", &runtime.VersionRequest{}, new(listReply))
}

// Status asks for the state of the runtime and its network, likewise.
func (c *Client) Status(ctx context.Context) error {
	return c.call(ctx, "Status", &runtime.StatusRequest{}, new(listReply))
}

// List is what a list call came to.
type List struct {
	Items int
	Bytes int // of the encoded reply
}

// Containers lists the containers that match the filter (nil for all) and
// visits each. The item is valid during the visit only.
func (c *Client) Containers(ctx context.Context, filter *runtime.ContainerFilter, visit func(*Container)) (List, error) {
	var item Container
	reply := listReply{visit: func(b []byte) error {
		if err := item.decode(b); err != nil {
			return err
		}
		visit(&item)
		return nil
	}}
	err := c.call(ctx, "ListContainers", &runtime.ListContainersRequest{Filter: filter}, &reply)
	return reply.list, err
}

// Sandboxes lists the pod sandboxes that match the filter (nil for all) and
// visits each. The item is valid during the visit only.
func (c *Client) Sandboxes(ctx context.Context, filter *runtime.PodSandboxFilter, visit func(*Sandbox)) (List, error) {
	var item Sandbox
	reply := listReply{visit: func(b []byte) error {
		if err := item.decode(b); err != nil {
			return err
		}
		visit(&item)
		return nil
	}}
	err := c.call(ctx, "ListPodSandbox", &runtime.ListPodSandboxRequest{Filter: filter}, &reply)
	return reply.list, err
}

// Streams says whether the runtime has the streaming lists of cri-api 0.36,
// which no message limit bounds. It asks for the sandboxes with a label that
// none has: of an id that none has CRI-O writes a warning to its log.
func (c *Client) Streams(ctx context.Context) bool {
	desc := &grpc.StreamDesc{ServerStreams: true}
	stream, err := c.conn.NewStream(ctx, desc, "/runtime."+c.version+".RuntimeService/StreamPodSandboxes")
	if err != nil {
		return false
	}
	none := &runtime.StreamPodSandboxesRequest{Filter: &runtime.PodSandboxFilter{LabelSelector: map[string]string{"npd-plugins": "nobody"}}}
	if stream.SendMsg(none) != nil || stream.CloseSend() != nil {
		return false
	}
	for {
		var ignored listReply
		if err := stream.RecvMsg(&ignored); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// TooLarge reads the error of a reply that outgrew a message limit: the bytes
// of the reply and the limit in its way, 0 when the error does not say. ok is
// false for every other error.
//
// The server's refusal is "trying to send message larger than max (17248000
// vs. 16777216)", the client's "received message larger than max (...)"
// (google.golang.org/grpc, server.go and rpc_util.go).
func TooLarge(err error) (size, limit uint64, ok bool) {
	s, isStatus := status.FromError(err)
	if !isStatus || s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "larger than max") {
		return 0, 0, false
	}
	if m := sizeVersusLimit.FindStringSubmatch(s.Message()); m != nil {
		size, _ = strconv.ParseUint(m[1], 10, 64)
		limit, _ = strconv.ParseUint(m[2], 10, 64)
	}
	return size, limit, true
}

var sizeVersusLimit = regexp.MustCompile(`\((\d{1,18}) vs\. (\d{1,18})\)`)

// Reason is an error of a call in few words for a message: what failed and the
// runtime's own words. It is errors.ErrUnsupported, too, when the server has no
// CRI.
func Reason(err error) error {
	r := &reason{shorten(err), []error{err}}
	if status.Code(err) == codes.Unimplemented {
		r.causes = append(r.causes, errors.ErrUnsupported)
	}
	return r
}

// reason is an error in other words.
type reason struct {
	words  string
	causes []error
}

func (r *reason) Error() string   { return r.words }
func (r *reason) Unwrap() []error { return r.causes }

func shorten(err error) string {
	var dial *net.OpError
	if errors.As(err, &dial) {
		return "the container runtime is not reachable: " + err.Error()
	}
	var answer interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answer) {
		return err.Error()
	}
	s := answer.GRPCStatus()
	switch s.Code() {
	case codes.DeadlineExceeded:
		return "the container runtime accepts connections but does not answer in time"
	case codes.Unavailable:
		cause := s.Message()
		if _, dial, ok := strings.Cut(cause, "Error while dialing: "); ok { // gRPC's words before that are long
			cause = strings.TrimSuffix(dial, `"`)
		}
		return "the container runtime is not reachable: " + cause
	case codes.Unimplemented:
		return "the container runtime has no CRI: " + s.Message()
	}
	return strings.Replace(err.Error(), s.Err().Error(), s.Message(), 1) // without "rpc error: code ="
}
