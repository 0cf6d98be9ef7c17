package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/containerd"
	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

const (
	store   = "var/lib/containerd/io.containerd.content.v1.content/"
	pulling = "var/lib/kubelet/image_manager/pulling/"
)

var (
	layer    = digestOf("a")
	manifest = digestOf("b")
	index    = digestOf("c")
)

func digestOf(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

// node is a host that the test changes, with the age of its downloads.
type node struct {
	hosttest.Tree
	written map[string]time.Duration // ago
}

// newNode is up for 10,000 s and has a containerd, pid 700, that is idle.
func newNode() node {
	return node{hosttest.Tree{
		"proc/uptime":      "10000.00 18000.00\n",
		"proc/1/stat":      stat(1, "systemd", 0, 9999),
		"proc/1/fd/0":      "-> /dev/null",
		"proc/2/stat":      stat(2, "kthreadd", 0, 9999),
		"proc/2/fd/":       "",
		"proc/700/stat":    stat(700, "containerd", 1, 9000),
		"proc/700/fd/0":    "-> /dev/null",
		"proc/700/fd/1":    "-> socket:[1]",
		"proc/700/fd/meta": "-> /var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db",
		"proc/701/stat":    stat(701, "containerd-shim", 1, 9000),
		"proc/701/fd/":     "",
		store + "ingest/":  "",
	}, map[string]time.Duration{}}
}

// stat is a process of that age in seconds.
func stat(pid int, comm string, ppid, age int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0 18446744073709551615 0 0\n", pid, comm, ppid, (10000-age)*100)
}

// ingest adds 8 of 16 bytes of a layer, last written so long ago.
func (n node) ingest(name, digest string, ago time.Duration) node {
	dir := store + "ingest/" + name + "/"
	n.Tree[dir+"ref"] = "k8s.io/1/layer-" + digest
	n.Tree[dir+"data"] = "12345678"
	n.Tree[dir+"total"] = "16"
	n.Tree[dir+"startedat"] = plugintest.Now.Add(-ago - time.Minute).Format(time.RFC3339Nano)
	n.written[dir+"data"] = ago
	n.written[dir+"ref"] = ago
	return n
}

// heldBy lets a process have the ingest's data open, at a path as its own mounts have it.
func (n node) heldBy(pid int, name string) node {
	n.Tree[fmt.Sprintf("proc/%d/fd/%s", pid, name)] = "-> /data/containerd/io.containerd.content.v1.content/ingest/" + name + "/data"
	return n
}

// pod adds a process of a pod.
func (n node) pod(pid int, comm string) node {
	dir := fmt.Sprintf("proc/%d/", pid)
	return n.set(dir+"stat", stat(pid, comm, 1, 9000)).set(dir+"fd/", "").
		set(dir+"cgroup", "0::/kubepods/burstable/pod3f6c1a52-8d0e-4b7f-9a61-5c2e7d904b13/"+strings.Repeat("a", 64)+"\n")
}

func (n node) set(name, content string) node {
	n.Tree[name] = content
	return n
}

func (n node) without(name string) node {
	delete(n.Tree, name)
	return n
}

// intent is kubelet's note that it waits for an image.
func (n node) intent(number int, image string) node {
	b, err := json.Marshal(map[string]string{"kind": "ImagePullIntent", "apiVersion": "kubelet.config.k8s.io/v1beta1", "image": image})
	if err != nil {
		panic(err)
	}
	return n.set(fmt.Sprintf("%ssha256-%d", pulling, number), string(b))
}

func (n node) manifest() node {
	n.set(store+"blobs/sha256/"+strings.Repeat("b", 64), `{"schemaVersion":2,"layers":[{"digest":"`+layer+`"}]}`)
	return n.set(store+"blobs/sha256/"+strings.Repeat("c", 64), `{"schemaVersion":2,"manifests":[{"digest":"`+manifest+`"}]}`)
}

// crio has CRI-O instead of containerd, pid 800.
func (n node) crio() node {
	for name := range n.Tree {
		if strings.HasPrefix(name, store) || strings.HasPrefix(name, "proc/70") {
			delete(n.Tree, name)
		}
	}
	n.set("run/crio/", "").set("proc/800/stat", stat(800, "crio", 1, 9000)).set("proc/800/fd/0", "-> /dev/null")
	return n.set("var/tmp/", "")
}

func (n node) blob(dir string, ago time.Duration) node {
	n.written["var/tmp/"+dir+"/1"] = ago
	return n.set("var/tmp/"+dir+"/1", "12345678")
}

func (n node) open(t *testing.T) *plugin.Look {
	t.Helper()
	root := t.TempDir()
	n.Write(t, root)
	n.age(t, root)
	return plugintest.Look(t, hosttest.Open(t, root))
}

func (n node) age(t *testing.T, root string) {
	t.Helper()
	for name, ago := range n.written {
		at := plugintest.Now.Add(-ago)
		if err := os.Chtimes(filepath.Join(root, name), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func look(l *plugin.Look) plugin.Verdict {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := check{age: 5 * time.Minute, crioTemp: "/var/tmp"}
	return c.look(ctx, l)
}

func TestImagePull(t *testing.T) {
	const long = 6*time.Minute + 3*time.Second
	stalled := func() node { return newNode().ingest("1f", layer, long).heldBy(700, "1f") }
	image := "quay.example/shop/web:1"
	tests := []struct {
		name   string
		node   node
		status plugin.Status
		words  []string
	}{
		{"nothing is pulled", newNode(), plugin.OK, []string{"no image pull is stalled; downloads that advance: 0"}},
		{"stalled", stalled(), plugin.Problem, []string{"image pull stalled at 8B of 16B for 6m3s: layer sha256:aaaaaaaaaaaa; containerd (pid 700) waits, begun 7m3s ago"}},
		{"with its manifest", stalled().manifest(), plugin.Problem, []string{"layer sha256:aaaaaaaaaaaa of the image with manifest sha256:bbbbbbbbbbbb; containerd"}},
		{"kubelet waits for one image", stalled().intent(1, image), plugin.Problem, []string{"for 6m3s: quay.example/shop/web:1, layer sha256:aaaaaaaaaaaa; containerd"}},
		{"for that one and another", stalled().manifest().intent(1, "a.example/a@"+manifest).intent(2, image), plugin.Problem,
			[]string{": a.example/a@sha256:bbbb", "; kubelet has 2 images to pull: "}},
		{"by the digest of the index", stalled().manifest().intent(1, "a.example/a@"+index).intent(2, image), plugin.Problem, []string{": a.example/a@sha256:cccc"}},
		{"for several", stalled().intent(1, "a.example/a:1").intent(2, image), plugin.Problem,
			[]string{": layer sha256:aaaaaaaaaaaa; ", "; kubelet has 2 images to pull: a.example/a:1, quay.example/shop/web:1"}},
		{"another advances", stalled().ingest("2f", digestOf("d"), time.Second).heldBy(700, "2f"), plugin.Problem, []string{"for 6m3s: layer sha256:aaaa", "; others that advance: 1"}},
		{"two are stalled", stalled().ingest("2f", digestOf("d"), time.Hour).heldBy(700, "2f").ingest("3f", digestOf("e"), 0), plugin.Problem,
			[]string{"for 1h0m0s: layer sha256:dddddddddddd", "; others stalled: 1, that advance: 1"}},
		{"all is written", stalled().set(store+"ingest/1f/total", "8"), plugin.Problem, []string{"stalled with all of 8B written and not yet closed (disk?) for 6m3s"}},
		{"the size is not known", stalled().without(store + "ingest/1f/total"), plugin.Problem, []string{"stalled at 8B for 6m3s"}},
		{"k3s", stalled().set("proc/700/stat", stat(700, "k3s-server", 1, 9000)), plugin.Problem, []string{"k3s-server (pid 700) waits"}},
		{"begun in the future", stalled().set(store+"ingest/1f/startedat", "2027-01-01T00:00:00Z"), plugin.Problem, []string{"(pid 700) waits"}},

		{"not for so long", newNode().ingest("1f", layer, 5*time.Minute-time.Second).heldBy(700, "1f"), plugin.OK, []string{"downloads that advance: 1"}},
		{"left behind by a killed containerd", newNode().ingest("1f", layer, long), plugin.OK, []string{"advance: 0, that no runtime waits for: 1"}},
		{"and containerd has not come back", newNode().ingest("1f", layer, long).without("proc/700/stat"), plugin.OK, []string{"that no runtime waits for: 1"}},
		{"taken up again by a young containerd", stalled().set("proc/700/stat", stat(700, "containerd", 1, 60)), plugin.OK, nil},
		{"deleted meanwhile", newNode().ingest("1f", layer, long).set("proc/700/fd/9", "-> /"+store+"ingest/1f/data (deleted)"), plugin.OK, nil},
		{"open in a shim", newNode().ingest("1f", layer, long).heldBy(701, "1f"), plugin.OK, nil},
		{"open in a pod's containerd", newNode().ingest("1f", layer, long).pod(702, "containerd").heldBy(702, "1f"), plugin.OK, []string{"that no runtime waits for: 1"}},
		{"a pod's containerd beside k3s", stalled().set("proc/700/stat", stat(700, "k3s-server", 1, 9000)).pod(702, "containerd"), plugin.Problem, []string{"k3s-server (pid 700) waits"}},
		{"open in a pod beside k3s", newNode().ingest("1f", layer, long).set("proc/700/stat", stat(700, "k3s-server", 1, 9000)).pod(702, "x").heldBy(702, "1f"), plugin.OK, nil},
		{"a pod's crio", newNode().crio().blob("storage123", long).pod(801, "crio").set("proc/801/fd/7", "-> /var/tmp/storage123/1"), plugin.OK, []string{"that no runtime waits for: 1"}},
		{"an import", stalled().set(store+"ingest/1f/ref", "default/1/upload"), plugin.OK, []string{"advance: 0"}},

		{"CRI-O idle", newNode().crio(), plugin.OK, []string{"advance: 0"}},
		{"CRI-O stalled", newNode().crio().blob("container_images_storage123", long).set("proc/800/fd/7", "-> /var/tmp/container_images_storage123/1"), plugin.Problem,
			[]string{"image pull stalled at 8B for 6m3s: an image that CRI-O does not name; crio (pid 800) waits"}},
		{"an older CRI-O, kubelet waits for one image", newNode().crio().blob("storage123", long).set("proc/800/fd/7", "-> /var/tmp/storage123/1").intent(1, image), plugin.Problem,
			[]string{"for 6m3s: quay.example/shop/web:1; crio"}},
		{"a child of CRI-O", newNode().crio().blob("storage123", long).set("proc/801/stat", stat(801, "exe", 800, 9000)).set("proc/801/fd/7", "-> /var/tmp/storage123/1"), plugin.Problem,
			[]string{"exe (pid 801) waits"}},
		{"podman beside CRI-O", newNode().crio().blob("storage123", long).set("proc/801/stat", stat(801, "podman", 1, 9000)).set("proc/801/fd/7", "-> /var/tmp/storage123/1"), plugin.OK,
			[]string{"that no runtime waits for: 1"}},
		{"other files beside CRI-O", newNode().crio().blob("storage", long).blob("storage-x", long).set("proc/800/fd/7", "-> /var/tmp/storage/1"), plugin.OK, []string{"advance: 0"}},
		{"CRI-O advances", newNode().crio().blob("storage123", time.Second).set("proc/800/fd/7", "-> /var/tmp/storage123/1"), plugin.OK, []string{"advance: 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := look(tt.node.open(t))
			plugintest.Want(t, v, tt.status, tt.words...)
			if len(v.Message) > 2*plugin.MaxMessage {
				t.Errorf("%d bytes", len(v.Message))
			}
		})
	}
}

// The data of every distribution is found, whichever other one left its own.
func TestRoots(t *testing.T) {
	const long = 6 * time.Minute
	for _, root := range containerd.Roots {
		n := newNode().ingest("1f", layer, long).heldBy(700, "1f").manifest()
		for name, content := range n.Tree {
			if rest, ok := strings.CutPrefix(name, "var/lib/containerd/"); ok {
				delete(n.Tree, name)
				n.Tree[strings.TrimPrefix(root, "/")+"/"+rest] = content
			}
		}
		n.written = map[string]time.Duration{strings.TrimPrefix(root, "/") + strings.TrimPrefix(store, "var/lib/containerd") + "ingest/1f/data": long}
		plugintest.Want(t, look(n.open(t)), plugin.Problem, "layer sha256:aaaaaaaaaaaa of the image with manifest sha256:bbbbbbbbbbbb; containerd (pid 700)")
		n.set(store+"ingest/", "")
		n.set("var/lib/k0s/containerd", "-> /nowhere")
		if root != "/var/lib/k0s/containerd" {
			plugintest.Want(t, look(n.open(t)), plugin.Problem, "layer sha256:aaaaaaaaaaaa of the image with manifest sha256:bbbbbbbbbbbb; containerd (pid 700)")
		}
	}
	n := newNode().ingest("1f", layer, long).heldBy(700, "1f").set("var/lib/rancher/k3s/agent/containerd", "-> /var/lib/containerd")
	if v := look(n.open(t)); strings.Contains(v.Message, "others") {
		t.Errorf("a link to the data counts twice: %s", v.Message)
	}
	n = newNode().ingest("1f", layer, long).heldBy(700, "1f")
	c := check{age: time.Minute, containerdRoot: "/var/lib/rancher/k3s/agent/containerd", crioTemp: "/var/tmp"}
	plugintest.Want(t, c.look(t.Context(), n.open(t)), plugin.Unknown, "set --containerd-root; looked for /run/crio of CRI-O and /var/lib/rancher/k3s/agent/containerd")
}

func TestDetails(t *testing.T) {
	n := newNode()
	for i := range 15 {
		name := fmt.Sprintf("%02x", i)
		n.ingest(name, digestOf(fmt.Sprintf("%x", i)), time.Hour+time.Duration(i)*time.Second).heldBy(700, name)
	}
	v := look(n.open(t))
	plugintest.Want(t, v, plugin.Problem, "for 1h0m14s: layer sha256:eeeeeeeeeeee", "others stalled: 14, that advance: 0")
	if len(v.Details) != 10 || !strings.Contains(v.Details[0], digestOf("e")) || v.Measurements[0].Value != 15 {
		t.Errorf("%q, %+v", v.Details, v.Measurements)
	}
}

func TestUnknown(t *testing.T) {
	const long = time.Hour
	tests := []struct {
		name string
		node node
		want string
	}{
		{"no runtime", node{Tree: hosttest.Tree{"proc/uptime": "1 1\n"}}, "set --containerd-root"},
		{"garbage", newNode().set(store+"ingest/1f/ref", "\xff%s\n").set(store+"ingest/1f/data", "x"), "1f is no ingest of containerd"},
		{"no store but a file", newNode().without(store+"ingest/").set(store+"ingest", "x"), "--containerd-root"},
		{"CRI-O without its directory", newNode().crio().without("var/tmp/"), "--crio-temp"},
		{"no /proc", newNode().ingest("1f", layer, long).without("proc/uptime"), "not known whether a runtime waits for them"},
		{"the /proc of a container", newNode().ingest("1f", layer, long).without("proc/700/stat").without("proc/2/stat"), "mount the host's /proc there"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "garbage" {
				tt.node.written[store+"ingest/1f/data"] = time.Second
			}
			plugintest.Want(t, look(tt.node.open(t)), plugin.Unknown, tt.want)
		})
	}
}

// The clock is set back an hour. What was written before that is told by the time since the boot.
func TestClockSetBack(t *testing.T) {
	n := newNode().ingest("1f", layer, -time.Hour).heldBy(700, "1f")
	root := t.TempDir()
	n.Write(t, root)
	n.age(t, root)
	l := plugintest.Look(t, hosttest.Open(t, root))
	at := func(seconds int) plugin.Verdict {
		l = l.Next()
		hosttest.Tree{"proc/uptime": fmt.Sprintf("%d.00 1.00\n", seconds)}.Write(t, root)
		return look(l)
	}
	plugintest.WantSuspicion(t, at(10000), "1 download with a last write later than the clock")
	plugintest.Want(t, at(10299), plugin.OK, "advance: 1")
	plugintest.Want(t, at(10301), plugin.Problem, "for 5m1s")

	hosttest.Tree{store + "ingest/1f/data": "123456789"}.Write(t, root)
	n.age(t, root)
	plugintest.Want(t, at(10302), plugin.OK, "advance: 1")
	plugintest.Want(t, at(10603), plugin.Problem, "at 9B of 16B for 5m1s")
}

// A file that is open for reading only, as a layer is while it is unpacked, has arrived.
func TestOpenForReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	for flags, want := range map[int]bool{os.O_RDONLY | os.O_CREATE: false, os.O_WRONLY: true, os.O_RDWR: true} {
		f, err := os.OpenFile(path, flags|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		dir, err := os.Open("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		defer dir.Close()
		if got := openForWriting(dir.Fd(), fmt.Sprint(f.Fd())); got != want {
			t.Errorf("flags %o: %v", flags, got)
		}
	}
}

// Names that a registry, an image or a pod chose are made safe.
func TestUnsafeNames(t *testing.T) {
	for _, name := range []string{"\x1b[31m%s\n" + strings.Repeat("x", 4096), "\xff\xfe", strings.Repeat("%!d(MISSING)", 300)} {
		n := newNode().ingest("1f", layer, time.Hour).heldBy(700, "1f").intent(1, name)
		n.set("proc/700/stat", stat(700, "containerd %\x1b", 1, 9000))
		v := look(n.open(t))
		plugintest.Want(t, v, plugin.Problem, "layer sha256:aaaaaaaaaaaa")
		if plugin.Safe(v.Message, 4096) != v.Message {
			t.Errorf("%q", v.Message)
		}
	}
}

func FuzzIntent(f *testing.F) {
	for _, seed := range []string{`{"kind":"ImagePullIntent","apiVersion":"kubelet.config.k8s.io/v1beta1","image":"secretorg/myimage:customtag"}`,
		`{"kind":"ImagePulledRecord","image":"x"}`, `{"kind":"ImagePullIntent","image":7}`, `[]`, `null`, "{", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if image := intendedImage(b); image != "" && !json.Valid(b) {
			t.Errorf("%q of %q", image, b)
		}
	})
}
