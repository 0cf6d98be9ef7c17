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
	exited   = runtime.ContainerState_CONTAINER_EXITED
	running  = runtime.ContainerState_CONTAINER_RUNNING
	ready    = runtime.PodSandboxState_SANDBOX_READY
	notReady = runtime.PodSandboxState_SANDBOX_NOTREADY
)

// node is a host with a runtime at which a test looks again and again.
type node struct {
	t          *testing.T
	root       string
	runtime    fake
	sandboxes  []*runtime.PodSandbox
	containers []*runtime.Container
	check      check
	last       *plugin.Look
}

// fake tells the network namespaces of sandboxes besides the lists.
type fake struct {
	lab.FakeCRI
	namespaces map[string]string // by sandbox
	asked      int
}

func (f *fake) PodSandboxStatus(_ context.Context, r *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	f.asked++
	path, ok := f.namespaces[r.PodSandboxId]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	info := fmt.Sprintf(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":%q}]}}}`, path)
	return &runtime.PodSandboxStatusResponse{Info: map[string]string{"info": info}}, nil
}

// newNode is a node with kubelet's directories of these pods.
func newNode(t *testing.T, uids ...string) *node {
	t.Helper()
	n := &node{t: t, root: lab.ShortDir(t), runtime: fake{namespaces: map[string]string{}},
		check: check{count: 10, age: 10 * time.Minute, keep: 1, kubeletDir: "/var/lib/kubelet"}}
	n.write("var/lib/kubelet/pods/", "")
	for _, uid := range uids {
		n.write("var/lib/kubelet/pods/"+uid+"/", "")
	}
	n.check.endpoint = "/run/cri.sock"
	lab.ServeCRI(t, lab.Listen(t, n.root, n.check.endpoint), "v1", &n.runtime)
	n.last = plugintest.Look(t, hosttest.Open(t, n.root))
	return n
}

func (n *node) write(path, content string) {
	n.t.Helper()
	hosttest.Tree{path: content}.Write(n.t, n.root)
}

// sandbox lists one of a pod, with its number for an age, and returns its id.
func (n *node) sandbox(uid string, number int, state runtime.PodSandboxState) string {
	id := fmt.Sprintf("%s%056x", uid[:8], number)
	n.sandboxes = append(n.sandboxes, &runtime.PodSandbox{Id: id, State: state, CreatedAt: int64(1 + number),
		Metadata: &runtime.PodSandboxMetadata{Name: "web-" + uid, Namespace: "shop", Uid: uid}})
	return id
}

// container lists one of a sandbox, with its number for an age.
func (n *node) container(uid, sandbox, name string, number int, state runtime.ContainerState) {
	n.containers = append(n.containers, &runtime.Container{Id: fmt.Sprintf("%s%s%040x", uid, name, number), PodSandboxId: sandbox, State: state,
		CreatedAt: int64(1 + number), Metadata: &runtime.ContainerMetadata{Name: name, Attempt: uint32(number)},
		Labels: map[string]string{"io.kubernetes.pod.uid": uid, "io.kubernetes.pod.name": "web-" + uid, "io.kubernetes.pod.namespace": "shop"}})
}

// after looks when so much time has passed since the last look.
func (n *node) after(d time.Duration) plugin.Verdict {
	n.t.Helper()
	n.runtime.Set(n.sandboxes, n.containers)
	l := n.last.Next()
	l.Now = l.Now.Add(d)
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	v := n.check.look(ctx, l)
	n.last = l
	return v
}

// settle looks every minute until 10 have passed.
func (n *node) settle() plugin.Verdict {
	n.t.Helper()
	v := n.after(0)
	for range 10 {
		v = n.after(time.Minute)
	}
	return v
}

func uid(i int) string { return fmt.Sprintf("%08x-2c1e-4b7a-9d52-00000000abcd", i) }

// A pod whose old sandboxes are not removed.
func TestOldSandboxes(t *testing.T) {
	n := newNode(t, uid(1))
	for i := range 11 {
		n.sandbox(uid(1), i, notReady)
	}
	n.sandbox(uid(1), 11, ready)
	plugintest.Want(t, n.after(0), plugin.OK, "11 records wait for kubelet's collection, 0 of them for 10m; it keeps 0 by design")
	for range 9 {
		plugintest.Want(t, n.after(time.Minute), plugin.OK)
	}
	v := n.after(time.Minute)
	plugintest.Want(t, v, plugin.Problem, "11 dead sandboxes not collected for 10m or longer; pods: shop/web-"+uid(1))
	v = n.after(time.Minute)
	plugintest.Want(t, v, plugin.Problem, "for 10m or longer, oldest 11m;")
	n.sandboxes = n.sandboxes[2:] // kubelet has collected two: 9 stay
	plugintest.Want(t, n.after(time.Minute), plugin.OK, "9 records wait for kubelet's collection, 9 of them for 10m")
}

// A pod's last sandbox and the container that kubelet keeps of each restarted one.
func TestKeptByDesign(t *testing.T) {
	var uids []string
	for i := range 30 {
		uids = append(uids, uid(i))
	}
	n := newNode(t, uids...)
	for i, u := range uids {
		state := ready
		if i%2 == 0 { // finished and still there
			state = notReady
		}
		s := n.sandbox(u, i, state)
		for _, name := range []string{"init", "main"} {
			n.container(u, s, name, 29, exited)
		}
		if state == ready {
			n.container(u, s, "main", 30, running)
		}
	}
	plugintest.Want(t, n.settle(), plugin.OK, "0 records wait for kubelet's collection, 0 of them for 10m; it keeps 75 by design")
}

// 200 fresh sandboxes each minute, which are collected before the next.
func TestFresh(t *testing.T) {
	n := newNode(t)
	for minute := range 15 {
		n.sandboxes = nil
		for i := range 200 {
			n.sandbox(uid(200*minute+i), i, notReady)
		}
		plugintest.Want(t, n.after(time.Minute), plugin.OK, "200 records wait for kubelet's collection, 0 of them for 10m")
	}
}

// Restarts whose containers stay, of a pod that runs.
func TestOldContainers(t *testing.T) {
	n := newNode(t, uid(1))
	s := n.sandbox(uid(1), 0, ready)
	for i := range 12 {
		n.container(uid(1), s, "main", i, exited)
	}
	n.container(uid(1), s, "main", 12, running)
	plugintest.Want(t, n.settle(), plugin.Problem, "11 dead containers not collected for 10m")
	n.check.keep = 3 // as kubelet's flag said
	plugintest.Want(t, n.after(time.Minute), plugin.OK, "9 records wait for kubelet's collection")
}

// Of a pod that is gone everything must go, and sandboxes that hold containers wait for those.
func TestPodsGone(t *testing.T) {
	n := newNode(t, uid(0))
	n.sandbox(uid(0), 0, ready)
	for i := 1; i <= 6; i++ {
		s := n.sandbox(uid(i), i, notReady)
		if i > 2 {
			n.container(uid(i), s, "main", 0, exited)
			n.container(uid(i), s, "sidecar", 0, runtime.ContainerState_CONTAINER_CREATED)
		}
	}
	v := n.settle()
	plugintest.Want(t, v, plugin.Problem, "2 dead sandboxes and 8 dead containers not collected for 10m", "pods: shop/web-"+uid(3))
	if len(v.Details) != 6 || v.Details[0] != "shop/web-"+uid(3)+": 2 dead containers, oldest 10m" {
		t.Errorf("%q", v.Details)
	}
}

// Without kubelet's directories no pod is known to be gone.
func TestNoPodDirectories(t *testing.T) {
	for name, dir := range map[string]string{"none": "/no/kubelet", "another kubelet's": "/var/lib/kubelet"} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.check.kubeletDir = dir
			n.sandbox(uid(0), 0, ready)
			for i := 1; i < 30; i++ {
				n.sandbox(uid(i), i, notReady)
			}
			plugintest.Want(t, n.settle(), plugin.OK, "it keeps 29 by design")
		})
	}
}

