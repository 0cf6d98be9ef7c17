package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// server is a kube-apiserver that answers one node, and keeps who asked.
type server struct {
	*httptest.Server
	ca, certificate, key string // PEM; the client's certificate is of the CA
	header               http.Header
	peer                 string // common name of the client's certificate
	answers              []func(http.ResponseWriter)
	requests             []string
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewUnstartedServer(s)
	s.certificate, s.key = newCertificate(t)
	s.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: x509.NewCertPool()}
	s.TLS.ClientCAs.AppendCertsFromPEM([]byte(s.certificate))
	s.StartTLS()
	t.Cleanup(s.Close)
	s.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	return s
}

func newCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "admin"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.header, s.peer = r.Header, ""
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		s.peer = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	s.requests = append(s.requests, r.Method+" "+r.URL.String())
	if len(s.answers) > 0 {
		answer := s.answers[0]
		s.answers = s.answers[1:]
		answer(w)
		return
	}
	fmt.Fprint(w, `{"metadata": {"name": "node-1", "resourceVersion": "7"}, "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "x": 1}]}}`)
}

func says(code int, text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}
}

// config writes a kubeconfig and returns its path. The words of cluster and user are YAML in braces.
func config(t *testing.T, cluster, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: one
contexts: [{name: one, context: {cluster: here, user: me}}, {name: nobody, context: {cluster: here, user: none}}, {name: lost, context: {cluster: none}}]
clusters: [{name: other, cluster: {server: "https://other.invalid"}}, {name: here, cluster: {%s}}]
users: [{name: other, user: {token: wrong}}, {name: me, user: {%s}}]
`, cluster, user)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *server) trusted() string {
	return fmt.Sprintf(`server: "%s", certificate-authority-data: %s`, s.URL, base64.StdEncoding.EncodeToString([]byte(s.ca)))
}

func TestLogIn(t *testing.T) {
	s := newServer(t)
	dir := t.TempDir()
	for name, content := range map[string]string{"ca.crt": s.ca, "me.crt": s.certificate, "me.key": s.key, "token": "from-file\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	tests := []struct{ name, cluster, user, bearer, peer string }{
		{"token", s.trusted(), `token: secret`, "Bearer secret", ""},
		{"token in a file", s.trusted(), `token: old, tokenFile: token`, "Bearer from-file", ""},
		{"certificate", s.trusted(), `client-certificate-data: ` + b64(s.certificate) + `, client-key-data: ` + b64(s.key), "", "admin"},
		{"certificate in files", `server: "` + s.URL + `", certificate-authority: ca.crt`, `client-certificate: me.crt, client-key: ` + dir + `/me.key`, "", "admin"},
		{"anybody", s.trusted(), ``, "", ""},
		{"insecure", `server: "` + s.URL + `", insecure-skip-tls-verify: true`, `token: secret`, "Bearer secret", ""},
		{"other name of the server", s.trusted() + `, tls-server-name: example.com`, `token: secret`, "Bearer secret", ""},
		{"path before the API", `server: "` + s.URL + `/below/it/", insecure-skip-tls-verify: true`, `token: secret`, "Bearer secret", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := config(t, test.cluster, test.user)
			moved := filepath.Join(dir, "kubeconfig")
			if err := os.Rename(path, moved); err != nil {
				t.Fatal(err)
			}
			c, err := Load(moved, "")
			if err != nil {
				t.Fatal(err)
			}
			node, err := c.Node(t.Context(), "node-1")
			if err != nil || node.Name != "node-1" || node.Version != "7" || len(node.Conditions) != 1 || node.Conditions[0] != (Condition{"Ready", "True", "KubeletReady"}) {
				t.Errorf("%+v, %v", node, err)
			}
			if got := s.header.Get("Authorization"); got != test.bearer || s.peer != test.peer {
				t.Errorf("logged in with %q and certificate of %q", got, s.peer)
			}
		})
	}
	if last := s.requests[len(s.requests)-1]; last != "GET /below/it/api/v1/nodes/node-1" {
		t.Error(last)
	}
}

func TestNoTrustNoCall(t *testing.T) {
	s := newServer(t)
	other := config(t, fmt.Sprintf(`server: "%s", certificate-authority-data: %s`, s.URL, base64.StdEncoding.EncodeToString([]byte(s.certificate))), "token: secret")
	for _, path := range []string{other, config(t, `server: "`+s.URL+`"`, "token: secret"), config(t, s.trusted()+", tls-server-name: other.invalid", "token: secret")} {
		c, err := Load(path, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Node(t.Context(), "node-1"); err == nil || !strings.Contains(err.Error(), "certificate") || len(s.requests) > 0 {
			t.Errorf("%v, %d requests", err, len(s.requests))
		}
	}
}

// TestNoSecretInTheClear: over http a token is not sent.
func TestNoSecretInTheClear(t *testing.T) {
	s := &server{}
	plain := httptest.NewServer(s)
	defer plain.Close()
	c, err := Load(config(t, `server: "`+plain.URL+`"`, "token: secret"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Node(t.Context(), "node-1"); err != nil || s.header.Get("Authorization") != "" {
		t.Errorf("%v, logged in with %q", err, s.header.Get("Authorization"))
	}
}

func TestLoadRefuses(t *testing.T) {
	const server = `server: "https://127.0.0.1:1"`
	for user, want := range map[string]string{
		`exec: {command: login, apiVersion: client.authentication.k8s.io/v1}`: "exec plugin",
		`auth-provider: {name: x}`:       "auth-provider",
		`username: me, password: secret`: "password",
		`token: x, as: other`:            "somebody else",
	} {
		_, err := Load(config(t, server, user), "")
		if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", user, err)
		}
	}
	for _, test := range []struct{ cluster, user, context, want string }{
		{server, ``, "none", `no context "none"`},
		{server, ``, "lost", `names a cluster "none"`},
		{``, ``, "", `server "" is no URL`},
		{`server: "127.0.0.1:1"`, ``, "", "is no URL"},
		{server + `, certificate-authority: none.crt`, ``, "", "none.crt: no such file"},
		{server + `, certificate-authority-data: bm9uZQ==`, ``, "", "no certificate"},
		{server + `, proxy-url: "://"`, ``, "", "proxy-url"},
		{server, `tokenFile: none`, "", "none: no such file"},
		{server, `client-certificate-data: bm9uZQ==, client-key-data: c2VjcmV0`, "", "client certificate"},
		{server, `client-certificate-data: bm9uZQ==, client-key: none.key`, "", "none.key: no such file"},
		{server, `token: [secret]`, "", "not a kubeconfig"},
	} {
		_, err := Load(config(t, test.cluster, test.user), test.context)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", test, err)
		}
	}
	if _, err := Load("none", ""); err == nil || err.Error() != "none: no such file or directory" {
		t.Error(err)
	}
	if _, err := Load(config(t, server, ``), "nobody"); err != nil {
		t.Errorf("a context whose user is not there: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	s := newServer(t)
	c, err := Load(config(t, s.trusted(), "token: secret"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		{says(403, `{"kind": "Status", "message": "nodes is forbidden"}`), "kube-apiserver says 403: nodes is forbidden"},
		{says(500, `oops`), "kube-apiserver says 500: Internal Server Error"},
		{says(302, ``), "kube-apiserver says 302: Found"},
		{says(200, `{`), "read the answer to GET /api/v1/nodes/node-1: unexpected EOF"},
	} {
		s.answers = append(s.answers, test.answer)
		if _, err := c.Node(t.Context(), "node-1"); err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	// A busy server is asked again.
	s.answers = []func(http.ResponseWriter){says(429, "{}")}
	if node, err := c.Node(t.Context(), "node-1"); err != nil || node.Name != "node-1" {
		t.Errorf("%+v, %v", node, err)
	}
}

func TestPages(t *testing.T) {
	s := newServer(t)
	c, err := Load(config(t, s.trusted(), "token: secret"), "")
	if err != nil {
		t.Fatal(err)
	}
	s.answers = []func(http.ResponseWriter){
		says(200, `{"metadata": {"continue": "a+b"}, "items": [{"metadata": {"name": "node-1"}}, {"metadata": {"name": "node-2"}}]}`),
		says(200, `{"metadata": {}, "items": [{"metadata": {"name": "node-3"}}]}`),
	}
	nodes, err := c.Nodes(t.Context())
	if err != nil || len(nodes) != 3 || nodes[2].Name != "node-3" {
		t.Errorf("%+v, %v", nodes, err)
	}
	if got := strings.Join(s.requests, " "); got != "GET /api/v1/nodes?limit=250 GET /api/v1/nodes?continue=a%2Bb&limit=250" {
		t.Error(got)
	}
}

func TestRemoval(t *testing.T) {
	if got := string(Removal([]string{"A", "B"}, "")); got != `{"status":{"conditions":[{"$patch":"delete","type":"A"},{"$patch":"delete","type":"B"}]}}` {
		t.Error(got)
	}
	if got := string(Removal([]string{"A"}, "7")); got != `{"metadata":{"resourceVersion":"7"},"status":{"conditions":[{"$patch":"delete","type":"A"}]}}` {
		t.Error(got)
	}
}
