package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/test/lab"
)

const (
	uid   = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	id    = "3f8a1c5e7d9b2046813579bdf02468ace13579bdf02468ace02468ace13579bd"
	other = "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"
)

// node is up for 1000 s and runs an ordinary process.
func node() hosttest.Tree {
	return hosttest.Tree{
		"proc/uptime":                           "1000.00 1800.00\n",
		"proc/1/stat":                           stat(1, "systemd", 'S', 0),
		"var/log/pods/shop_cart-0_" + uid + "/": "",
	}
}

func stat(pid int, comm string, state byte, age int) string {
	flags := 4194560
	if state == 'Z' {
		flags |= 4 // PF_EXITING
	}
	return fmt.Sprintf("%d (%s) %c 1 1 1 0 -1 %d 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0 18446744073709551615 0 0\n", pid, comm, state, flags, (1000-age)*100)
}

// add puts a runc init of that age in seconds into a container of the pod.
func add(tree hosttest.Tree, pid int, state byte, age int, container, wchan string) hosttest.Tree {
	dir := fmt.Sprintf("proc/%d/", pid)
	tree[dir+"stat"] = stat(pid, initComm, state, age)
	tree[dir+"wchan"] = wchan
	tree[dir+"cgroup"] = "12:pids:/kubepods/burstable/pod" + uid + "/" + container + "\n0::/\n"
	return tree
}

func created(container string, age time.Duration) *runtime.Container {
	return &runtime.Container{Id: container, State: runtime.ContainerState_CONTAINER_CREATED, CreatedAt: plugintest.Now.Add(-age).UnixNano(),
		Labels: map[string]string{"io.kubernetes.pod.name": "cart-0", "io.kubernetes.pod.namespace": "shop"}}
}

// open writes the node's files, with a runtime among them that lists these.
func open(t *testing.T, tree hosttest.Tree, server runtime.RuntimeServiceServer) *plugin.Look {
	t.Helper()
	root := lab.ShortDir(t)
	tree.Write(t, root)
	lab.ServeCRI(t, lab.Listen(t, root, "run/containerd/containerd.sock"), "v1", server)
	return plugintest.Look(t, hosttest.Open(t, root))
}

func look(l *plugin.Look) plugin.Verdict {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return (&check{age: 2 * time.Minute}).look(ctx, l)
}

