package deploy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"npd-plugins/test/lab"
)

// apiServer is a kube-apiserver without a node.
type apiServer struct {
	url   string
	token string
	http  *http.Client
}

// startAPIServer starts etcd and kube-apiserver on free ports of the loopback interface, until the test ends.
func startAPIServer(t *testing.T) *apiServer {
	t.Helper()
	programs, dir := lab.Kubernetes(t), t.TempDir()
	s := &apiServer{token: rand.Text(), http: &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // kube-apiserver signs its certificate itself
	}}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keyFile, tokens := filepath.Join(dir, "service-accounts.key"), filepath.Join(dir, "tokens.csv")
	for file, content := range map[string][]byte{
		keyFile: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
		tokens:  []byte(s.token + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	client, peer, secure := freePort(t), freePort(t), freePort(t)
	etcd, peerURL := "http://127.0.0.1:"+client, "http://127.0.0.1:"+peer
	start(t, dir, filepath.Join(programs, "etcd"), "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--listen-client-urls="+etcd,
		"--advertise-client-urls="+etcd, "--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	start(t, dir, filepath.Join(programs, "kube-apiserver"), "--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+secure,
		"--cert-dir="+filepath.Join(dir, "apiserver"), "--service-account-issuer=https://lab", "--service-account-key-file="+keyFile,
		"--service-account-signing-key-file="+keyFile, "--token-auth-file="+tokens, "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.214.0.0/24", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none", "--allow-privileged=true")
	s.url = "https://127.0.0.1:" + secure
	lab.Eventually(t, time.Minute, "kube-apiserver has the namespace kube-system", func() bool {
		status, _, err := s.call(t, http.MethodGet, "/api/v1/namespaces/kube-system", nil)
		return err == nil && status == http.StatusOK
	})
	return s
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

func start(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(program)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() // what it holds is thrown away
		cmd.Wait()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", filepath.Base(program), said[max(0, len(said)-2048):])
		}
	})
}

// call returns the status and the body of an answer.
func (s *apiServer) call(t *testing.T, method, path string, body []byte) (int, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), method, s.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/apply-patch+yaml")
	}
	answer, err := s.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(said), err
}

// dryRun is "kubectl apply --server-side --dry-run=server" of one object, with unknown fields forbidden.
func (s *apiServer) dryRun(t *testing.T, document string) error {
	t.Helper()
	var object struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
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
	path += "/" + strings.ToLower(object.Kind) + "s/" + object.Metadata.Name + "?dryRun=All&fieldManager=test&fieldValidation=Strict&force=true"
	status, said, err := s.call(t, http.MethodPatch, path, []byte(document))
	if err == nil && status != http.StatusOK && status != http.StatusCreated {
		err = fmt.Errorf("%s %s: %d %s", object.Kind, object.Metadata.Name, status, said)
	}
	return err
}

// TestAccepted: kube-apiserver takes all that kustomize and Helm make, without a field that it does not know.
func TestAccepted(t *testing.T) {
	s := startAPIServer(t)
	manifests := map[string]string{}
	rights, err := os.ReadFile(filepath.Join(root, "deploy/rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	manifests["deploy/rbac.yaml"] = string(rights)
	for _, profile := range profiles {
		manifests["kustomize "+profile] = mustRender(t, profile)
		if rendered, missing := chart(t, profile); missing == "" {
			manifests["Helm "+profile] = rendered
		}
	}
	for name, text := range manifests {
		for _, document := range objects(t, text) {
			if err := s.dryRun(t, document); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		t.Logf("%s: %d objects", name, len(objects(t, text)))
	}
	broken := strings.Replace(mustRender(t, "core"), "mountPropagation: HostToContainer", "mountPropagation: Host", 1)
	for _, document := range objects(t, broken) {
		if strings.Contains(document, "kind: DaemonSet\n") && s.dryRun(t, document) == nil {
			t.Error("takes a mount propagation that there is not: the test sees nothing")
		}
	}
}
