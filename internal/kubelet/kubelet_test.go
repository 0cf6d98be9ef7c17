package kubelet_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/kubelet"
	"npd-plugins/internal/kubelet/kubelettest"
)

var loopback = []net.IP{net.IPv4(127, 0, 0, 1)}

// ask asks the server for a path, on a host with that tree.
func ask(t *testing.T, tree hosttest.Tree, path string, args ...string) (string, error) {
	t.Helper()
	client, err := kubelettest.Access(t, args...).Open(tree.Open(t))
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	b, err := client.Get(ctx, path)
	return string(b), err
}

func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), kubelettest.Token) {
		t.Errorf("the error tells the token: %v", err)
	}
}

func TestGet(t *testing.T) {
	s := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, r.URL.Path) })
	got, err := ask(t, nil, "/configz", s.Flags()...)
	if want := "GET/configz"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	// The token is that of the moment.
	if err := os.WriteFile(s.TokenFile, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = ask(t, nil, "/configz", s.Flags()...)
	wantError(t, err, "401", "--token-file", s.TokenFile, "authentication.webhook")
	_, err = ask(t, nil, "/configz", append(s.Flags(), "--token-file=")...)
	wantError(t, err, "401", "--token-file")
}

func TestRefusals(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("followed to %s with %q", r.URL, r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	tests := []struct {
		name, path string
		handler    http.HandlerFunc
		words      []string
	}{
		{"403 of metrics", "/metrics", status(403), []string{"403", "get nodes/metrics", "deploy/rbac.yaml"}},
		{"403 of probes", "/metrics/probes", status(403), []string{"get nodes/metrics"}},
		{"403 of configz", "/configz", status(403), []string{"get nodes/configz (before Kubernetes 1.33 get nodes/proxy)"}},
		{"403 of stats", "/stats/summary", status(403), []string{"get nodes/stats"}},
		{"404", "/metrics", status(404), []string{"404", "--kubelet"}},
		{"500", "/metrics", status(500), []string{"500"}},
		{"redirect", "/metrics", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
			[]string{"redirect (302)", "--kubelet"}},
		{"too long", "/configz", func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, zeros(5<<20)) }, []string{"longer than 4194304 bytes"}},
		{"broken off", "/configz", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, []string{"breaks off"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := kubelettest.Serve(t, tt.handler)
			_, err := ask(t, nil, tt.path, s.Flags()...)
			wantError(t, err, tt.words...)
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// zeros reads n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func TestNoConnection(t *testing.T) {
	plain := httptest.NewServer(status(200))
	defer plain.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	s := kubelettest.Serve(t, status(200))
	for _, tt := range []struct {
		address string
		words   []string
	}{
		{strings.TrimPrefix(plain.URL, "http://"), []string{"does not speak HTTPS", "--kubelet"}},
		{gone.Addr().String(), []string{"connection refused", "kubelet is down", "--kubelet"}},
	} {
		_, err := ask(t, nil, "/metrics", append(s.Flags(), "--kubelet="+tt.address)...)
		wantError(t, err, append(tt.words, tt.address)...)
	}
}

func TestOpen(t *testing.T) {
	s := kubelettest.Serve(t, status(200))
	dir := t.TempDir()
	empty, binary := filepath.Join(dir, "empty"), filepath.Join(dir, "binary")
	for path, content := range map[string]string{empty: "\n", binary: "a\r\nHost: b"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("NODE_IP", "")
	for _, tt := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"no address", s.Flags()[1:], []string{"NODE_IP", "--kubelet"}},
		{"no token", []string{"--token-file=/no/token"}, []string{"/no/token", "mount", "--token-file"}},
		{"empty token", []string{"--token-file=" + empty}, []string{"holds no token", "--token-file"}},
		{"no token at all", []string{"--token-file=" + binary}, []string{"holds no token"}},
		{"no CA", []string{"--ca-file=/no/ca"}, []string{"/no/ca", "--ca-file"}},
		{"no certificate in the CA", []string{"--ca-file=" + empty}, []string{"no certificate in " + empty, "--ca-file"}},
	} {
		args := tt.args
		if tt.name != "no address" {
			args = append(s.Flags(), args...)
		}
		_, err := ask(t, nil, "/", args...)
		wantError(t, err, tt.words...)
	}
}

func TestAddress(t *testing.T) {
	t.Setenv("NODE_IP", "fd00::7")
	for arg, want := range map[string]string{
		"": "[fd00::7]:10250", "10.0.0.7": "10.0.0.7:10250", "10.0.0.7:1": "10.0.0.7:1", "node-1": "node-1:10250",
		"::1": "[::1]:10250", "[::1]": "[::1]:10250", "[::1]:7": "[::1]:7",
	} {
		access := new(kubelet.Access)
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		access.Define(fs)
		if arg != "" {
			if err := fs.Parse([]string{"--kubelet=" + arg}); err != nil {
				t.Errorf("%q: %v", arg, err)
			}
		}
		if got := fs.Lookup("kubelet").Value.String(); got != want {
			t.Errorf("%q: %q, want %q", arg, got, want)
		}
	}
	for _, arg := range []string{"", "https://10.0.0.7:10250", "a/b", "10.0.0.7:", "10.0.0.7:x", "10.0.0.7:70000", ":10250", "a:b:c", "user@node"} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		new(kubelet.Access).Define(fs)
		if fs.Parse([]string{"--kubelet=" + arg}) == nil {
			t.Errorf("%q is taken", arg)
		}
	}
}