func TestRuncInit(t *testing.T) {
	tests := []struct {
		name       string
		tree       hosttest.Tree
		containers []*runtime.Container
		status     plugin.Status
		words      []string
	}{
		{"nothing", node(), nil, plugin.OK, []string{"no container is stuck between create and start"}},
		{"in a pipe", add(node(), 700, 'S', 300, id, "pipe_write"), nil, plugin.Problem,
			[]string{"a container does not start; pod shop/cart-0 container 3f8a1c5e7d9b created 5m0s ago, runc:[2:INIT] (pid 700) waits in pipe_write: " +
				"fs.pipe-user-pages-soft is exceeded for uid 0; runc >= 1.0.0 is not affected"}},
		{"in a pipe, Linux 6.14", add(node(), 700, 'S', 300, id, "anon_pipe_write"), nil, plugin.Problem, []string{"waits in anon_pipe_write: fs.pipe-user-pages-soft is exceeded"}},
		{"in a pipe, before 5.5", add(node(), 700, 'S', 300, id, "pipe_wait"), nil, plugin.Problem, []string{"waits in pipe_wait: fs.pipe-user-pages-soft is exceeded"}},
		{"for its start", add(node(), 700, 'S', 300, id, "wait_for_partner"), nil, plugin.Problem, []string{"waits in wait_for_partner"}},
		{"nobody may know for what", add(node(), 700, 'S', 300, id, "0"), nil, plugin.Problem, []string{"runc:[2:INIT] (pid 700)"}},
		{"young", add(node(), 700, 'S', 119, id, "wait_for_partner"), []*runtime.Container{created(id, 119*time.Second)}, plugin.OK, nil},
		{"zombie", add(node(), 700, 'Z', 300, id, "0"), nil, plugin.OK, nil},
		{"frozen on v1", add(node(), 700, 'D', 300, id, "__refrigerator"), []*runtime.Container{created(id, 300*time.Second)}, plugin.OK, nil},
		{"frozen on v2", add(node(), 700, 'S', 300, id, "do_freezer_trap"), []*runtime.Container{created(id, 300*time.Second)}, plugin.OK, nil},
		{"only the runtime tells", node(), []*runtime.Container{created(id, 150*time.Second)}, plugin.Problem,
			[]string{"a container does not start; pod shop/cart-0 container 3f8a1c5e7d9b created 2m30s ago"}},
		{"both tell", add(node(), 700, 'S', 300, id, "pipe_write"), []*runtime.Container{created(id, 301*time.Second)}, plugin.Problem,
			[]string{"a container does not start; pod shop/cart-0 container 3f8a1c5e7d9b created 5m1s ago, runc:[2:INIT] (pid 700) waits in pipe_write"}},
		{"both tell, the process is a little younger than the age", add(node(), 700, 'S', 119, id, "pipe_write"), []*runtime.Container{created(id, 121*time.Second)}, plugin.Problem,
			[]string{"created 2m1s ago, runc:[2:INIT] (pid 700) waits in pipe_write"}},
		{"both tell, the runtime without a name", add(node(), 700, 'S', 300, id, "pipe_write"),
			[]*runtime.Container{{Id: id, State: runtime.ContainerState_CONTAINER_CREATED, CreatedAt: plugintest.Now.Add(-time.Hour).UnixNano()}}, plugin.Problem,
			[]string{"a container does not start; pod shop/cart-0 container 3f8a1c5e7d9b"}},
		{"two, the oldest is told", add(node(), 700, 'S', 300, id, "pipe_write"), []*runtime.Container{created(other, 400*time.Second)}, plugin.Problem,
			[]string{"2 containers do not start; oldest: pod shop/cart-0 container aaaabbbbcccc created 6m40s ago"}},
		{"a process that calls itself so in a running container", add(node(), 700, 'S', 300, id, "futex_wait_queue"),
			[]*runtime.Container{{Id: id, State: runtime.ContainerState_CONTAINER_RUNNING, CreatedAt: 1}}, plugin.OK, nil},
		{"in a cgroup of its making below that of a running container", add(node(), 700, 'S', 300, id+"/"+other, "futex_wait_queue"),
			[]*runtime.Container{{Id: id, State: runtime.ContainerState_CONTAINER_RUNNING, CreatedAt: 1}}, plugin.OK, nil},
		{"beside a running container", add(node(), 700, 'S', 300, id, "pipe_write"),
			[]*runtime.Container{{Id: other, State: runtime.ContainerState_CONTAINER_RUNNING, CreatedAt: 1}}, plugin.Problem, []string{"waits in pipe_write"}},
		{"beside one without an id", add(node(), 700, 'S', 300, id, "pipe_write"),
			[]*runtime.Container{{State: runtime.ContainerState_CONTAINER_RUNNING, CreatedAt: 1}}, plugin.Problem, []string{"waits in pipe_write"}},
		{"running", node(), []*runtime.Container{{Id: id, State: runtime.ContainerState_CONTAINER_RUNNING, CreatedAt: 1}}, plugin.OK, nil},
		{"created, since when is not told", node(), []*runtime.Container{{Id: id, State: runtime.ContainerState_CONTAINER_CREATED}}, plugin.OK, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var fake lab.FakeCRI
			fake.Set(nil, tt.containers)
			plugintest.Want(t, look(open(t, tt.tree, &fake)), tt.status, tt.words...)
		})
	}
}

// runtimeOfPods lists containers by kubelet's label too, and says when they started.
type runtimeOfPods struct {
	lab.FakeCRI
	started map[string]int64 // by id
}

func (f *runtimeOfPods) ListContainers(ctx context.Context, request *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	reply, err := f.FakeCRI.ListContainers(ctx, request)
	wanted := request.GetFilter().GetLabelSelector()
	reply.Containers = slices.DeleteFunc(reply.Containers, func(k *runtime.Container) bool {
		for name, value := range wanted {
			if k.Labels[name] != value {
				return true
			}
		}
		return false
	})
	return reply, err
}