// CNI cannot delete the networks of pods that kubelet is still about to end.
func TestTeardown(t *testing.T) {
	var uids []string
	for i := range 10 {
		uids = append(uids, uid(i))
	}
	n := newNode(t, uids...)
	for i, u := range uids {
		id := n.sandbox(u, i, notReady)
		n.container(u, id, "main", 0, exited)
		n.runtime.namespaces[id] = fmt.Sprintf("/var/run/netns/cni-%d", i)
		n.write("var/lib/cni/results/my-net-"+id+"-eth0", "{}")
		n.write(fmt.Sprintf("run/netns/cni-%d", i), "")
	}
	v := n.settle()
	plugintest.Want(t, v, plugin.Problem, "10 dead sandboxes not collected for 10m", "; network teardown fails: 10 namespaces left in /run/netns; pods: shop/web-", " and 8 more")
	if n.runtime.asked != 10 {
		t.Errorf("asked %d times, want 10 and only when it is a Problem", n.runtime.asked)
	}
	for i := range uids { // the node's /run is another since its restart
		n.runtime.namespaces[n.sandboxes[i].Id] = "/var/run/netns/gone"
	}
	plugintest.Want(t, n.after(time.Minute), plugin.Problem, "network teardown fails: 10 CNI results left in /var/lib/cni/results")
}

