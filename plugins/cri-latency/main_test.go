package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"net"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/test/lab"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	crioSocket       = "/run/crio/crio.sock"
	dockerSocket     = "/run/cri-dockerd.sock"
)

// counter counts the connections that a listener accepts.
type counter struct {
	net.Listener
	accepted atomic.Int32
}

func (c *counter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

func listen(t *testing.T, root, socket string) *counter {
	t.Helper()
	return &counter{Listener: lab.Listen(t, root, socket)}
}

// behaviour is what a runtime does in a call before it answers, by method.
type behaviour map[string]func(context.Context) error

func hangs(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func answersAfter(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func fails(code codes.Code, text string) func(context.Context) error {
	return func(context.Context) error { return status.Error(code, text) }
}

// serve is a runtime that speaks the version of the API, "" for a server that
// is no runtime, and behaves like that.
func serve(t *testing.T, l net.Listener, version string, fake *lab.FakeCRI, b behaviour) {
	t.Helper()
	lab.ServeCRI(t, l, version, fake, grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if before := b[path.Base(info.FullMethod)]; before != nil {
			if err := before(ctx); err != nil {
				return nil, err
			}
		}
		return handler(ctx, req)
	}))
}

// allow is the time that a look may take, as plugin.Main gives it.
const allow = 60 * time.Second

func look(t *testing.T, root string, c *check) plugin.Verdict {
	t.Helper()
	c.start = time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), allow)
	defer cancel()
	v := c.look(ctx, plugintest.Look(t, hosttest.Open(t, root)))
	if ctx.Err() != nil {
		t.Error("the look did not end in time")
	}
	return v
}

// node runs a containerd that waits for a lock.
func node(state byte, wchan string) hosttest.Tree {
	return hosttest.Tree{
		"proc/1/stat":     stat(1, "systemd", 'S', 1),
		"proc/812/stat":   stat(812, "containerd", state, 20),
		"proc/812/wchan":  wchan,
		"proc/812/cgroup": "0::/system.slice/containerd.service\n",
		"proc/812/status": statusFile(812),
		"proc/812/exe":    "-> /usr/bin/containerd",
		"proc/uptime":     "4000.00 8000.00\n",
	}
}

func stat(pid int, comm string, state byte, threads int) string {
	return fmt.Sprintf("%d (%s) %c 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 %d 0 4000 0 0 18446744073709551615 0 0\n", pid, comm, state, threads)
}

// statusFile is that of a process of root in the PID namespace of the host.
func statusFile(pid int) string {
	return fmt.Sprintf("Name:\tx\nUid:\t0\t0\t0\t0\nNSpid:\t%d\n", pid)
}

var all = []string{"Version", "Status", "ListContainers", "ListPodSandbox"}

// each has all calls do the same.
func each(do func(context.Context) error) behaviour {
	b := behaviour{}
	for _, name := range all {
		b[name] = do
	}
	return b
}

