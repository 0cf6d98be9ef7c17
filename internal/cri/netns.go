package cri

import (
	"context"
	"encoding/json"
	"path"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NetworkNamespace is the path on the host of the network namespace that the
// runtime made for a sandbox, whether or not it is still there; "" when the
// sandbox uses the host's network or the runtime does not tell. containerd and
// CRI-O tell it among the details of the sandbox, as part of the specification
// that they handed to the OCI runtime; cri-dockerd does not.
func (c *Client) NetworkNamespace(ctx context.Context, sandbox string) (string, error) {
	var reply runtime.PodSandboxStatusResponse
	if err := c.call(ctx, "PodSandboxStatus", &runtime.PodSandboxStatusRequest{PodSandboxId: sandbox, Verbose: true}, &reply); err != nil {
		return "", err
	}
	return networkNamespace(reply.Info["info"]), nil
}

// networkNamespace reads the path from the details, "" when they are none.
func networkNamespace(info string) string {
	var details struct {
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct{ Type, Path string }
			}
		}
	}
	if json.Unmarshal([]byte(info), &details) != nil {
		return ""
	}
	for _, n := range details.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" && path.IsAbs(n.Path) {
			return path.Clean(n.Path)
		}
	}
	return ""
}
