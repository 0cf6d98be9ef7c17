package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/test/lab"
)

// envLists makes the test binary serve lists at that socket instead of measuring.
const envLists = "NPD_BENCH_LISTS"

// startLists starts a runtime in a process of its own that lists that many sandboxes, each with an exited container
// and the labels of a usual pod, and returns its endpoint.
func startLists(b *testing.B, pods int) (endpoint string) {
	b.Helper()
	socket := filepath.Join(lab.ShortDir(b), "cri.sock")
	cmd := exec.Command(os.Args[0], strconv.Itoa(pods))
	cmd.Env = append(os.Environ(), envLists+"="+socket)
	cmd.Stderr = os.Stderr
	life, err := cmd.StdinPipe() // the server ends with it
	if err != nil {
		b.Fatal(err)
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		life.Close()
		cmd.Wait()
	})
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		b.Fatalf("the fake runtime did not start: %v", err)
	}
	return "unix://" + socket
}

// serveLists turns this process into the runtime when it was started as one, and does not return then.
func serveLists() {
	socket := os.Getenv(envLists)
	if socket == "" {
		return
	}
	pods, err := strconv.Atoi(os.Args[1])
	if err == nil {
		err = serve(socket, encodedLists(pods))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(socket string, replies map[string][]byte) error {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer(lab.Strict(), grpc.ForceServerCodecV2(bytesCodec{}), grpc.UnknownServiceHandler(
		func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			reply, ok := replies[path.Base(method)]
			if !ok {
				return status.Error(codes.Unimplemented, "unknown method "+method)
			}
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			return stream.SendMsg(&reply)
		}))
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println("ready")
	return server.Serve(listener)
}

// bytesCodec sends and takes messages that are encoded already.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// encodedLists are the replies to each method that a client of lists calls.
func encodedLists(pods int) map[string][]byte {
	var sandboxes runtimeapi.ListPodSandboxResponse
	var containers runtimeapi.ListContainersResponse
	created := time.Now().Add(-time.Hour)
	for i := range pods {
		pod := lab.PodConfig(fmt.Sprintf("web%d-6c9df8d6b5", i%50), i, 0)
		at := created.Add(time.Duration(i) * time.Millisecond).UnixNano()
		sandboxes.Items = append(sandboxes.Items, lab.Sandbox(pod, i, runtimeapi.PodSandboxState_SANDBOX_NOTREADY, at))
		containers.Containers = append(containers.Containers,
			lab.Container(lab.ContainerConfig(pod, "web"), pods+i, i, runtimeapi.ContainerState_CONTAINER_EXITED, at))
	}
	version := &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}
	healthy := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}
	replies := map[string][]byte{}
	for method, message := range map[string]proto.Message{"Version": version, "Status": healthy, "ListPodSandbox": &sandboxes, "ListContainers": &containers} {
		b, err := proto.Marshal(message)
		if err != nil {
			panic(err) // all of it is made above
		}
		replies[method] = b
	}
	return replies
}
