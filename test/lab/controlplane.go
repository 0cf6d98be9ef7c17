package lab

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// StartControlPlane starts etcd and kube-apiserver and no kubelet: nodes are what Call makes. It needs no root. Everything
// ends with the test, which skips without the programs of Kubernetes.
func StartControlPlane(t testing.TB) *Node {
	t.Helper()
	n := &Node{programs: Kubernetes(t), dir: t.TempDir()}
	n.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // kube-apiserver signs its certificate itself
	}}
	n.startControlPlane(t)
	n.write(t, "kubeconfig", fmt.Sprintf(kubeconfig, n.api, adminToken))
	return n
}

// Kubeconfig is the file with which a member of system:masters calls kube-apiserver.
func (n *Node) Kubeconfig() string { return filepath.Join(n.dir, "kubeconfig") }
