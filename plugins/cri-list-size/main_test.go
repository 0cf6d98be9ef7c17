package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/test/lab"
)

// fill lists pods of a Deployment that leaks: one sandbox and one container
// each, of which some are dead.
func fill(f *lab.FakeCRI, pods, dead int) (sandboxBytes, containerBytes int) {
	var s []*runtime.PodSandbox
	var c []*runtime.Container
	for i := range pods {
		name := fmt.Sprintf("crawler-5d8f9c7b64-%s", random(i))
		labels := map[string]string{"app": "crawler", "io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "shop", "io.kubernetes.container.name": "web"}
		sandbox := &runtime.PodSandbox{Id: fmt.Sprintf("%064x", i), Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "shop"}, Labels: labels}
		container := &runtime.Container{Id: fmt.Sprintf("%064x", 1<<20+i), PodSandboxId: sandbox.Id, State: runtime.ContainerState_CONTAINER_RUNNING, Labels: labels}
		if i < dead {
			sandbox.State, container.State = runtime.PodSandboxState_SANDBOX_NOTREADY, runtime.ContainerState_CONTAINER_EXITED
		}
		s, c = append(s, sandbox), append(c, container)
	}
	etcd := &runtime.PodSandbox{Id: "etcd", Metadata: &runtime.PodSandboxMetadata{Name: "etcd-node1", Namespace: "kube-system"}}
	s = append(s, etcd)
	f.Set(s, c)
	return proto.Size(&runtime.ListPodSandboxResponse{Items: s}), proto.Size(&runtime.ListContainersResponse{Containers: c})
}

// random writes a number in the five characters that Kubernetes appends.
func random(i int) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	b := make([]byte, 5)
	for at := range b {
		b[at] = alphabet[i%len(alphabet)]
		i /= len(alphabet)
	}
	return string(b)
}

// look looks at a runtime on a socket of the machine that runs the test.
func look(t *testing.T, endpoint string, c *check) (plugin.Verdict, *plugin.Look) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l := plugintest.Look(t, hosttest.Open(t, "/"))
	c.endpoint = strings.TrimPrefix(endpoint, "unix://")
	return c.look(ctx, l), l
}