func TestCalls(t *testing.T) {
	tests := []struct {
		name   string
		tree   hosttest.Tree
		does   behaviour
		slow   time.Duration
		status plugin.Status
		words  []string
	}{
		{"healthy", node('S', "futex_do_wait"), nil, 20 * time.Second, plugin.OK,
			[]string{"the container runtime answers: Version ", "Status ", "ListContainers ", "ListPodSandbox "}},
		{"busy, in time", node('S', "futex_do_wait"), each(answersAfter(100 * time.Millisecond)), 20 * time.Second, plugin.OK, nil},
		{"a lock under the lists", node('S', "futex_do_wait"), behaviour{"ListContainers": hangs, "ListPodSandbox": hangs}, time.Second, plugin.Problem,
			[]string{"container runtime hangs in ListContainers, ListPodSandbox for 1.2s; Version ", ", Status ", " answer: a lock is held in it, see IOStalled, TasksStuck; ",
				"containerd (pid 812) is not stopped, it sleeps in futex_do_wait (state S)"}},
		{"a lock under one list", node('D', "jbd2_log_wait_commit"), behaviour{"ListContainers": hangs}, time.Second, plugin.Problem,
			[]string{"container runtime hangs in ListContainers for", "ListPodSandbox ", "containerd (pid 812) is in uninterruptible sleep in jbd2_log_wait_commit (state D)"}},
		{"nothing answers", node('T', "do_signal_stop"), each(hangs), time.Second, plugin.Problem,
			[]string{"container runtime answers nothing: Version, Status, ListContainers, ListPodSandbox hang for 1.2s; containerd (pid 812) is stopped (state T)"}},
		{"nothing answers, and /proc is not there", nil, each(hangs), time.Second, plugin.Problem, []string{"answers nothing", "mount the host's /proc there"}},
		{"nothing answers, and there is no daemon", hosttest.Tree{"proc/1/stat": stat(1, "systemd", 'S', 1)}, each(hangs), time.Second, plugin.Problem,
			[]string{"answers nothing", "there is no process containerd"}},
		{"late", node('S', "0"), behaviour{"ListContainers": answersAfter(5200 * time.Millisecond)}, 5 * time.Second, plugin.Problem,
			[]string{"container runtime is slow: ListContainers 5.", "s, limit 5s; in time: Version ", "Status ", "ListPodSandbox "}},
		{"one hangs, one fails", node('S', "0"), behaviour{"ListContainers": hangs, "Status": fails(codes.Unknown, "bolt: timeout")}, time.Second, plugin.Problem,
			[]string{"hangs in ListContainers", "; failed: Status"}},
		{"one fails", nil, behaviour{"Status": fails(codes.Unavailable, "server is not initialized yet")}, 20 * time.Second, plugin.Unknown,
			[]string{"the container runtime answers in time, but with an error: CRI Status at ", "server is not initialized yet"}},
		{"all fail", nil, each(fails(codes.PermissionDenied, "go away")), 20 * time.Second, plugin.Unknown, []string{"cannot time the container runtime: CRI Version at ", ": go away"}},
		{"gives up a call of its own", nil, each(fails(codes.DeadlineExceeded, "dockerd is late")), 20 * time.Second, plugin.Unknown, nil},
		{"no CRI", nil, each(fails(codes.Unimplemented, "unknown service")), 20 * time.Second, plugin.Unknown, []string{"the container runtime has no CRI: unknown "}},
	}
	for _, tt := range tests {
		for _, version := range []string{"v1", "v1alpha2"} {
			t.Run(tt.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				root := lab.ShortDir(t)
				tt.tree.Write(t, root)
				l := listen(t, root, containerdSocket)
				serve(t, l, version, &lab.FakeCRI{}, tt.does)
				v := look(t, root, &check{slow: tt.slow})
				plugintest.Want(t, v, tt.status, tt.words...)
				if v.Status != plugin.Unknown && len(v.Measurements) != len(all) {
					t.Errorf("measurements %+v", v.Measurements)
				}
				if n := l.accepted.Load(); n != 1 {
					t.Errorf("%d connections, want one", n)
				}
			})
		}
	}
}

// A --timeout that ends before --slow does not make what may answer yet hang.
func TestTimeoutBeforeSlow(t *testing.T) {
	root := lab.ShortDir(t)
	serve(t, listen(t, root, containerdSocket), "v1", &lab.FakeCRI{}, behaviour{"Status": hangs})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	v := (&check{slow: 10 * time.Second}).look(ctx, plugintest.Look(t, hosttest.Open(t, root)))
	plugintest.Want(t, v, plugin.Unknown, "no answer to Status in ", "--timeout is too short to wait for --slow 10s")
	if ctx.Err() != nil {
		t.Error("the look did not end in time")
	}
}

// hold passes on what the runtime at the socket says until that many bytes.
func hold(t *testing.T, l net.Listener, socket string, bytes int64) {
	t.Helper()
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			go io.Copy(server, client)
			go io.CopyN(client, server, bytes)
		}
	}()
}