// More sandboxes than are asked for, beside live pods and namespaces of others.
func TestManyNamespaces(t *testing.T) {
	n := newNode(t, uid(0))
	n.sandbox(uid(0), 0, ready)
	n.write("run/netns/cni-ready", "")
	n.write("run/netns/vpn", "")
	for i := 1; i <= 25; i++ {
		id := n.sandbox(uid(i), i, notReady)
		n.runtime.namespaces[id] = fmt.Sprintf("/run/netns/cni-%d", i)
		n.write(fmt.Sprintf("run/netns/cni-%d", i), "")
	}
	plugintest.Want(t, n.settle(), plugin.Problem, "25 dead sandboxes", "network teardown fails: at least 25 namespaces left in /run/netns")
	if n.runtime.asked != maxAsked {
		t.Errorf("asked %d times", n.runtime.asked)
	}
}

// A clock that jumps makes nothing old, and nothing young for long.
func TestClock(t *testing.T) {
	n := newNode(t)
	for i := range 10 {
		n.sandbox(uid(i), i, notReady)
	}
	for range 6 {
		plugintest.Want(t, n.after(time.Minute), plugin.OK)
	}
	plugintest.Want(t, n.after(-time.Hour), plugin.OK, "10 records wait for kubelet's collection, 0 of them")
	for range 4 {
		plugintest.Want(t, n.after(time.Minute), plugin.OK)
	}
	plugintest.Want(t, n.after(time.Minute), plugin.Problem, "10 dead sandboxes not collected for 10m or longer;")

	n = newNode(t)
	for i := range 10 {
		n.sandbox(uid(i), i, notReady)
	}
	plugintest.Want(t, n.after(0), plugin.OK)
	plugintest.Want(t, n.after(24*time.Hour), plugin.OK, "0 of them for 10m")
	plugintest.Want(t, n.after(5*time.Minute), plugin.Problem)
}

// What was collected and is there again is seen for the first time again.
func TestForgets(t *testing.T) {
	n := newNode(t)
	for i := range 10 {
		n.sandbox(uid(i), i, notReady)
	}
	plugintest.Want(t, n.settle(), plugin.Problem)
	all := n.sandboxes
	n.sandboxes = nil
	plugintest.Want(t, n.after(time.Minute), plugin.OK, "0 records")
	n.sandboxes = all
	plugintest.Want(t, n.after(time.Minute), plugin.OK, "10 records wait for kubelet's collection, 0 of them for 10m")
}

func TestSuspicion(t *testing.T) {
	n := newNode(t)
	for i := range 9 {
		n.sandbox(uid(i), i, notReady)
	}
	plugintest.WantSuspicion(t, n.after(0), "")
	n.sandbox(uid(9), 9, notReady)
	plugintest.WantSuspicion(t, n.after(0), "10 records for kubelet to collect")
}

