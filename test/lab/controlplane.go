package lab

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// StartControlPlane starts etcd and kube-apiserver and no kubelet: nodes are what Call makes. It needs no root. Everything
// ends with the test, which skips without the programs of Kubernetes.
func StartControlPlane(t testing.TB) *Node {
	t.Helper()
	n := &Node{dir: t.TempDir()}
	n.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // kube-apiserver signs its certificate itself
	}}
	n.startControlPlane(t)
	n.write(t, "kubeconfig", fmt.Sprintf(kubeconfig, n.api, adminToken))
	return n
}

// Kubeconfig is the file with which a member of system:masters calls kube-apiserver.
func (n *Node) Kubeconfig() string { return filepath.Join(n.dir, "kubeconfig") }

// ServerSideApply is kubectl's "apply --server-side" of a YAML document with one object, in which no field may be unknown;
// a dry run makes nothing.
func (n *Node) ServerSideApply(document string, dryRun bool) error {
	var object struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
	}
	if err := yaml.Unmarshal([]byte(document), &object); err != nil {
		return err
	}
	path := "/apis/" + object.APIVersion
	if !strings.Contains(object.APIVersion, "/") {
		path = "/api/" + object.APIVersion
	}
	if object.Metadata.Namespace != "" {
		path += "/namespaces/" + object.Metadata.Namespace
	}
	path += "/" + strings.ToLower(object.Kind) + "s/" + object.Metadata.Name + "?fieldManager=test&fieldValidation=Strict&force=true"
	if dryRun {
		path += "&dryRun=All"
	}
	said, status, err := n.send(http.MethodPatch, path, "application/apply-patch+yaml", []byte(document))
	if err == nil && status != http.StatusOK && status != http.StatusCreated {
		err = fmt.Errorf("%s %s: %d %s", object.Kind, object.Metadata.Name, status, said)
	}
	return err
}
