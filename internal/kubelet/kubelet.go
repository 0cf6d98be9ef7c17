// Package kubelet asks the node's kubelet over its HTTPS port, with the
// service account's token and a checked certificate, and reads its metrics as
// they come, without holding the page.
package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"npd-plugins/internal/host"
)

const (
	port           = "10250" // kubelet's --port, k8s.io/kubernetes/pkg/cluster/ports.KubeletPort
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

	maxToken  = 64 << 10 // bytes of a token file
	maxAnswer = 4 << 20  // bytes of an answer that Get returns whole
	maxPage   = 64 << 20 // bytes of a page of metrics; a node with 250 pods has some 5 MiB
)

// Access is how kubelet is reached and trusted, as flags say it.
type Access struct {
	address    address
	tokenFile  string
	caFile     string
	serverName string
	insecure   bool
}

// Define defines the flags of an Access.
func (a *Access) Define(fs *flag.FlagSet) {
	a.address.Set(os.Getenv("NODE_IP")) // what is no address is told when it is asked
	fs.Var(&a.address, "kubelet", "`address` of kubelet, with or without a port; the default is $NODE_IP, port "+port)
	fs.StringVar(&a.tokenFile, "token-file", serviceAccount+"token", "`file` with the token for kubelet; empty asks without one")
	fs.StringVar(&a.caFile, "ca-file", "", "`file` with the certificates that sign kubelet's; the default is the service account's, and what kubelet has signed itself in "+ownCertificate+" of the host")
	fs.StringVar(&a.serverName, "server-name", "", "`name` in kubelet's certificate; the default is its address or $NODE_NAME")
	fs.BoolVar(&a.insecure, "insecure-skip-tls-verify", false, "do not check kubelet's certificate: whoever has its address gets the token")
}

// address is the flag --kubelet, kept as host:port.
type address string

func (a *address) String() string { return string(*a) }

func (a *address) Set(s string) error {
	name, number, err := net.SplitHostPort(s)
	if err != nil {
		name, number = strings.Trim(s, "[]"), port
	}
	if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 || name == "" || strings.ContainsAny(name, "/[]%@ ") || strings.Contains(name, ":") && net.ParseIP(name) == nil {
		return errors.New("want a host or host:port, such as 10.0.0.7 or [fd00::7]:10250")
	}
	*a = address(net.JoinHostPort(name, number))
	return nil
}

// ErrSilent says that kubelet took the request and has not answered it.
var ErrSilent = errors.New("kubelet does not answer")

// Client asks one kubelet. Each request has a connection of its own.
type Client struct {
	address   string
	tokenFile string
	token     string
	transport *http.Transport
}

// Open reads the token, which others renew, and the certificates.
func (a *Access) Open(h *host.Root) (*Client, error) {
	if a.address == "" {
		return nil, errors.New("no address of kubelet: set NODE_IP (in a pod from status.hostIP), or --kubelet")
	}
	c := &Client{address: string(a.address), tokenFile: a.tokenFile}
	if a.tokenFile != "" {
		token, err := readToken(a.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("no token for kubelet: %w: mount the service account's, or set --token-file", err)
		}
		c.token = token
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} // trust checks instead
	if !a.insecure {
		t, err := a.trust(h)
		if err != nil {
			return nil, err
		}
		config.VerifyConnection = t.verify
	}
	c.transport = &http.Transport{
		TLSClientConfig:    config,
		TLSNextProto:       map[string]func(string, *tls.Conn) http.RoundTripper{}, // HTTP/1.1: there is one request
		DisableKeepAlives:  true,
		DisableCompression: true, // costs both sides more CPU than the bytes on a loopback
	}
	return c, nil
}

// readToken reads a token, without the white space around it.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", fmt.Errorf("%s holds no token", path)
		}
	}
	if token == "" || len(b) > maxToken {
		return "", fmt.Errorf("%s holds no token", path)
	}
	return token, nil
}

// Get returns what kubelet answers to a GET of the path ("/configz"), or fails
// when that is more than 4 MiB. Errors say which right, file or flag is missing.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	body, err := c.request(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("kubelet's %s breaks off: %w", path, reason(ctx, err))
	}
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("kubelet's %s is longer than %d bytes", path, maxAnswer)
	}
	return b, nil
}

