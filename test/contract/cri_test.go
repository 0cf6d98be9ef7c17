package contract

import (
	"context"
	"encoding/binary"
	"math/rand"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/npd"
	"npd-plugins/test/lab"
)

// socketPath is where checks look first on a host.
const socketPath = "run/containerd/containerd.sock"

func listen(t *testing.T, root string) *net.UnixListener { return lab.Listen(t, root, socketPath) }

func serveGRPC(t *testing.T, root string, runtime runtimeapi.RuntimeServiceServer, options ...grpc.ServerOption) {
	t.Helper()
	lab.ServeCRI(t, listen(t, root), "v1", runtime, options...)
}

// serveHealthy lists a pod with a running container, and has a systemd.
func serveHealthy(t *testing.T, root string) {
	t.Helper()
	serveSystemd(t, root)
	pod := lab.PodConfig("web-6c9df8d6b5", 0, 0)
	container := lab.ContainerConfig(pod, "web")
	runtime := new(lab.FakeCRI)
	runtime.Set(
		[]*runtimeapi.PodSandbox{lab.Sandbox(pod, 1, runtimeapi.PodSandboxState_SANDBOX_READY, 1)},
		[]*runtimeapi.Container{lab.Container(container, 2, 1, runtimeapi.ContainerState_CONTAINER_RUNNING, 1)})
	serveGRPC(t, root, runtime)
}

// runtimeWord is in each message that tells of a runtime which cannot be asked.
const runtimeWord = "container runtime|CRI"

// TestBadSocket has in place of the runtime's socket what is none or speaks no gRPC.
func TestBadSocket(t *testing.T) {
	sockets := map[string]func(*testing.T, string){
		"nobody listens": func(t *testing.T, root string) { lab.LeaveSocket(t, root, socketPath) },
		"nobody accepts": func(t *testing.T, root string) { listenFull(t, root) },
		"accepts and never answers": func(t *testing.T, root string) {
			accept(t, root, func(conn net.Conn) { time.Sleep(2 * timeout) })
		},
		"accepts and closes": func(t *testing.T, root string) {
			accept(t, root, func(conn net.Conn) {})
		},
		"answers garbage": func(t *testing.T, root string) {
			accept(t, root, func(conn net.Conn) {
				random := make([]byte, 4096)
				rand.New(rand.NewSource(2)).Read(random)
				conn.Write(random)
				time.Sleep(2 * timeout)
			})
		},
		"answers garbage for ever": func(t *testing.T, root string) {
			accept(t, root, func(conn net.Conn) {
				for line := []byte(strings.Repeat("%s\x1b[2J\n", 500)); ; {
					if _, err := conn.Write(line); err != nil {
						return
					}
				}
			})
		},
		"answers HTTP/1": func(t *testing.T, root string) {
			accept(t, root, func(conn net.Conn) {
				conn.Write([]byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
			})
		},
		"greets and never answers": func(t *testing.T, root string) {
			accept(t, root, func(conn net.Conn) {
				conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // an empty SETTINGS frame of HTTP/2
				time.Sleep(2 * timeout)
			})
		},
		"is a file":      func(t *testing.T, root string) { write(t, filepath.Join(root, socketPath), "") },
		"is a directory": func(t *testing.T, root string) { makeDir(t, filepath.Join(root, socketPath)) },
		"is a symlink out of the host": func(t *testing.T, root string) {
			outside := lab.ShortDir(t)
			serveHealthy(t, outside)
			makeDir(t, filepath.Join(root, "run/containerd"))
			if err := os.Symlink(filepath.Join(outside, socketPath), filepath.Join(root, socketPath)); err != nil {
				t.Fatal(err)
			}
		},
	}
	silent := map[string]bool{"nobody listens": true, "nobody accepts": true, "accepts and never answers": true, "greets and never answers": true}
	for name, serve := range sockets {
		t.Run(name, func(t *testing.T) {
			root := healthyRoot(t, "v2")
			serve(t, root)
			eachCheck(t, check.usesCRI, func(t *testing.T, c check) {
				if !silent[name] {
					c.wantUnknown(t, c.on(root), runtimeWord)
					return
				}
				r := c.wantSilence(t, root, runtimeWord)
				if name == "nobody listens" && !strings.Contains(r.Message, "connection refused") {
					t.Errorf("message %q does not tell the cause", r.Message)
				}
			})
		})
	}
}

// TestRuntimeGoes looks at a runtime that answers, and again when it is gone: that is no failed look, for which the last verdict
// would stand in.
func TestRuntimeGoes(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, string){
		"the socket is removed": func(*testing.T, string) {},
		"nobody listens":        func(t *testing.T, root string) { lab.LeaveSocket(t, root, socketPath) },
		"without CRI": func(t *testing.T, root string) {
			lab.ServeCRI(t, listen(t, root), "", new(lab.FakeCRI))
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachCheck(t, check.usesCRI, func(t *testing.T, c check) {
				root := healthyRoot(t, "v2")
				serveHealthy(t, root)
				args := append(tellsSilence[c.name], "--state-dir="+filepath.Join(t.TempDir(), "state"))
				if r := c.run(t, c.on(root, args...)...); r.ExitCode == 2 {
					t.Fatalf("cannot look at the healthy host: %s", r.Message)
				}
				if err := os.Remove(filepath.Join(root, socketPath)); err != nil {
					t.Fatal(err)
				}
				leave(t, root)
				if _, isFinding := tellsSilence[c.name]; !isFinding {
					c.wantUnknown(t, c.on(root, args...), runtimeWord)
				} else if r := c.run(t, c.on(root, args...)...); r.Status != npd.NonOK {
					t.Errorf("%v, want a Problem: %s", r.Status, r.Message)
				}
			})
		})
	}
}

