package cri

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/test/lab"
)

// namespaceInfo is what containerd tells of a sandbox, cut to what is read and its neighbours.
const namespaceInfo = `{"pid":0,"processStatus":"deleted","netNamespaceClosed":false,"image":"localhost/pause:1","runtimeSpec":{"ociVersion":"1.0.2-dev",` +
	`"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/cni-7d6f3c1a-4c5e-9a5d-4a0e-2f1f6f1b9d11"},{"type":"mount"}]}}}`

func TestNetworkNamespace(t *testing.T) {
	for info, want := range map[string]string{
		namespaceInfo: "/var/run/netns/cni-7d6f3c1a-4c5e-9a5d-4a0e-2f1f6f1b9d11",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"/var/run/netns/../../etc/x"}]}}}`: "/var/etc/x",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network"}]}}}`:                                     "",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":"proc/1"}]}}}`:                     "",
		`{"runtimeSpec":{"linux":{"namespaces":[{"type":"pid","path":"/x"}]}}}`:                             "",
		`{"runtimeSpec":{"linux":{"namespaces":{}}}}`:                                                       "",
		`{"runtimeSpec":null}`: "",
		`[]`:                   "",
		`{`:                    "",
		"":                     "",
	} {
		if got := networkNamespace(info); got != want {
			t.Errorf("%s: %q, want %q", info, got, want)
		}
	}
}

// details is a runtime that tells of one sandbox, when it is asked for details.
type details struct{ lab.FakeCRI }

func (*details) PodSandboxStatus(_ context.Context, r *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	if r.PodSandboxId != "abc" || !r.Verbose {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &runtime.PodSandboxStatusResponse{Info: map[string]string{"info": namespaceInfo}}, nil
}

func TestNetworkNamespaceOfRuntime(t *testing.T) {
	root := lab.ShortDir(t)
	lab.ServeCRI(t, lab.Listen(t, root, "run/crio/crio.sock"), "v1alpha2", new(details))
	c, err := connect(t, root, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if path, err := c.NetworkNamespace(t.Context(), "abc"); err != nil || path != "/var/run/netns/cni-7d6f3c1a-4c5e-9a5d-4a0e-2f1f6f1b9d11" {
		t.Errorf("%q, %v", path, err)
	}
	if path, err := c.NetworkNamespace(t.Context(), "def"); status.Code(err) != codes.NotFound || path != "" {
		t.Errorf("%q, %v", path, err)
	}
}

func FuzzNetworkNamespace(f *testing.F) {
	f.Add(namespaceInfo)
	f.Add(`{"runtimeSpec":{"linux":{"namespaces":[{"type":"network","path":1}]}}}`)
	f.Fuzz(func(t *testing.T, info string) {
		if path := networkNamespace(info); path != "" && path[0] != '/' {
			t.Errorf("%q", path)
		}
	})
}
