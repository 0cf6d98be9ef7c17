package main

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
)

// serve answers at a socket until the test ends.
func serve(t *testing.T, socket string, server runtime.RuntimeServiceServer) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	grpcServer := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(grpcServer, server)
	go grpcServer.Serve(listener)
	t.Cleanup(grpcServer.Stop)
}

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