// Metrics calls each for those lines of kubelet's /metrics that have one of
// the names, in their order. The error is ErrSilent when kubelet has taken the
// request and answers nothing within patience, which also ends with ctx.
//
// That happens when the container runtime hangs: before kubelet writes a byte
// it asks the runtime for the sizes of all containers' logs
// (pkg/kubelet/metrics/collectors/log_metrics.go, 1.18 and later).
func (c *Client) Metrics(ctx context.Context, patience time.Duration, names []string, each func(Sample) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	given := time.AfterFunc(patience, cancel)
	body, err := c.request(ctx, "/metrics")
	if err != nil {
		return err
	}
	defer body.Close()
	if !given.Stop() {
		return ErrSilent
	}
	if err := Read(io.LimitReader(body, maxPage+1), names, each); err != nil {
		return fmt.Errorf("kubelet's /metrics: %w", reason(ctx, err))
	}
	return nil
}

// Answers says whether kubelet answers a request that it needs no container
// runtime for.
func (c *Client) Answers(ctx context.Context) bool {
	body, err := c.request(ctx, "/metrics/probes")
	if err == nil {
		body.Close()
		return true
	}
	var refused *statusError
	return errors.As(err, &refused)
}

// request returns the body of the answer to a GET of the path.
func (c *Client) request(ctx context.Context, path string) (io.ReadCloser, error) {
	var asked atomic.Bool
	trace := &httptrace.ClientTrace{WroteRequest: func(w httptrace.WroteRequestInfo) { asked.Store(w.Err == nil) }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodGet, "https://"+c.address+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "npd-plugins")
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.transport.RoundTrip(r) // and not http.Client, which would follow a redirect
	switch {
	case err != nil && ctx.Err() != nil && asked.Load():
		return nil, ErrSilent
	case err != nil:
		return nil, c.explain(ctx, err)
	case answer.StatusCode == http.StatusOK:
		return answer.Body, nil
	}
	answer.Body.Close()
	return nil, c.refusal(path, answer.StatusCode)
}

// explain says what is wrong with a connection.
func (c *Client) explain(ctx context.Context, err error) error {
	var plain tls.RecordHeaderError
	var broken *certificateError
	switch {
	case errors.As(err, &broken):
		return broken
	case errors.As(err, &plain), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return fmt.Errorf("%s does not speak HTTPS: kubelet's port for --kubelet is %s", c.address, port)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s (%w): kubelet is down, or --kubelet is not its address", c.address, syscall.ECONNREFUSED)
	case ctx.Err() != nil:
		return fmt.Errorf("no connection to %s: is --kubelet its address, and does a network policy or firewall forbid it?", c.address)
	}
	return fmt.Errorf("no connection to %s (--kubelet): %w", c.address, err)
}

// statusError is an answer that is no page.
type statusError struct{ text string }

func (e *statusError) Error() string { return e.text }

func (c *Client) refusal(path string, status int) error {
	text := fmt.Sprintf("kubelet at %s (--kubelet) answers %s with status %d", c.address, path, status)
	switch {
	case status == http.StatusUnauthorized && c.token == "":
		text = "kubelet wants a token (401): set --token-file"
	case status == http.StatusUnauthorized:
		text = fmt.Sprintf("kubelet does not accept the token of %s (401): is it expired (--token-file), and is authentication.webhook enabled in kubelet's configuration?", c.tokenFile)
	case status == http.StatusForbidden:
		text = fmt.Sprintf("kubelet forbids the service account to read %s (403): it needs the RBAC rule %s, see deploy/rbac.yaml", path, rule(path))
	case status >= 300 && status < 400:
		text = fmt.Sprintf("%s answers %s with a redirect (%d), which no kubelet does: --kubelet must be its address", c.address, path, status)
	}
	return &statusError{text}
}

// rule is what the service account must be allowed for a path:
// pkg/kubelet/server/auth.go. Since 1.33 (KubeletFineGrainedAuthz) /configz is
// nodes/configz; before, and still then, nodes/proxy, which may run commands in
// all pods.
func rule(path string) string {
	switch {
	case strings.HasPrefix(path, "/metrics"):
		return "get nodes/metrics"
	case strings.HasPrefix(path, "/stats"):
		return "get nodes/stats"
	case path == "/configz":
		return "get nodes/configz (before Kubernetes 1.33 get nodes/proxy)"
	}
	return "get nodes/proxy"
}

// reason says what a reader's error means that comes of a context.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("it does not end within --timeout")
	}
	return err
}