func (f *runtimeOfPods) ContainerStatus(_ context.Context, request *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	return &runtime.ContainerStatusResponse{Status: &runtime.ContainerStatus{Id: request.ContainerId, StartedAt: f.started[request.ContainerId]}}, nil
}

// kubelet gives up a start after two minutes and tries again after a pause, each time with a container of another id.
func TestAttempts(t *testing.T) {
	var fake runtimeOfPods
	l := open(t, node(), &fake)
	start := l.Now
	list := func(container string, state runtime.ContainerState, at time.Duration) {
		k := created(container, 0)
		k.State, k.CreatedAt, k.Metadata = state, start.Add(at).UnixNano(), &runtime.ContainerMetadata{Name: "app"}
		k.Labels["io.kubernetes.pod.uid"] = uid
		fake.Set(nil, []*runtime.Container{k})
	}
	sees := func(at time.Duration, status plugin.Status, words ...string) plugin.Verdict {
		t.Helper()
		l.Now = start.Add(at)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		v := (&check{age: 45 * time.Second}).look(ctx, l)
		plugintest.Want(t, v, status, words...)
		l = l.Next()
		return v
	}
	const createdState, exited, running = runtime.ContainerState_CONTAINER_CREATED, runtime.ContainerState_CONTAINER_EXITED, runtime.ContainerState_CONTAINER_RUNNING
	list(id, createdState, 0)
	plugintest.WantSuspicion(t, sees(30*time.Second, plugin.OK), "1 container created and not started yet")
	sees(90*time.Second, plugin.Problem, "pod shop/cart-0 container 3f8a1c5e7d9b created 1m30s ago")
	list(id, exited, 0) // kubelet has given up
	sees(150*time.Second, plugin.Problem, "a container does not start; pod shop/cart-0 container 3f8a1c5e7d9b not started for 2m30s")
	list(other, createdState, 160*time.Second)
	sees(171*time.Second, plugin.Problem, "container aaaabbbbcccc not started 2 times in 2m51s")
	list(other, exited, 160*time.Second)
	sees(300*time.Second, plugin.Problem, "not started 2 times in 5m0s")
	list(id, running, 310*time.Second)
	fake.started = map[string]int64{id: 1}
	sees(330*time.Second, plugin.OK)

	// Attempts that are each shorter than the age count together.
	list(other, createdState, 400*time.Second)
	sees(415*time.Second, plugin.OK)
	list(other, exited, 400*time.Second)
	plugintest.WantSuspicion(t, sees(435*time.Second, plugin.OK), "1 container created and not started yet")
	list(id+"1", createdState, 440*time.Second)
	sees(455*time.Second, plugin.Problem, "not started 2 times in 55s")
	// It starts and crashes: that is another story.
	list(id+"1", exited, 440*time.Second)
	fake.started[id+"1"] = 1
	plugintest.WantSuspicion(t, sees(475*time.Second, plugin.OK), "")

	// The pod is deleted.
	list(other, createdState, 500*time.Second)
	sees(560*time.Second, plugin.Problem)
	fake.Set(nil, nil)
	sees(590*time.Second, plugin.OK)

	// Nobody tries again.
	list(other, createdState, 600*time.Second)
	sees(660*time.Second, plugin.Problem)
	list(other, exited, 600*time.Second)
	sees(660*time.Second+paused, plugin.Problem)
	sees(661*time.Second+paused, plugin.OK)
}

// More containers than are remembered are told all the same, once they are old enough.
func TestManyAttempts(t *testing.T) {
	var fake runtimeOfPods
	var many []*runtime.Container
	for i := range maxAttempts + 10 {
		k := created(fmt.Sprintf("%064d", i), time.Minute)
		k.Metadata = &runtime.ContainerMetadata{Name: "app"}
		k.Labels["io.kubernetes.pod.uid"] = fmt.Sprint(i)
		many = append(many, k)
	}
	fake.Set(nil, many)
	l := open(t, node(), &fake)
	v := (&check{age: 45 * time.Second}).look(t.Context(), l)
	plugintest.Want(t, v, plugin.Problem, fmt.Sprintf("%d containers do not start", maxAttempts+10))
	var m memory
	if l = l.Next(); !l.Recall(&m) || len(m) != maxAttempts {
		t.Errorf("%d are remembered", len(m))
	}
}

