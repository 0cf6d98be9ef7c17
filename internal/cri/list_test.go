package cri

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandbox is a pod sandbox as kubelet's requests make them; every second one is NotReady.
func sandbox(i int, at time.Time) *runtime.PodSandbox {
	uid := fmt.Sprintf("0a3e4f52-9f6b-4c58-8f0e-%012d", i)
	return &runtime.PodSandbox{
		Id:        fmt.Sprintf("%064x", i),
		Metadata:  &runtime.PodSandboxMetadata{Name: fmt.Sprintf("cart-%d", i), Namespace: "shop", Uid: uid, Attempt: uint32(i)},
		State:     runtime.PodSandboxState(i % 2),
		CreatedAt: at.UnixNano(),
		Labels: map[string]string{"app": "cart", "io.kubernetes.pod.name": fmt.Sprintf("cart-%d", i), "io.kubernetes.pod.namespace": "shop",
			"io.kubernetes.pod.uid": uid},
		Annotations:    map[string]string{"kubernetes.io/config.source": "api"},
		RuntimeHandler: "runc",
	}
}

// container is a container of sandbox i.
func container(i int, at time.Time) *runtime.Container {
	return &runtime.Container{
		Id:           fmt.Sprintf("%064x", 1<<20+i),
		PodSandboxId: fmt.Sprintf("%064x", i),
		Metadata:     &runtime.ContainerMetadata{Name: "web", Attempt: uint32(i)},
		Image:        &runtime.ImageSpec{Image: "sha256:" + strings.Repeat("ab", 32)},
		ImageRef:     "sha256:" + strings.Repeat("ab", 32),
		State:        runtime.ContainerState(i % 4),
		CreatedAt:    at.UnixNano(),
		Labels: map[string]string{"io.kubernetes.container.name": "web", "io.kubernetes.pod.name": fmt.Sprintf("cart-%d", i),
			"io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": fmt.Sprintf("0a3e4f52-9f6b-4c58-8f0e-%012d", i)},
		Annotations: map[string]string{"io.kubernetes.container.restartCount": "3"},
	}
}

// A walked item as text, and the same of a decoded one. The numbers of the
// enumeration are written, as a newer runtime may have more than this cri-api.

func (s *Sandbox) text() string {
	return fmt.Sprintf("%q %q %q %q %d %v %d", s.ID, s.Name, s.Namespace, s.UID, s.State, s.CreatedAt, s.Bytes)
}

func sandboxText(s *runtime.PodSandbox) string {
	w := Sandbox{ID: []byte(s.Id), Name: []byte(s.GetMetadata().GetName()), Namespace: []byte(s.GetMetadata().GetNamespace()), UID: []byte(s.GetMetadata().GetUid()),
		State: s.State, CreatedAt: created(uint64(s.CreatedAt)), Bytes: proto.Size(&runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{s}})}
	return w.text()
}

func (c *Container) text() string {
	return fmt.Sprintf("%q %q %q %q %q %q %d %v %d", c.ID, c.SandboxID, c.Name, c.PodUID, c.PodName, c.Namespace, c.State, c.CreatedAt, c.Bytes)
}

func containerText(c *runtime.Container) string {
	w := Container{ID: []byte(c.Id), SandboxID: []byte(c.PodSandboxId), Name: []byte(c.GetMetadata().GetName()),
		PodUID: []byte(c.Labels[LabelPodUID]), PodName: []byte(c.Labels[labelPodName]), Namespace: []byte(c.Labels[LabelNamespace]),
		State: c.State, CreatedAt: created(uint64(c.CreatedAt)), Bytes: proto.Size(&runtime.ListContainersResponse{Containers: []*runtime.Container{c}})}
	return w.text()
}

// walkSandboxes and walkContainers read a reply that came in the given pieces.

func walkSandboxes(pieces ...[]byte) (texts []string, list List, err error) {
	reply := listReply{visit: func(b []byte) error {
		var s Sandbox
		if err := s.decode(b); err != nil {
			return err
		}
		texts = append(texts, s.text())
		return nil
	}}
	err = codec{}.Unmarshal(buffers(pieces), &reply)
	return texts, reply.list, err
}

func walkContainers(pieces ...[]byte) (texts []string, list List, err error) {
	reply := listReply{visit: func(b []byte) error {
		var c Container
		if err := c.decode(b); err != nil {
			return err
		}
		texts = append(texts, c.text())
		return nil
	}}
	err = codec{}.Unmarshal(buffers(pieces), &reply)
	return texts, reply.list, err
}