// TestEndpoint has the socket where the flag says, also behind the link that /var/run is.
func TestEndpoint(t *testing.T) {
	root := healthyRoot(t, "v2")
	serveHealthy(t, root)
	makeDir(t, filepath.Join(root, "var"))
	if err := os.Symlink("/run", filepath.Join(root, "var/run")); err != nil {
		t.Fatal(err)
	}
	eachCheck(t, check.usesCRI, func(t *testing.T, c check) {
		for _, endpoint := range []string{"unix:///" + socketPath, "/" + socketPath, "unix:///var/" + socketPath} {
			if r := c.run(t, c.on(root, "--cri-endpoint="+endpoint)...); modelled[c.name] && r.ExitCode != 0 {
				t.Errorf("--cri-endpoint=%s: %v, want OK: %s", endpoint, r.Status, r.Message)
			}
		}
		c.wantUnknown(t, c.on(root, "--cri-endpoint=/run/no.sock"), "--cri-endpoint", "/run/no.sock")
	})
}

// accept hands each connection to serve and closes it afterwards.
func accept(t *testing.T, root string, serve func(net.Conn)) {
	t.Helper()
	l := listen(t, root)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
}

// listenFull has a socket with room for one connection that is not accepted, and that one is there.
func listenFull(t *testing.T, root string) {
	t.Helper()
	path := filepath.Join(root, socketPath)
	makeDir(t, filepath.Dir(path))
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

// TestBadReply has a server of HTTP/2 that gets gRPC or CRI wrong, at the first call or at the first list.
func TestBadReply(t *testing.T) {
	list := encode(t, &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: strings.Repeat("a", 64)}}})
	random := make([]byte, 4096)
	rand.New(rand.NewSource(3)).Read(random)
	replies := map[string]http.HandlerFunc{
		"half of a message, then nothing": func(w http.ResponseWriter, r *http.Request) {
			send(w, frame(list)[:len(list)/2])
			<-r.Context().Done()
		},
		"half of a message, then the end": func(w http.ResponseWriter, r *http.Request) {
			send(w, frame(list)[:len(list)/2])
		},
		"half of a message, then a reset": func(w http.ResponseWriter, r *http.Request) {
			send(w, frame(list)[:len(list)/2])
			panic(http.ErrAbortHandler)
		},
		"half of a message, then the connection closed": func(w http.ResponseWriter, r *http.Request) {
			send(w, frame(list)[:len(list)/2])
			r.Context().Value(connection{}).(net.Conn).Close()
		},
		"half of a header": func(w http.ResponseWriter, r *http.Request) { send(w, frame(list)[:3]) },
		"headers and nothing": func(w http.ResponseWriter, r *http.Request) {
			send(w, nil)
			<-r.Context().Done()
		},
		"no headers": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"drop by drop": func(w http.ResponseWriter, r *http.Request) {
			send(w, []byte{0, 1, 0, 0, 0})
			for r.Context().Err() == nil {
				send(w, []byte("drop"))
				time.Sleep(10 * time.Millisecond)
			}
		},
		"compressed garbage":  reply(append([]byte{1}, frame(random)[1:]...), "0", ""),
		"random bytes":        reply(frame(random), "0", ""),
		"truncated list":      reply(frame(list[:len(list)-3]), "0", ""),
		"item longer than it": reply(frame([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}), "0", ""),
		"groups":              reply(frame([]byte{0x0b, 0x0b, 0x0b, 0x0c}), "0", ""),
		"no message":          reply(nil, "0", ""),
		"no status":           reply(frame(list), "", ""),
		"status out of range": reply(nil, "4711", "strange"),
		"hostile error":       reply(nil, "2", "%0A%1B[2J%25s%25n%FF"+strings.Repeat("%25s%0A", 2000)),
		"refused":             reply(nil, "8", "quota exceeded"),
		"permission":          reply(nil, "7", "permission denied"),
		"not implemented":     reply(nil, "12", "unknown service runtime.v1.RuntimeService"),
		"no gRPC":             func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>%s</html>", http.StatusBadGateway) },
	}
	silent := map[string]bool{"half of a message, then nothing": true, "headers and nothing": true, "no headers": true, "drop by drop": true}
	version := encode(t, &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeApiVersion: "v1"})
	for name, bad := range replies {
		for _, at := range []string{"Version", "List"} {
			t.Run(name+"/"+at, func(t *testing.T) {
				root := healthyRoot(t, "v2")
				serveHTTP2(t, root, func(w http.ResponseWriter, r *http.Request) {
					if at == "List" && strings.HasSuffix(r.URL.Path, "/Version") {
						reply(frame(version), "0", "")(w, r)
						return
					}
					bad(w, r)
				})
				eachCheck(t, check.usesCRI, func(t *testing.T, c check) {
					if silent[name] {
						c.wantSilence(t, root, runtimeWord)
					} else {
						c.wantUnknown(t, c.on(root), runtimeWord)
					}
				})
			})
		}
	}
}

