package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Of names the containers of a pod by the label that kubelet gives them.
func Of(podUID string) *runtime.ContainerFilter {
	return &runtime.ContainerFilter{LabelSelector: map[string]string{LabelPodUID: podUID}}
}

// Started says whether a container has ever run: one that was killed between
// create and start has exited and has not.
func (c *Client) Started(ctx context.Context, id string) (bool, error) {
	var reply runtime.ContainerStatusResponse
	err := c.call(ctx, "ContainerStatus", &runtime.ContainerStatusRequest{ContainerId: id}, &reply)
	return reply.GetStatus().GetStartedAt() > 0, err
}
