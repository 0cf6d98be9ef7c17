package main

import (
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
)

// read makes records as the runtime's lists give them.
func read(t *testing.T, sandboxes []*runtime.PodSandbox, containers []*runtime.Container) *records {
	t.Helper()
	r := newRecords()
	for _, s := range sandboxes {
		r.addSandbox(&cri.Sandbox{ID: []byte(s.Id), UID: []byte(s.Metadata.Uid), Name: []byte(s.Metadata.Name), Namespace: []byte(s.Metadata.Namespace),
			State: s.State, CreatedAt: time.Unix(0, s.CreatedAt)})
	}
	for _, c := range containers {
		r.addContainer(&cri.Container{ID: []byte(c.Id), SandboxID: []byte(c.PodSandboxId), Name: []byte(c.Metadata.Name), State: c.State, CreatedAt: time.Unix(0, c.CreatedAt),
			PodUID: []byte(c.Labels["io.kubernetes.pod.uid"]), PodName: []byte(c.Labels["io.kubernetes.pod.name"]), Namespace: []byte(c.Labels["io.kubernetes.pod.namespace"])})
	}
	return r
}