// TestEndlessReply announces 4 GiB, more than kubelet takes. That is no OK.
func TestEndlessReply(t *testing.T) {
	root := healthyRoot(t, "v2")
	version := encode(t, &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeApiVersion: "v1"})
	serveHTTP2(t, root, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/Version") {
			reply(frame(version), "0", "")(w, r)
			return
		}
		reply([]byte{0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}, "0", "")(w, r)
	})
	eachCheck(t, check.usesCRI, func(t *testing.T, c check) {
		if r := c.run(t, c.on(root)...); r.Status == npd.OK {
			t.Errorf("OK: %s", r.Message)
		}
	})
}

// connection is the key of the net.Conn in the context of a request.
type connection struct{}

func serveHTTP2(t *testing.T, root string, handler http.HandlerFunc) {
	t.Helper()
	server := &http.Server{
		Handler:     handler,
		Protocols:   new(http.Protocols),
		ConnContext: withConnection,
	}
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(listen(t, root))
	t.Cleanup(func() { server.Close() })
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frame puts gRPC's header, no compression and the length, before a message.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// send writes what is left to write of a gRPC reply, at once.
func send(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Write(b)
	w.(http.Flusher).Flush()
}

// reply sends bytes and the trailers of a gRPC status, "" for none.
func reply(b []byte, status, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		send(w, b)
		if status != "" {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
		}
	}
}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connection{}, c)
}
