package contract

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/kubelet/kubelettest"
	"npd-plugins/internal/npd"
)

// readsMetrics says whether the check lives on kubelet's metrics.
func (c check) readsMetrics() bool { return strings.Contains(c.help, ":10250/metrics") }

// silentKubelet returns the arguments for a look at a server that accepts connections and says nothing.
func silentKubelet(t *testing.T) []string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return []string{"--kubelet=" + listener.Addr().String(), "--token-file=", "--insecure-skip-tls-verify"}
}

func TestKubelet(t *testing.T) {
	eachCheck(t, check.readsMetrics, func(t *testing.T, c check) {
		root := healthyRoot(t, "v2")
		look := func(t *testing.T, handler http.HandlerFunc, more ...string) npd.PluginResult {
			t.Helper()
			return c.run(t, c.on(root, append(kubelettest.Serve(t, handler).Flags(), more...)...)...)
		}
		for _, version := range kubelettest.Versions {
			page := kubelettest.Page(t, version, "kubelet_pleg_last_seen_seconds", fmt.Sprint(time.Now().Unix()))
			if r := look(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) }); r.Status != npd.OK {
				t.Errorf("kubelet %s: %v: %s", version, r.Status, r.Message)
			}
		}
		filler := strings.Repeat("kubelet_container_log_filesystem_used_bytes{container=\"app\",namespace=\"production\"} 4096\n", 1000)
		for name, tt := range map[string]struct {
			handler http.HandlerFunc
			want    string
		}{
			"401":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, "401"},
			"403":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "get nodes/metrics"},
			"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "redirect"},
			"100 MB": {func(w http.ResponseWriter, _ *http.Request) {
				for n := 0; n < 100e6; n += len(filler) {
					io.WriteString(w, filler)
				}
			}, "longer than 64 MiB"},
			"never ends": {func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					io.WriteString(w, filler)
				}
			}, "longer than 64 MiB|--timeout"},
			"one byte per second": {func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					io.WriteString(w, "#")
					w.(http.Flusher).Flush()
					time.Sleep(time.Second)
				}
			}, "--timeout"},
			"never begins": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "--timeout"},
			"garbage":      {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, garbage()["random"]) }, "--kubelet"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				r := look(t, tt.handler)
				if r.Status != npd.Unknown || !regexp.MustCompile(tt.want).MatchString(r.Message) {
					t.Errorf("%v: %s\nwant Unknown with %q", r.Status, r.Message, tt.want)
				}
			})
		}
	})
}

// TestKubeletConnection has servers that are no kubelet, or not the one that the certificate is for.
func TestKubeletConnection(t *testing.T) {
	eachCheck(t, check.readsMetrics, func(t *testing.T, c check) {
		root := healthyRoot(t, "v2")
		server := kubelettest.Serve(t, func(http.ResponseWriter, *http.Request) {})
		another := kubelettest.Serve(t, func(http.ResponseWriter, *http.Request) {})
		expired := kubelettest.Names{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(-time.Hour)}
		pair, bundle := kubelettest.Certificate(t, expired)
		old := kubelettest.ServeAs(t, pair, bundle, func(http.ResponseWriter, *http.Request) {})
		plain := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			t.Errorf("%s without TLS, with %q", r.URL, r.Header.Get("Authorization"))
		}))
		defer plain.Close()
		gone, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		gone.Close()
		for name, tt := range map[string]struct {
			args []string
			want string
		}{
			"wrong CA":     {append(server.Flags(), "--ca-file="+another.CAFile), "signed by nobody in " + another.CAFile},
			"wrong name":   {append(server.Flags(), "--server-name=node-1"), "not for node-1 but for 127.0.0.1: set --server-name"},
			"expired":      {old.Flags(), "is valid from"},
			"HTTP":         {append(server.Flags(), "--kubelet="+strings.TrimPrefix(plain.URL, "http://")), "does not speak HTTPS"},
			"refused":      {append(server.Flags(), "--kubelet="+gone.Addr().String()), "connection refused"},
			"says nothing": {silentKubelet(t), "no connection to"},
			"no token":     {append(server.Flags(), "--token-file=/no/token"), "/no/token"},
		} {
			t.Run(name, func(t *testing.T) {
				c.wantUnknown(t, c.on(root, tt.args...), tt.want, "--[a-z]")
			})
		}
	})
}