// A runc init outside of pods and containers still has a pid.
func TestWithoutOwner(t *testing.T) {
	tree := add(node(), 700, 'S', 300, id, "pipe_write")
	tree["proc/700/cgroup"] = "0::/user.slice/session-1.scope\n"
	plugintest.Want(t, look(open(t, tree, new(lab.FakeCRI))), plugin.Problem, "a container does not start; created 5m0s ago, runc:[2:INIT] (pid 700) waits in pipe_write")
	tree["proc/700/cgroup"] = "0::/docker/" + id + "\n"
	plugintest.Want(t, look(open(t, tree, new(lab.FakeCRI))), plugin.Problem, "a container does not start; container 3f8a1c5e7d9b created 5m0s ago")
}

func TestDetails(t *testing.T) {
	tree := node()
	for pid := 700; pid < 715; pid++ {
		add(tree, pid, 'S', 300+pid-700, fmt.Sprintf("%064x", pid), "pipe_write")
	}
	v := look(open(t, tree, new(lab.FakeCRI)))
	plugintest.Want(t, v, plugin.Problem, "15 containers do not start", "(pid 714)")
	if len(v.Details) != 10 || v.Measurements[0].Value != 15 {
		t.Errorf("%d details, %+v", len(v.Details), v.Measurements)
	}
}

// Names that others chose are made safe.
func TestUnsafeNames(t *testing.T) {
	var fake lab.FakeCRI
	evil := created("\x1b[31m%s\n"+strings.Repeat("x", 4096), time.Hour)
	evil.Labels["io.kubernetes.pod.name"] = "a\x1b[31m%s\n" + strings.Repeat("y", 4096)
	fake.Set(nil, []*runtime.Container{evil})
	v := look(open(t, node(), &fake))
	plugintest.Want(t, v, plugin.Problem, "pod shop/a?[31m?s yyy", "container ?[31m?s xxxx created 1h0m0s ago")
	if plugin.Safe(v.Message, 4096) != v.Message {
		t.Errorf("%q", v.Message)
	}
}

// failing is a runtime that cannot list.
type failing struct{ lab.FakeCRI }

func (*failing) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return nil, status.Error(codes.Unknown, "bolt: timeout")
}

// What the processes show is told although the runtime does not answer.
func TestRuntimeFails(t *testing.T) {
	plugintest.Want(t, look(open(t, node(), &failing{})), plugin.Unknown, "no runc init is stuck, but created containers are not known: CRI ListContainers at ", "bolt: timeout")
	plugintest.Want(t, look(open(t, add(node(), 700, 'S', 300, id, "pipe_write"), &failing{})), plugin.Problem, "waits in pipe_write")
	plugintest.Want(t, look(open(t, add(node(), 700, 'S', 300, id, "__refrigerator"), &failing{})), plugin.Unknown, "created containers are not known")
	plugintest.Want(t, look(plugintest.Look(t, node().Open(t))), plugin.Unknown, "no container runtime socket under ")
}

func TestUnknown(t *testing.T) {
	for _, tt := range []struct {
		tree hosttest.Tree
		want string
	}{
		{hosttest.Tree{}, "cannot look for runc init: "},
		{hosttest.Tree{"proc/uptime": "1000.00 1800.00\n"}, "mount the host's /proc there"},
		{hosttest.Tree{"proc/uptime": "1000.00 1800.00\n", "proc/1/stat": "\xff\x00garbage"}, "1 stat files in "},
		{hosttest.Tree{"proc/uptime": "\xff%s\n", "proc/1/stat": stat(1, "systemd", 'S', 0)}, "cannot look for runc init: /proc/uptime"},
	} {
		plugintest.Want(t, look(plugintest.Look(t, tt.tree.Open(t))), plugin.Unknown, tt.want)
	}
}