func TestHangsInReply(t *testing.T) {
	fake := &lab.FakeCRI{}
	pod := lab.PodConfig("web-7d9c5b8f6d", 0, 8<<10)
	var containers []*runtime.Container
	for i := range 100 {
		containers = append(containers, lab.Container(lab.ContainerConfig(pod, strings.Repeat("x", 4096)), i, 0, runtime.ContainerState_CONTAINER_EXITED, 1))
		maps.Copy(containers[i].Labels, nobody) // which the check asks for, to get a short reply from any other runtime
	}
	fake.Set(nil, containers)
	for _, bytes := range []int64{5, 100, 20000} { // in the greeting, in a small reply, in the list
		t.Run(fmt.Sprint(bytes), func(t *testing.T) {
			t.Parallel()
			root := lab.ShortDir(t)
			node('S', "futex_do_wait").Write(t, root)
			serve(t, listen(t, root, "/behind.sock"), "v1", fake, nil)
			l := listen(t, root, containerdSocket)
			hold(t, l, filepath.Join(root, "behind.sock"), bytes)
			v := look(t, root, &check{slow: time.Second})
			plugintest.Want(t, v, plugin.Problem, "ListContainers", " for 1.2s; ", "containerd (pid 812)")
			if n := l.accepted.Load(); n != 1 {
				t.Errorf("%d connections, want one", n)
			}
		})
	}
}

func TestSockets(t *testing.T) {
	healthy := func(socket, version string) func(*testing.T, string) {
		return func(t *testing.T, root string) { serve(t, listen(t, root, socket), version, &lab.FakeCRI{}, nil) }
	}
	stale := func(socket string) func(*testing.T, string) {
		return func(t *testing.T, root string) { lab.LeaveSocket(t, root, socket) }
	}
	says := func(b []byte, then func(net.Conn)) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			l := listen(t, root, containerdSocket)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.Write(b)
					then(conn)
				}
			}()
		}
	}
	garbage := make([]byte, 4096)
	rand.New(rand.NewSource(1)).Read(garbage)
	stays := func(conn net.Conn) { t.Cleanup(func() { conn.Close() }) }
	closes := func(conn net.Conn) { conn.Close() }
	tests := []struct {
		name     string
		prepare  []func(*testing.T, string)
		endpoint string
		status   plugin.Status
		words    []string
	}{
		{"nobody listens", []func(*testing.T, string){stale(containerdSocket)}, "", plugin.Problem,
			[]string{"container runtime is down: nobody listens at " + containerdSocket + " (connection refused); containerd (pid 812) is not stopped, it sleeps in futex_do_wait (state S)"}},
		{"nobody listens where told", []func(*testing.T, string){stale(crioSocket), healthy(containerdSocket, "v1")}, crioSocket, plugin.Problem,
			[]string{"nobody listens at " + crioSocket + " (connection refused); there is no process crio"}},
		{"the socket of a removed runtime", []func(*testing.T, string){stale(containerdSocket), healthy(crioSocket, "v1")}, "", plugin.OK, nil},
		{"the containerd of Docker", []func(*testing.T, string){healthy(containerdSocket, ""), healthy(dockerSocket, "v1")}, "", plugin.OK, nil},
		{"the containerd of Docker, cri-dockerd is down", []func(*testing.T, string){healthy(containerdSocket, ""), stale(dockerSocket)}, "", plugin.Problem,
			[]string{"nobody listens at " + dockerSocket}},
		{"a directory where a socket was to be mounted", []func(*testing.T, string){func(t *testing.T, root string) {
			hosttest.Tree{containerdSocket + "/": ""}.Write(t, root)
		}, healthy(crioSocket, "v1")}, "", plugin.OK, nil},
		{"no socket, and nobody listens at another", []func(*testing.T, string){func(t *testing.T, root string) {
			hosttest.Tree{containerdSocket: ""}.Write(t, root)
		}, stale(crioSocket)}, "", plugin.Unknown, []string{"is no socket"}},
		{"containerd without CRI", []func(*testing.T, string){healthy(containerdSocket, "")}, "", plugin.Unknown, []string{"has no CRI"}},
		{"no socket", nil, "", plugin.Unknown, []string{"no container runtime socket under"}},
		{"no socket where told", []func(*testing.T, string){healthy(containerdSocket, "v1")}, crioSocket, plugin.Unknown, []string{"--cri-endpoint"}},
		{"a file", []func(*testing.T, string){func(t *testing.T, root string) {
			hosttest.Tree{containerdSocket: ""}.Write(t, root)
		}}, "", plugin.Unknown, []string{"is no socket: set --cri-endpoint"}},
		{"garbage", []func(*testing.T, string){says(garbage, stays)}, "", plugin.Unknown, []string{"cannot time the container runtime: the container runtime is not reachable: "}},
		{"garbage, then the end", []func(*testing.T, string){says(garbage, closes)}, "", plugin.Unknown, []string{"is not reachable: "}},
		{"accepts and closes", []func(*testing.T, string){says(nil, closes)}, "", plugin.Unknown, []string{"is not reachable: "}},
		{"accepts and says nothing", []func(*testing.T, string){says(nil, stays)}, "", plugin.Problem, []string{"answers nothing"}},
		{"greets and says nothing", []func(*testing.T, string){says(make([]byte, 3+6), stays)}, "", plugin.Unknown, nil}, // no SETTINGS
		{"accepts nothing", []func(*testing.T, string){full}, "", plugin.Problem,
			[]string{"container runtime accepts no connection: the queue at " + containerdSocket + " is full; containerd (pid 812)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := lab.ShortDir(t)
			node('S', "futex_do_wait").Write(t, root)
			for _, prepare := range tt.prepare {
				prepare(t, root)
			}
			slow := time.Second
			if tt.status == plugin.OK {
				slow = 20 * time.Second
			}
			plugintest.Want(t, look(t, root, &check{slow: slow, endpoint: tt.endpoint}), tt.status, tt.words...)
		})
	}
}

