package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/test/lab"
)

func TestMain(m *testing.M) {
	apart.Serve()
	os.Exit(m.Run())
}

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
	plugintest.Want(t, v, plugin.OK, "ListContainers reply is ", "0 percent of the gRPC limit 16MiB; 80 exited containers, 80 NotReady sandboxes")
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
	plugintest.Want(t, v, plugin.Problem, "66 percent of the gRPC limit "+plugin.FormatBytes(float64(limit)),
		"; most: shop/crawler-* (100 pods) "+plugin.FormatBytes(float64(sandboxBytes+containerBytes-etcdBytes)))
	if strings.Contains(v.Message, "stream") || strings.Contains(v.Message, "etcd") {
		t.Errorf("speaks of streams that the runtime does not have, or of a harmless pod: %s", v.Message)
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
	plugintest.Want(t, v, plugin.Problem, "ListPodSandbox reply is 22B, 55 percent of the gRPC limit 40B; 0 exited containers, 1 NotReady sandboxes; most: shop/web-0 22B")
}

// A runtime without containers is no reason for a word.
func TestEmpty(t *testing.T) {
	v, _ := look(t, new(lab.FakeCRI).Serve(t), &check{limit: 16 << 20, percent: 50})
	plugintest.Want(t, v, plugin.OK, "ListContainers reply is 0B, 0 percent of the gRPC limit 16MiB; 0 exited containers, 0 NotReady sandboxes")
}

// The runtime refuses the whole lists and still answers those of one state.
func TestRefused(t *testing.T) {
	var fake lab.FakeCRI
	_, containerBytes := fill(&fake, 100, 50)
	limit := containerBytes * 2 / 3
	v, _ := look(t, fake.Serve(t, grpc.MaxSendMsgSize(limit)), &check{limit: 16 << 20, percent: 50})
	plugintest.Want(t, v, plugin.Problem, "runtime refuses ListContainers: the reply is "+plugin.FormatBytes(float64(containerBytes))+", over its gRPC limit of "+plugin.FormatBytes(float64(limit)),
		"; 50 exited containers, 50 NotReady sandboxes; most: shop/crawler-* (100 pods) ")
	if m := measurement(t, v, "list_containers"); m.Value != float64(containerBytes) || m.Forecast {
		t.Errorf("%+v; want the bytes that were refused, without a forecast", m)
	}
}

// harmless are pods that run beside those that leak.
func harmless(pods int) (s []*runtime.PodSandbox) {
	for i := range pods {
		pod := lab.PodConfig(fmt.Sprintf("web%d-7d9c5b8f6d", i), i, 0)
		s = append(s, lab.Sandbox(pod, 1<<24+i, runtime.PodSandboxState_SANDBOX_READY, 1))
	}
	return s
}

// leak are sandboxes that stayed of that many pods.
func leak(replicaSet string, pods int) (s []*runtime.PodSandbox) {
	for i := range pods {
		s = append(s, lab.Sandbox(lab.PodConfig(replicaSet, i, 0), i, runtime.PodSandboxState_SANDBOX_NOTREADY, 1))
	}
	return s
}

// randomIDs gives the sandboxes ids as runtimes do, the same at each run of the test.
func randomIDs(sandboxes []*runtime.PodSandbox) []*runtime.PodSandbox {
	random := rand.New(rand.NewPCG(1, 2))
	for _, s := range sandboxes {
		s.Id = fmt.Sprintf("%016x%016x%016x%016x", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
	}
	return sandboxes
}

// withLogs is a host on which kubelet has the logs of these sandboxes' pods. The fake's socket is moved there.
func withLogs(t *testing.T, fake *lab.FakeCRI, limit int, sandboxes []*runtime.PodSandbox) (look *plugin.Look, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	count := grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		calls.Add(1)
		return handler(ctx, request)
	})
	root := lab.ShortDir(t)
	tree := hosttest.Tree{"var/log/pods/": ""}
	for _, s := range sandboxes {
		tree[fmt.Sprintf("var/log/pods/%s_%s_%s/", s.Metadata.Namespace, s.Metadata.Name, s.Metadata.Uid)] = ""
	}
	tree.Write(t, root)
	lab.ServeCRI(t, lab.Listen(t, root, "run/containerd/containerd.sock"), "v1", fake, grpc.MaxSendMsgSize(limit), count)
	return plugintest.Look(t, hosttest.Open(t, root)), calls
}