func buffers(pieces [][]byte) (data mem.BufferSlice) {
	for _, p := range pieces {
		data = append(data, mem.SliceBuffer(p))
	}
	return data
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The walk sees the same items as a full decoding, however the transport cuts the reply.
func TestWalkAgreesWithDecoding(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string { return strings.Repeat("\u00fc/\x00%", random.IntN(60)) }
	var sandboxes runtime.ListPodSandboxResponse
	var containers runtime.ListContainersResponse
	var wantSandboxes, wantContainers []string
	for i := range 300 {
		at := time.Unix(0, random.Int64())
		s, c := sandbox(i, at), container(i, at)
		switch i % 7 {
		case 0:
			s, c = &runtime.PodSandbox{}, &runtime.Container{}
		case 1:
			s.Metadata.Name, c.Metadata.Name, c.Labels["io.kubernetes.pod.name"] = text(), text(), text()
		case 2:
			s.Metadata, c.Metadata, c.Labels = nil, nil, nil
		case 3:
			s.State, c.State, s.CreatedAt, c.CreatedAt = 77, -1, -1, 0
		}
		sandboxes.Items, containers.Containers = append(sandboxes.Items, s), append(containers.Containers, c)
		wantSandboxes, wantContainers = append(wantSandboxes, sandboxText(s)), append(wantContainers, containerText(c))
	}
	pieces := func(b []byte) (pieces [][]byte) {
		for len(b) > 0 {
			n := 1 + random.IntN(min(len(b), 500))
			pieces, b = append(pieces, b[:n]), b[n:]
		}
		return pieces
	}

	b := marshal(t, &sandboxes)
	for _, parts := range [][][]byte{{b}, pieces(b)} {
		got, list, err := walkSandboxes(parts...)
		if err != nil || list != (List{300, len(b)}) {
			t.Errorf("sandboxes: %+v, %v", list, err)
		}
		if diff := cmp.Diff(wantSandboxes, got); diff != "" {
			t.Error(diff)
		}
	}
	b = marshal(t, &containers)
	for _, parts := range [][][]byte{{b}, pieces(b)} {
		got, list, err := walkContainers(parts...)
		if err != nil || list != (List{300, len(b)}) {
			t.Errorf("containers: %+v, %v", list, err)
		}
		if diff := cmp.Diff(wantContainers, got); diff != "" {
			t.Error(diff)
		}
	}
	var count listReply
	if err := count.walk(buffers(pieces(b))); err != nil || count.list.Items != 300 {
		t.Errorf("counted %+v, %v", count.list, err)
	}
}

func TestWalkEmpty(t *testing.T) {
	if texts, list, err := walkContainers(); err != nil || len(texts) != 0 || list != (List{}) {
		t.Errorf("%q, %+v, %v", texts, list, err)
	}
}

// Fields that a newer cri-api may add are passed over.
func TestWalkUnknownFields(t *testing.T) {
	c := container(1, time.Now())
	b := marshal(t, &runtime.ListContainersResponse{Containers: []*runtime.Container{c}})
	more := append([]byte("\x12\x03abc"+"\x18\x96\x01"+"\x25\x01\x02\x03\x04"+"\x29\x01\x02\x03\x04\x05\x06\x07\x08"), b...)
	texts, list, err := walkContainers(more)
	if err != nil || list.Items != 1 || len(texts) != 1 || texts[0] != containerText(c) {
		t.Errorf("%q, %+v, %v", texts, list, err)
	}
}

func TestWalkTruncated(t *testing.T) {
	b := marshal(t, &runtime.ListContainersResponse{Containers: []*runtime.Container{container(1, time.Now())}})
	for n := 1; n < len(b); n++ {
		if texts, _, err := walkContainers(b[:n]); err == nil || len(texts) != 0 {
			t.Fatalf("the first %d of %d bytes: %q, %v", n, len(b), texts, err)
		}
	}
}

func TestWalkGarbage(t *testing.T) {
	for name, reply := range map[string]string{
		"no tag":                          "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"a group":                         "\x0b\x0c",
		"wire type 7":                     "\x0f",
		"longer than the reply":           "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
		"a number without end":            "\x10\xff",
		"text":                            "HTTP/1.1 400 Bad Request\r\n\r\n",
		"an item cut off":                 "\x0a\x02\x0a\x05",
		"an item that is no message":      "\x0a\x01\xff",
		"metadata that is no message":     "\x0a\x03\x1a\x01\xff",
		"a label that is no message":      "\x0a\x03\x42\x01\xff",
		"an item with a number cut off":   "\x0a\x01\x30",
		"an item with a fixed32 cut off ": "\x0a\x02\x4d\x01",
	} {
		if texts, _, err := walkContainers([]byte(reply)); err == nil {
			t.Errorf("%s: %q", name, texts)
		}
	}
	if texts, _, err := walkSandboxes([]byte("\x0a\x03\x12\x01\xff")); err == nil {
		t.Errorf("a sandbox whose metadata is no message: %q", texts)
	}
}

func TestPodOfContainer(t *testing.T) {
	for _, tt := range []struct {
		c    Container
		want string
	}{
		{Container{Namespace: []byte("shop"), PodName: []byte("cart-1")}, "pod shop/cart-1"},
		{Container{}, ""},
		{Container{Namespace: []byte("a\x1b[0m%"), PodName: []byte("b\n\xff")}, "pod a?[0m?/b ?"},
		{Container{Namespace: []byte(strings.Repeat("n", 4096)), PodName: []byte(strings.Repeat("p", 4096))},
			"pod " + strings.Repeat("n", 61) + "../" + strings.Repeat("p", 78) + ".."},
	} {
		if got := tt.c.Pod(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestCodecOtherTypes(t *testing.T) {
	if _, err := (codec{}).Marshal("text"); err == nil {
		t.Error("encoded a string")
	}
	if err := (codec{}).Unmarshal(nil, new(string)); err == nil {
		t.Error("decoded into a string")
	}
}
