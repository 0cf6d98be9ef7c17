package cri

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func FuzzListReply(f *testing.F) {
	at := time.Unix(1793534400, 0)
	sandboxes := marshal(f, &runtime.ListPodSandboxResponse{Items: []*runtime.PodSandbox{sandbox(1, at), {}, sandbox(2, at)}})
	containers := marshal(f, &runtime.ListContainersResponse{Containers: []*runtime.Container{container(1, at), {}, container(2, at)}})
	for _, seed := range [][]byte{sandboxes, containers, containers[:100], []byte("\x0a\x02\x0a\x05"), []byte("\x0b\x0c"), []byte("\x0a\xff\xff\xff\xff\x0f"), nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		cut := len(b) / 3
		_, sandboxList, sandboxErr := walkSandboxes(b[:cut], b[cut:])
		_, containerList, containerErr := walkContainers(b[:cut], b[cut:])
		if sandboxList.Bytes != len(b) || containerList.Bytes != len(b) {
			t.Errorf("weighed %d and %d of %d bytes", sandboxList.Bytes, containerList.Bytes, len(b))
		}

		// Where a full decoding succeeds too it has as many items. What a runtime would have sent for it, without the
		// fields and wire types that the API does not have, reads the same item by item.
		known := proto.UnmarshalOptions{DiscardUnknown: true}
		var s runtime.ListPodSandboxResponse
		if known.Unmarshal(b, &s) == nil {
			if sandboxErr == nil && sandboxList.Items != len(s.Items) {
				t.Errorf("%d sandboxes, decoded %d", sandboxList.Items, len(s.Items))
			}
			var want []string
			for _, item := range s.Items {
				want = append(want, sandboxText(item))
			}
			got, _, err := walkSandboxes(marshal(t, &s))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		}
		var c runtime.ListContainersResponse
		if known.Unmarshal(b, &c) == nil {
			if containerErr == nil && containerList.Items != len(c.Containers) {
				t.Errorf("%d containers, decoded %d", containerList.Items, len(c.Containers))
			}
			var want []string
			for _, item := range c.Containers {
				want = append(want, containerText(item))
			}
			got, _, err := walkContainers(marshal(t, &c))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		}
	})
}