// All was there before the first look, and not even the lists of one state get through. What fills them is named, and
// no harmless pod is.
func TestAllRefused(t *testing.T) {
	const limit = 64 << 10
	dead, elsewhere := leak("report-6b54c9d7f8", 400), leak("report-6b54c9d7f8", 400)
	for _, s := range elsewhere {
		s.Labels["io.kubernetes.pod.namespace"] = "batch"
	}
	tests := map[string]struct {
		sandboxes, logs []*runtime.PodSandbox
		want            []string
	}{
		"ids tell":                    {randomIDs(leak("report-6b54c9d7f8", 400)), nil, []string{"most: production/report-* about 2"}},
		"logs tell":                   {dead, dead, []string{"most: production/report-* about 2"}},
		"some have logs":              {dead, dead[:100], []string{"most: pods without logs in namespace production about 1", ", production/report-* about "}},
		"only running pods have logs": {dead, harmless(3), []string{"most: pods without logs in namespace production about 2"}},
		"nothing tells":               {dead, nil, []string{"most: pods without logs in namespace production about 2"}},
		"not even the namespace":      {elsewhere, nil, []string{"most: what could not be listed in parts 2"}},
		"two owners": {randomIDs(append(leak("report-6b54c9d7f8", 200), leak("import-6b54c9d7f8", 200)...)), nil,
			[]string{"most: production/", "report-* about ", "import-* about "}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var fake lab.FakeCRI
			fake.Set(append(harmless(3), tt.sandboxes...), nil)
			look, calls := withLogs(t, &fake, limit, tt.logs)
			c := &check{limit: 16 << 20, percent: 50}
			v := c.look(context.Background(), look)
			plugintest.Want(t, v, plugin.Problem, append(tt.want, "runtime refuses ListPodSandbox: the reply is 2", "over its gRPC limit of 64KiB; 0 exited containers, 2", "KiB of NotReady sandboxes")...)
			if strings.Contains(v.Message, "web") {
				t.Errorf("blames a harmless pod: %s", v.Message)
			}
			t.Log(v.Message)
			if n := calls.Swap(0); n > maxQuestions+10 {
				t.Errorf("%d calls", n)
			}
			// What was found holds for a while.
			plugintest.Want(t, c.look(context.Background(), look.Next()), plugin.Problem, tt.want...)
			if n := calls.Load(); n > 10 {
				t.Errorf("%d calls at the next look", n)
			}
		})
	}
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
	plugintest.Want(t, v, plugin.Problem, "runtime refuses ListContainers: the reply is 0B, over its gRPC limit; 0B of exited containers, 0 NotReady sandboxes")
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

// Who holds a tenth of the lists is named; nobody is when all are small.
func TestBlame(t *testing.T) {
	s := newSurvey(nil)
	for i := range 15 {
		s.pod("shop", fmt.Sprintf("app%c-0", 'a'+i)).bytes = 1000 + i
	}
	s.sandboxes.bytes = 15105
	if got := s.blame(s.heaviest()); got != "many small ones, most in namespace shop 14.8KiB" {
		t.Error(got)
	}
	s.pod("shop", "appa-1").bytes = 5000
	s.containers.bytes = 5000
	if got := s.blame(s.heaviest()); got != "most: shop/appa-* (2 pods) 5.9KiB" {
		t.Error(got)
	}
	for i := range 100 { // in a namespace each
		s.pod(fmt.Sprintf("team-%d", i), "web-0").bytes = 1000
		s.sandboxes.bytes += 1000
	}
	if got := s.blame(s.heaviest()); got != "many small ones, most in namespace shop 19.6KiB" {
		t.Error(got)
	}
	s.containers.bytes += 1e6
	if got := s.blame(s.heaviest()); got != "many small ones: no owner of pods and no namespace holds 10 percent" {
		t.Error(got)
	}
}