// full fills the queue of a socket that nobody accepts from.
func full(t *testing.T, root string) {
	file := filepath.Join(root, containerdSocket)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: file}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

// What a call of any outcome adds to the verdict.
func TestJudge(t *testing.T) {
	const ms = time.Millisecond
	const patience = 12 * time.Second
	daemon := func() string { return "containerd (pid 1048576) is not stopped, state S in futex_wait_queue_me" }
	one := func(i int, took time.Duration, hung bool, err error) call {
		return call{all[i], strings.ToLower(all[i]), took, hung, err}
	}
	gone := status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	tests := []struct {
		name   string
		calls  []call
		status plugin.Status
		want   string
	}{
		{"fast", []call{one(0, 2*ms, false, nil), one(1, 3*ms, false, nil), one(2, 14*ms, false, nil), one(3, 999*ms, false, nil)}, plugin.OK,
			"the container runtime answers: Version 2ms, Status 3ms, ListContainers 14ms, ListPodSandbox 999ms"},
		{"just in time", []call{one(0, 9999*ms, false, nil)}, plugin.OK, "the container runtime answers: Version 10s"},
		{"late", []call{one(0, 2*ms, false, nil), one(1, 3*ms, false, nil), one(2, 11*time.Second, false, nil), one(3, 10*time.Second, false, nil)}, plugin.Problem,
			"container runtime is slow: ListContainers 11s, ListPodSandbox 10s, limit 10s; in time: Version 2ms, Status 3ms"},
		{"all late, with errors", []call{one(0, 11*time.Second, false, gone), one(1, 11*time.Second, false, nil)}, plugin.Problem,
			"container runtime is slow: Version 11s, Status 11s, limit 10s"},
		{"some late, some hang", []call{one(0, 11*time.Second, false, nil), one(1, 3*ms, false, nil), one(2, patience, true, gone), one(3, patience, true, gone)}, plugin.Problem,
			"container runtime hangs in ListContainers, ListPodSandbox for 12s; Version 11s answer late; Status 3ms answer: a lock is held in it, see IOStalled, TasksStuck; " + daemon()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := (&check{slow: 10 * time.Second}).judge(tt.calls, patience, daemon)
			if err != nil {
				t.Fatal(err)
			}
			plugintest.Want(t, v, tt.status)
			if v.Message != tt.want || len(v.Message) > plugin.MaxMessage {
				t.Errorf("%q\nwant\n%q", v.Message, tt.want)
			}
		})
	}
}