// Runtimes other than containerd leave things out that the API does not demand.
func TestBareReplies(t *testing.T) {
	n := newNode(t)
	for i := range 12 {
		id := fmt.Sprint("s", i)
		n.sandboxes = append(n.sandboxes, &runtime.PodSandbox{Id: id, State: notReady})
		n.containers = append(n.containers, &runtime.Container{Id: fmt.Sprint("c", i), PodSandboxId: id, State: exited})
	}
	plugintest.Want(t, n.settle(), plugin.OK, "0 records wait for kubelet's collection, 0 of them for 10m; it keeps 24 by design")

	// One sandbox with restarts, and nothing but ids, attempts and times.
	n.sandboxes, n.containers = n.sandboxes[:1], nil
	for i := range 12 {
		n.containers = append(n.containers, &runtime.Container{Id: fmt.Sprint("c", i), PodSandboxId: "s0", State: exited, CreatedAt: int64(i), Metadata: &runtime.ContainerMetadata{Name: "main"}})
	}
	plugintest.Want(t, n.settle(), plugin.Problem, "11 dead containers not collected for 10m or longer", "pods: a pod without a name")

	// Containers whose labels are left out belong to the pod of their sandbox.
	n.sandboxes[0].Metadata = &runtime.PodSandboxMetadata{Name: "cart-0", Namespace: "shop", Uid: uid(1)}
	plugintest.Want(t, n.after(time.Minute), plugin.Problem, "11 dead containers not collected for 10m or longer", "pods: shop/cart-0")
}

// Ids of any length are told apart.
func TestIDs(t *testing.T) {
	n := newNode(t)
	for _, id := range []string{"", "a", strings.Repeat("b", 12), strings.Repeat("c", 64), strings.Repeat("d", 128), strings.Repeat("d", 4096), "\x00", "é", "..", "a-b"} {
		n.sandboxes = append(n.sandboxes, &runtime.PodSandbox{Id: id, State: notReady, CreatedAt: 1, Metadata: &runtime.PodSandboxMetadata{Name: "x", Uid: "uid" + id}})
	}
	plugintest.Want(t, n.settle(), plugin.Problem, "10 dead sandboxes")
}

// Far more than a node has. The memory stays within its bound.
func TestMany(t *testing.T) {
	n := newNode(t)
	s := n.sandbox(uid(0), 0, ready)
	n.write("var/lib/kubelet/pods/"+uid(0)+"/", "")
	for i := range 50_001 {
		n.container(uid(0), s, "main", i, exited)
	}
	n.after(0)
	n.after(5 * time.Minute)
	plugintest.Want(t, n.after(5*time.Minute), plugin.Problem, "50000 dead containers not collected for 10m or longer; pods: shop/web-"+uid(0))
}

func TestMemoryBound(t *testing.T) {
	l := plugintest.Look(t, hosttest.Tree{}.Open(t))
	var found []leftover
	for i := range maxRemembered + 100 {
		found = append(found, leftover{key: uint64(i), age: 100 * 24 * time.Hour})
	}
	rememberAges(l, found)
	next := l.Next()
	next.Now = next.Now.Add(time.Minute)
	ages := recallAges(next)
	if len(ages) != maxRemembered {
		t.Errorf("%d remembered", len(ages))
	}
	const longest = (1<<32 - 1) * time.Millisecond // an age does not wrap
	if age := ages[found[0].key]; age != longest+time.Minute {
		t.Errorf("%v, want %v", age, longest)
	}
}

// failing refuses its lists.
type failing struct{ lab.FakeCRI }

func (*failing) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return nil, status.Error(codes.ResourceExhausted, "trying to send message larger than max (17248000 vs. 16777216)")
}

func TestUnknown(t *testing.T) {
	listener := lab.Listen(t, lab.ShortDir(t), "cri.sock")
	lab.ServeCRI(t, listener, "v1", new(failing))
	socket := listener.Addr().String()
	for endpoint, want := range map[string]string{
		socket:            "larger than max (17248000 vs. 16777216)",
		"/no/such/socket": "cannot list what kubelet should remove: CRI endpoint: ",
	} {
		c := check{count: 10, age: time.Minute, keep: 1, endpoint: endpoint}
		plugintest.Want(t, c.look(t.Context(), plugintest.Look(t, hosttest.Open(t, "/"))), plugin.Unknown, want)
	}
}

// Names that others chose are made safe, and as many are told as there is room for.
func TestNames(t *testing.T) {
	n := newNode(t)
	for i := range 10 {
		n.sandbox(uid(i), i, notReady)
		n.sandboxes[i].Metadata.Name = fmt.Sprintf("a\x1b[31m%%s\n%02d%s", i, strings.Repeat("x", 4096))
	}
	v := n.settle()
	plugintest.Want(t, v, plugin.Problem, "pods: shop/a?[31m?s 00xxx", " and 8 more")
	if plugin.Safe(v.Message, 4096) != v.Message || len(v.Message) > plugin.MaxMessage {
		t.Errorf("%q", v.Message)
	}
}