func measurement(t *testing.T, v plugin.Verdict, name string) plugin.Measurement {
	t.Helper()
	for _, m := range v.Measurements {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no measurement %s in %+v", name, v.Measurements)
	return plugin.Measurement{}
}

func TestListSize(t *testing.T) {
	var fake lab.FakeCRI
	endpoint := fake.Serve(t)
	sandboxBytes, containerBytes := fill(&fake, 100, 80)

	v, _ := look(t, endpoint, &check{limit: 16 << 20, percent: 50})
	plugintest.Want(t, v, plugin.OK, "ListContainers reply is ", "0 of 100 of the gRPC limit 16MiB; 80 exited containers, 80 NotReady sandboxes")
	if strings.Contains(v.Message, "most: ") {
		t.Errorf("blames somebody although all is well: %s", v.Message)
	}
	for name, want := range map[string]int{"list_containers": containerBytes, "list_pod_sandbox": sandboxBytes, "containers_exited": 80, "sandboxes_not_ready": 80} {
		if m := measurement(t, v, name); m.Value != float64(want) {
			t.Errorf("%+v; want %d", m, want)
		}
	}
	if m := measurement(t, v, "list_containers"); m.Limit != 16<<20 || !m.Forecast {
		t.Errorf("%+v", m)
	}

	limit := uint64(containerBytes) * 3 / 2
	v, _ = look(t, endpoint, &check{limit: limit, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "66 of 100 of the gRPC limit "+plugin.FormatBytes(float64(limit)),
		"; most: shop/crawler-* (100 pods) "+plugin.FormatBytes(float64(sandboxBytes+containerBytes-etcdBytes)), ", kube-system/etcd-node1 ")
	if strings.Contains(v.Message, "stream") {
		t.Errorf("speaks of streams that the runtime does not have: %s", v.Message)
	}
	v, _ = look(t, endpoint, &check{limit: limit, percent: 67})
	plugintest.Want(t, v, plugin.OK)
}

var etcdBytes = proto.Size(&runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{
	{Id: "etcd", Metadata: &runtime.PodSandboxMetadata{Name: "etcd-node1", Namespace: "kube-system"}}}})

func TestSandboxesOnly(t *testing.T) {
	var fake lab.FakeCRI
	endpoint := fake.Serve(t)
	fake.Set([]*runtime.PodSandbox{{Id: "a", Metadata: &runtime.PodSandboxMetadata{Name: "web-0", Namespace: "shop"}, State: runtime.PodSandboxState_SANDBOX_NOTREADY}}, nil)
	v, _ := look(t, endpoint, &check{limit: 40, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "ListPodSandbox reply is 22B, 55 of 100 of the gRPC limit 40B; 0 exited containers, 1 NotReady sandboxes; most: shop/web-0 22B")
}

// A runtime without containers is no reason for a word.
func TestEmpty(t *testing.T) {
	v, _ := look(t, new(lab.FakeCRI).Serve(t), &check{limit: 16 << 20, percent: 50})
	plugintest.Want(t, v, plugin.OK, "ListContainers reply is 0B, 0 of 100 of the gRPC limit 16MiB; 0 exited containers, 0 NotReady sandboxes")
}

// The runtime refuses the whole lists and still answers those of one state.
func TestRefused(t *testing.T) {
	var fake lab.FakeCRI
	_, containerBytes := fill(&fake, 100, 50)
	limit := containerBytes * 2 / 3
	v, _ := look(t, fake.Serve(t, grpc.MaxSendMsgSize(limit)), &check{limit: 16 << 20, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "runtime refuses ListContainers: reply of "+plugin.FormatBytes(float64(containerBytes))+" over its gRPC limit "+plugin.FormatBytes(float64(limit)),
		"; 50 exited containers, 50 NotReady sandboxes; most: shop/crawler-* (100 pods) ")
	if m := measurement(t, v, "list_containers"); m.Value != float64(containerBytes) || m.Forecast {
		t.Errorf("%+v; want the bytes that were refused, without a forecast", m)
	}
}

// Not even the lists of one state get through: what is known is of the last look.
func TestAllRefused(t *testing.T) {
	var fake lab.FakeCRI
	endpoint := fake.Serve(t, grpc.MaxSendMsgSize(8192))
	fill(&fake, 10, 10)
	v, first := look(t, endpoint, &check{limit: 16 << 20, percent: 50})
	plugintest.Want(t, v, plugin.OK)

	fill(&fake, 500, 500)
	second := first.Next()
	c := &check{limit: 16 << 20, percent: 50, endpoint: strings.TrimPrefix(endpoint, "unix://")}
	v = c.look(context.Background(), second)
	plugintest.Want(t, v, plugin.Problem, "runtime refuses ListContainers", "over its gRPC limit 8KiB; 0 containers and 1 sandboxes could be listed, the rest is too large; most: shop/crawler-* (10 pods)")
	v = c.look(context.Background(), second.Next())
	plugintest.Want(t, v, plugin.Problem, "most: shop/crawler-* (10 pods)")
}

// A runtime with the streaming lists has no such limit, if kubelet uses them.
type streamer struct{ lab.FakeCRI }

func (*streamer) StreamPodSandboxes(*runtime.StreamPodSandboxesRequest, grpc.ServerStreamingServer[runtime.StreamPodSandboxesResponse]) error {
	return nil
}

func TestStreams(t *testing.T) {
	var fake streamer
	fill(&fake.FakeCRI, 10, 10)
	v, _ := look(t, serve(t, &fake), &check{limit: 100, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "; a kubelet that uses the runtime's streaming lists is safe")
}

// serve is FakeCRI.Serve for a runtime that does more, or less.
func serve(t *testing.T, server runtime.RuntimeServiceServer) string {
	t.Helper()
	listener := lab.Listen(t, lab.ShortDir(t), "cri.sock")
	lab.ServeCRI(t, listener, "v1", server)
	return listener.Addr().String()
}

// Names that others chose are made safe.
func TestUnsafeNames(t *testing.T) {
	var fake lab.FakeCRI
	name := "a\x1b[31m%s\n" + strings.Repeat("x", 4096)
	fake.Set([]*runtime.PodSandbox{{Id: "a", Metadata: &runtime.PodSandboxMetadata{Name: name, Namespace: "shop"}}}, nil)
	v, _ := look(t, fake.Serve(t), &check{limit: 4096, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "most: shop/a?[31m?s xxx", ".. 4")
	if plugin.Safe(v.Message, 4096) != v.Message || len(v.Message) > 256 {
		t.Errorf("%q", v.Message)
	}
}

// A container that kubelet did not make has no pod.
func TestContainersWithoutPod(t *testing.T) {
	var fake lab.FakeCRI
	fake.Set(nil, []*runtime.Container{{Id: strings.Repeat("a", 64)}})
	v, _ := look(t, fake.Serve(t), &check{limit: 100, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "; most: containers without a pod 68B")
}

// failing is a runtime one of whose lists fails.
type failing struct {
	lab.FakeCRI
	sandboxes, containers error
}

func (f *failing) ListPodSandbox(ctx context.Context, r *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	if f.sandboxes != nil {
		return nil, f.sandboxes
	}
	return f.FakeCRI.ListPodSandbox(ctx, r)
}

func (f *failing) ListContainers(ctx context.Context, r *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	if f.containers != nil {
		return nil, f.containers
	}
	return f.FakeCRI.ListContainers(ctx, r)
}

// A refusal that does not say by how much.
func TestRefusedWithoutFigures(t *testing.T) {
	v, _ := look(t, serve(t, &failing{containers: status.Error(codes.ResourceExhausted, "message larger than max")}), &check{limit: 1000, percent: 50})
	v.Details = append(v.Details, "") // there is nobody to blame
	plugintest.Want(t, v, plugin.Problem, "runtime refuses ListContainers: reply of 0B over its gRPC limit; 0 containers and 0 sandboxes could be listed")
}

func TestUnknown(t *testing.T) {
	tests := map[string]struct {
		endpoint string
		want     string
	}{
		"no socket":      {filepath.Join(t.TempDir(), "absent.sock"), "cannot weigh the CRI lists: CRI endpoint: "},
		"sandboxes fail": {serve(t, &failing{sandboxes: status.Error(codes.Unknown, "bolt: 100% timeout")}), "cannot weigh the CRI lists: CRI ListPodSandbox at "},
		"containers fail": {serve(t, &failing{containers: status.Error(codes.ResourceExhausted, "too many requests")}),
			"too many requests"},
		"only a server": {serve(t, runtime.UnimplementedRuntimeServiceServer{}), "the container runtime has no CRI: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v, _ := look(t, tt.endpoint, &check{limit: 16 << 20, percent: 50})
			plugintest.Want(t, v, plugin.Unknown, tt.want)
		})
	}
}

func TestHangs(t *testing.T) {
	socket := lab.Listen(t, lab.ShortDir(t), "cri.sock").Addr().String()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	c := &check{limit: 16 << 20, percent: 50, endpoint: socket}
	plugintest.Want(t, c.look(ctx, plugintest.Look(t, hosttest.Open(t, "/"))), plugin.Unknown, "the container runtime accepts connections but does not answer in time")
}

func TestOwnerPrefix(t *testing.T) {
	want := map[string]string{
		"crawler-5d8f9c7b64-x2x7q": "crawler",        // Deployment
		"web-api-7c9d8b6f5-zx5kq":  "web-api",        // Deployment
		"kube-proxy-x2x7q":         "kube-proxy",     // DaemonSet
		"db-0":                     "db",             // StatefulSet
		"db-17":                    "db",             // StatefulSet
		"backup-29384756-x2x7q":    "backup",         // CronJob
		"migrate-x2x7q":            "migrate",        // Job
		"etcd-node1":               "etcd-node1",     // static pod
		"nginx":                    "nginx",          // bare pod
		"my-cache-store":           "my-cache-store", // "store" has vowels
		"-x2x7q":                   "-x2x7q",         // no stem
		"kube-apiserver-10":        "kube-apiserver", // taken for a StatefulSet
		"":                         "",
	}
	got := map[string]string{}
	for name := range want {
		got[name] = ownerPrefix(name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Many owners: at most ten in the details, two in the message, largest first.
func TestHeaviest(t *testing.T) {
	s := survey{pods: map[string]*pod{}}
	for i := range 15 {
		s.pod("shop", fmt.Sprintf("app%c-0", 'a'+i)).bytes = 1000 + i
	}
	s.pod("shop", "appa-1").bytes = 5000
	names := s.heaviest()
	if len(names) != 10 || names[0] != "shop/appa-* (2 pods) 5.9KiB" || names[1] != "shop/appo-0 1014B" {
		t.Errorf("%q", names)
	}
}
