//go:build tools

// Package e2e names the programs of a Kubernetes node that the tests run: a
// module of its own, so that what they need is not what the checks need, and
// so that each is built of exactly what its release names. The kubelet of the
// release before is a module below.
// Package lab builds and starts them; see lab.StartNode.
package e2e

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