// Of many pods none is to blame; the namespace may be.
func TestManyPods(t *testing.T) {
	n := newNode(t)
	for i := range 30 {
		n.sandbox(uid(i), i, notReady)
		n.sandboxes[i].Metadata.Namespace = []string{"batch", "batch", "shop"}[i%3]
	}
	n.sandboxes[2].Metadata.Namespace = "rare"
	plugintest.Want(t, n.settle(), plugin.Problem, "30 dead sandboxes not collected for 10m or longer; 30 pods, most of namespace batch (20), shop (9), such as batch/web-")
}

func TestSandboxOfResult(t *testing.T) {
	for name, want := range map[string]string{
		"cbr0-" + strings.Repeat("a", 64) + "-eth0": strings.Repeat("a", 64),
		"k8s-pod-network-0123abcd-eth0":             "0123abcd",
		"cni-loopback-0123abcd-lo":                  "0123abcd",
		"0123abcd-eth0":                             "",
		"eth0":                                      "",
		"":                                          "",
		"--":                                        "",
		"my-net-" + strings.Repeat("b", 200) + "-net1": strings.Repeat("b", 200),
	} {
		if got := sandboxOfResult(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1500 * time.Millisecond: "1s", 10 * time.Minute: "10m", 200 * time.Minute: "3h20m", 47*time.Hour + 5*time.Minute: "47h05m", 125 * time.Hour: "5d5h",
	} {
		if got := age(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func FuzzMemory(f *testing.F) {
	f.Add(int64(1793534400000), []byte("12345678abcd"), int64(60000))
	f.Add(int64(-1), []byte("1234567"), int64(-3600000))
	f.Fuzz(func(t *testing.T, last int64, ages []byte, later int64) {
		l := plugintest.Look(t, nil)
		l.Remember(memory{last, ages})
		next := l.Next()
		next.Now = time.UnixMilli(later)
		for _, age := range recallAges(next) {
			if age < 0 || age > 50*24*time.Hour+maxPause {
				t.Errorf("age %v", age)
			}
		}
	})
}

// FuzzRecords has records of a few pods in any order and state: what is left over is dead, and each pod that is there
// keeps its newest sandbox and a container of each name.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 250, 251, 128, 129})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := &node{t: t}
		for i, c := range b[:min(len(b), 200)] {
			u := uid(int(c) % 3)
			if c < 128 {
				n.sandbox(u, i, runtime.PodSandboxState(c/3%2))
			} else if len(n.sandboxes) > 0 {
				n.container(u, n.sandboxes[i%len(n.sandboxes)].Id, "main", i, runtime.ContainerState(c/3%4))
			}
		}
		r := read(t, n.sandboxes, n.containers)
		found := r.leftovers(1, func(p *pod) bool { return p.uid == hash([]byte(uid(0))) }, func(string) bool { return false })
		if len(found) > r.notRunning() {
			t.Errorf("%d of %d dead records", len(found), r.notRunning())
		}
		for _, s := range n.sandboxes {
			left := slices.ContainsFunc(found, func(f leftover) bool { return !f.container && f.sandbox.id == s.Id })
			used := slices.ContainsFunc(n.containers, func(c *runtime.Container) bool { return c.PodSandboxId == s.Id })
			newer := slices.ContainsFunc(n.sandboxes, func(o *runtime.PodSandbox) bool { return o.Metadata.Uid == s.Metadata.Uid && o.CreatedAt > s.CreatedAt })
			if want := s.State == notReady && !used && (newer || s.Metadata.Uid == uid(0)); left != want {
				t.Errorf("sandbox %s left over: %v, want %v", s.Id, left, want)
			}
		}
		for _, c := range n.containers {
			left := slices.ContainsFunc(found, func(f leftover) bool { return f.container && f.key == hash([]byte(c.Id)) })
			u := c.Labels["io.kubernetes.pod.uid"]
			newer := slices.ContainsFunc(n.containers, func(o *runtime.Container) bool {
				return o.State != running && o.Labels["io.kubernetes.pod.uid"] == u && o.CreatedAt > c.CreatedAt
			})
			if want := c.State != running && (newer || u == uid(0)); left != want {
				t.Errorf("container %s left over: %v, want %v", c.Id, left, want)
			}
		}
	})
}