func TestTrust(t *testing.T) {
	yesterday := time.Now().Add(-24 * time.Hour)
	const own = "var/lib/kubelet/pki/kubelet.crt"
	tests := []struct {
		name    string
		names   kubelettest.Names
		own     bool // the host has it as its own
		k3s     bool // the host has it where k3s puts it
		foreign bool // the host has another as its own
		ca      bool // --ca-file has who signed it
		node    string
		args    []string
		words   []string // of the error
	}{
		{name: "signed for the address", names: kubelettest.Names{IPs: loopback}, ca: true},
		{name: "signed for the node", names: kubelettest.Names{DNS: []string{"node-1"}}, ca: true, node: "node-1"},
		{name: "signed for a name", names: kubelettest.Names{DNS: []string{"node-1.example"}}, ca: true, args: []string{"--server-name=node-1.example"}},
		{name: "signed for another", names: kubelettest.Names{DNS: []string{"node-2"}}, ca: true, node: "node-1", words: []string{"not for 127.0.0.1 or node-1 but for node-2", "--server-name"}},
		{name: "the name counts alone", names: kubelettest.Names{IPs: loopback}, ca: true, node: "node-1", args: []string{"--server-name=x"}, words: []string{"not for x but for 127.0.0.1"}},
		{name: "the node's own, of any name", names: kubelettest.Names{DNS: []string{"ip-10-0-0-7"}}, own: true, node: "node-1"},
		{name: "the node's own, of k3s", names: kubelettest.Names{DNS: []string{"k3s-1"}}, k3s: true, node: "node-1"},
		{name: "nobody knows it", names: kubelettest.Names{IPs: loopback}, words: []string{"signed by nobody", "kubelet.crt", "mount", "--ca-file"}},
		{name: "not the node's own", names: kubelettest.Names{IPs: loopback}, foreign: true, words: []string{"signed by nobody", "nor is it the node's own", "--ca-file"}},
		{name: "another CA", names: kubelettest.Names{IPs: loopback}, own: true, args: []string{"--ca-file=OTHER"}, words: []string{"signed by nobody", "--ca-file"}},
		{name: "expired", names: kubelettest.Names{IPs: loopback, NotAfter: yesterday}, ca: true, words: []string{"valid from", "to " + yesterday.UTC().Format(time.DateOnly), "--insecure-skip-tls-verify"}},
		{name: "expired, the node's own", names: kubelettest.Names{IPs: loopback, NotAfter: yesterday}, own: true, words: []string{"valid from"}},
		{name: "anything goes", names: kubelettest.Names{NotAfter: yesterday}, args: []string{"--insecure-skip-tls-verify"}},
	}
	_, other := kubelettest.Certificate(t, kubelettest.Names{IPs: loopback})
	otherFile := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(otherFile, other, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NODE_NAME", tt.node)
			pair, bundle := kubelettest.Certificate(t, tt.names)
			s := kubelettest.ServeAs(t, pair, bundle, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") })
			args := []string{"--kubelet=" + s.Address, "--token-file=" + s.TokenFile}
			if tt.ca {
				args = append(args, "--ca-file="+s.CAFile)
			}
			for _, arg := range tt.args {
				args = append(args, strings.ReplaceAll(arg, "OTHER", otherFile))
			}
			tree := hosttest.Tree{}
			if tt.own {
				tree[own] = string(bundle)
			}
			if tt.k3s {
				tree["var/lib/rancher/k3s/agent/serving-kubelet.crt"] = string(bundle)
			}
			if tt.foreign {
				tree[own] = string(other)
			}
			got, err := ask(t, tree, "/", args...)
			if tt.words != nil {
				wantError(t, err, tt.words...)
			} else if err != nil || got != "page" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// metrics reads the page that the server has, and returns the lines with name.
func metrics(t *testing.T, patience time.Duration, handler http.HandlerFunc) (n int, err error) {
	t.Helper()
	s := kubelettest.Serve(t, handler)
	client, err := kubelettest.Access(t, s.Flags()...).Open(hosttest.Tree{}.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	err = client.Metrics(ctx, patience, []string{"a"}, func(kubelet.Sample) error { n++; return nil })
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
	return n, err
}

func TestMetricsThatDoNotEnd(t *testing.T) {
	const soon = 100 * time.Millisecond
	n, err := metrics(t, time.Second, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "# HELP a\na 1\nb 2\na{x=\"y\"} 3") })
	if n != 2 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
	_, err = metrics(t, soon, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if !errors.Is(err, kubelet.ErrSilent) {
		t.Errorf("a kubelet that is silent: %v", err)
	}
	_, err = metrics(t, time.Minute, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if !errors.Is(err, kubelet.ErrSilent) {
		t.Errorf("a kubelet that is silent for longer than there is time: %v", err)
	}
	_, err = metrics(t, soon, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(w, "b")
			w.(http.Flusher).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	})
	wantError(t, err, "does not end within --timeout")
	_, err = metrics(t, soon, func(w http.ResponseWriter, r *http.Request) {
		line := []byte(strings.Repeat("b 1\n", 1<<14))
		for r.Context().Err() == nil {
			w.Write(line)
		}
	})
	wantError(t, err, "longer than 64 MiB")
}

// A kubelet whose page waits for the runtime answers what needs none.
func TestAnswers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    bool
	}{
		"page":   {status(200), true},
		"refuse": {status(403), true},
		"hang":   {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
	} {
		s := kubelettest.Serve(t, tt.handler)
		client, err := kubelettest.Access(t, s.Flags()...).Open(hosttest.Tree{}.Open(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := client.Answers(ctx); got != tt.want && (name == "hang" || ctx.Err() == nil) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
