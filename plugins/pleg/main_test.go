package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/kubelet/kubelettest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

// node is a kubelet with the pages of one version, and looks at it.
type node struct {
	t     *testing.T
	check *check
	look  *plugin.Look
	page  atomic.Value // http.HandlerFunc
	boot  time.Duration
	allow time.Duration
}

func newNode(t *testing.T) *node {
	n := &node{t: t, boot: time.Hour, allow: 20 * time.Second}
	s := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.page.Load().(http.HandlerFunc)(w, r)
	})
	n.check = &check{access: *kubelettest.Access(t, s.Flags()...), age: time.Minute, relist: 10 * time.Second, sinceBoot: func() time.Duration { return n.boot }}
	n.look = plugintest.Look(t, hosttest.Tree{}.Open(t))
	return n
}

// sees looks, d after the last look. page is a string, or an http.HandlerFunc.
func (n *node) sees(d time.Duration, page any) plugin.Verdict {
	n.t.Helper()
	if text, ok := page.(string); ok {
		page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
	}
	n.page.Store(page)
	n.boot += d
	n.look.Now = n.look.Now.Add(d)
	ctx, cancel := context.WithTimeout(n.t.Context(), n.allow)
	defer cancel()
	v := n.check.look(ctx, n.look)
	n.look = n.look.Next()
	if len(v.Message) > plugin.MaxMessage {
		n.t.Errorf("message of %d bytes: %s", len(v.Message), v.Message)
	}
	return v
}

// at is the value of kubelet_pleg_last_seen_seconds that long before the look
// that comes d after the last one.
func (n *node) at(d, age time.Duration) string { return stamp(n.look.Now.Add(d - age)) }

func stamp(t time.Time) string { return fmt.Sprintf("%.9e", float64(t.Unix())) }

// relists adds to a page that many relists of 12 s.
func relists(n int) []string {
	return []string{relistCount, fmt.Sprint(8012 + n), relistSum, fmt.Sprint(35.6 + 12*float64(n)), relistBucket + `{le="+Inf"}`, fmt.Sprint(8012 + n)}
}

const half = 30 * time.Second

func TestVersions(t *testing.T) {
	for _, version := range kubelettest.Versions {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			page := func(age time.Duration, more ...string) string {
				return kubelettest.Page(t, version, append([]string{lastSeen, n.at(half, age)}, more...)...)
			}
			v := n.sees(half, page(time.Second))
			plugintest.Want(t, v, plugin.OK, "the last relist was 1 s ago", "no relist ended")
			v = n.sees(half, page(2*time.Second, relistCount, "8042", relistSum, "35.75", relistBucket+`{le="+Inf"}`, "8042",
				relistBucket+`{le="10"}`, "8042", relistBucket+`{le="5"}`, "8042", relistBucket+`{le="2.5"}`, "8042", relistBucket+`{le="1"}`, "8042",
				relistBucket+`{le="0.5"}`, "8042", relistBucket+`{le="0.25"}`, "8030", relistBucket+`{le="0.1"}`, "8030",
				relistBucket+`{le="0.05"}`, "8030", relistBucket+`{le="0.025"}`, "8030", relistBucket+`{le="0.01"}`, "8030", relistBucket+`{le="0.005"}`, "8029"))
			plugintest.Want(t, v, plugin.OK, "the last relist was 2 s ago", "relists take 8 ms (p99 of 30)")
			v = n.sees(half, page(32*time.Second))
			plugintest.Want(t, v, plugin.OK, "the last relist was 32 s ago")
			v = n.sees(half, page(62*time.Second, operationCount+`{operation_type="podsandbox_status"}`, "61", operationSum+`{operation_type="podsandbox_status"}`, "40.06",
				operationErrors+`{operation_type="list_podsandbox"}`, "3", operationErrors+`{operation_type="exec_sync"}`, "700"))
			plugintest.Want(t, v, plugin.Problem, "PLEG stalled: the last relist was 62 s ago, kubelet gives up after 180 s",
				"the runtime's podsandbox_status takes 40 s", "list_podsandbox failed 3 times")
			if strings.Contains(v.Message, "exec_sync") || strings.Contains(v.Message, "pull_image") {
				t.Errorf("names what no relist waits for: %s", v.Message)
			}
			plugintest.Want(t, n.sees(half, page(time.Second)), plugin.OK, "1 s ago")
		})
	}
}

func TestSlowRelists(t *testing.T) {
	n := newNode(t)
	page := func(slow int) string {
		return kubelettest.Page(t, "1.36", append(relists(slow), lastSeen, n.at(half, 11*time.Second))...)
	}
	for _, slow := range []int{0, 2, 4} {
		plugintest.Want(t, n.sees(half, page(slow)), plugin.OK)
	}
	plugintest.Want(t, n.sees(half, page(6)), plugin.Problem, "PLEG is slow: relists take 12 s (p99 of 2), limit 10s", "the last relist was 11 s ago")
	// One that has not ended says nothing, either way.
	plugintest.Want(t, n.sees(half, page(6)), plugin.Problem, "PLEG is slow")
	fast := kubelettest.Page(t, "1.36", lastSeen, n.at(half, time.Second), relistCount, "8040", relistSum, "107.6", relistBucket+`{le="+Inf"}`, "8040",
		relistBucket+`{le="10"}`, "8034", relistBucket+`{le="5"}`, "8034")
	plugintest.Want(t, n.sees(half, fast), plugin.OK)
}

// kubelet with Evented PLEG: its numbers say nothing, and it is no problem that
// relists are rare, nor that the page waits.
func TestEventedPLEG(t *testing.T) {
	n := newNode(t)
	n.allow = time.Second
	page := kubelettest.Page(t, "1.36", lastSeen, n.at(half, 4*time.Minute), eventedConnected, "1")
	plugintest.Want(t, n.sees(half, page), plugin.OK, "Evented PLEG")
	for range 4 {
		plugintest.Want(t, n.sees(half, silent), plugin.Unknown, "Evented PLEG", "ContainerRuntimeStalled")
	}
	// Fallen back after five failures, with the gate still on.
	page = kubelettest.Page(t, "1.28", lastSeen, n.at(half, 4*time.Minute), eventedFailed, "5")
	plugintest.Want(t, n.sees(half, page), plugin.OK, "Evented PLEG")
}

// Since 1.37 kubelet relists every second with the gate too, and is judged.
func TestEventedPLEGRelists(t *testing.T) {
	build := func(version string) string { return `kubernetes_build_info{git_version="` + version + `",major="1"}` }
	for _, vendor := range []string{"v1.38.0-gke.12", "v1.37.0+k3s1", "v2.0.0"} {
		n := newNode(t)
		page := kubelettest.Page(t, "1.36", lastSeen, n.at(half, time.Second), eventedConnected, "1", build(vendor), "1")
		plugintest.Want(t, n.sees(half, page), plugin.OK, "the last relist was 1 s ago")
	}
	for _, unknown := range []string{"v1.36.3", "v0.0.0-master+$Format:%H$", ""} {
		n := newNode(t)
		page := kubelettest.Page(t, "1.36", lastSeen, n.at(half, 4*time.Minute), eventedConnected, "1", build(unknown), "1")
		plugintest.Want(t, n.sees(half, page), plugin.OK, "Evented PLEG")
	}
	n := newNode(t)
	page := func(age time.Duration) string {
		return kubelettest.Page(t, "1.37", lastSeen, n.at(half, age), eventedConnected, "1")
	}
	plugintest.Want(t, n.sees(half, page(time.Second)), plugin.OK, "the last relist was 1 s ago")
	n.sees(half, page(31*time.Second))
	plugintest.Want(t, n.sees(half, page(61*time.Second)), plugin.Problem, "PLEG stalled: the last relist was 61 s ago")
	n.allow = time.Second
	n.sees(half, silent)
	n.sees(half, silent)
	plugintest.Want(t, n.sees(half, silent), plugin.Problem, "PLEG stalled: kubelet waits for the container runtime")
}

func TestRestart(t *testing.T) {
	n := newNode(t)
	before := kubelettest.Page(t, "1.36", append(relists(50), lastSeen, n.at(half, time.Second))...)
	plugintest.Want(t, n.sees(half, before), plugin.OK)
	started := float64(n.look.Now.Add(5 * time.Second).Unix())
	young := func() string {
		return kubelettest.Page(t, "1.36", lastSeen, "0", processStart, fmt.Sprint(started), relistCount, "0", relistSum, "0", relistBucket+`{le="+Inf"}`, "0",
			operationErrors+`{operation_type="list_podsandbox"}`, "25")
	}
	plugintest.Want(t, n.sees(half, young()), plugin.OK, "not listed the containers once since its start 25 s ago")
	plugintest.Want(t, n.sees(half, young()), plugin.OK, "55 s ago")
	plugintest.Want(t, n.sees(half, young()), plugin.Problem, "PLEG stalled", "start 85 s ago", "list_podsandbox failed 25 times")
	// It has relisted since: what it counts is all since its start.
	page := kubelettest.Page(t, "1.36", lastSeen, n.at(half, 0), processStart, fmt.Sprint(started))
	plugintest.Want(t, n.sees(half, page), plugin.OK, "0 s ago", "(p99 of 8012)")
	plugintest.Want(t, n.sees(half, kubelettest.Without(young(), processStart)), plugin.Unknown, processStart)
}

// A clock that is set makes the last relist look old, until the next one.
func TestClockIsSet(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		n := newNode(t)
		plugintest.Want(t, n.sees(half, kubelettest.Page(t, "1.36", lastSeen, n.at(half, time.Second))), plugin.OK)
		page := kubelettest.Page(t, "1.36", lastSeen, n.at(half, 2*time.Second))
		n.look.Now = n.look.Now.Add(step)
		plugintest.Want(t, n.sees(half, page), plugin.OK)
		if step > 0 { // and a PLEG that stands still with it is told from then on
			plugintest.Want(t, n.sees(half, page), plugin.Problem, "63 s ago")
		}
	}
}

// silent is a kubelet whose page waits for the runtime, and that answers else.
var silent = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/metrics" {
		<-r.Context().Done()
	}
})

var dead = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })

func TestSilent(t *testing.T) {
	n := newNode(t)
	good := kubelettest.Page(t, "1.36", lastSeen, n.at(half, time.Second))
	plugintest.Want(t, n.sees(half, good), plugin.OK)
	n.allow = time.Second
	plugintest.Want(t, n.sees(half, silent), plugin.Unknown, "kubelet waits for the container runtime for 0 s", "Problem after 1m0s")
	plugintest.Want(t, n.sees(half, silent), plugin.Unknown, "for 30 s")
	plugintest.Want(t, n.sees(half, silent), plugin.Problem, "PLEG stalled: kubelet waits for the container runtime for 60 s", "ContainerRuntimeStalled", "180 s")
	plugintest.Want(t, n.sees(half, silent), plugin.Problem, "for 90 s")
	n.allow = 20 * time.Second
	plugintest.Want(t, n.sees(half, kubelettest.Page(t, "1.36", lastSeen, n.at(half, time.Second))), plugin.OK, "1 s ago")
	// Only those in a row count, and not beyond a pause.
	n.allow = time.Second
	plugintest.Want(t, n.sees(half, silent), plugin.Unknown, "for 0 s")
	plugintest.Want(t, n.sees(half, dead), plugin.Unknown, "answers none", "--timeout")
	plugintest.Want(t, n.sees(half, silent), plugin.Unknown, "for 0 s")
	plugintest.Want(t, n.sees(time.Hour, silent), plugin.Unknown, "for 0 s")
	plugintest.WantSuspicion(t, n.sees(half, silent), "kubelet waits for the container runtime")
}

func TestUnknown(t *testing.T) {
	whole := kubelettest.Page(t, "1.36")
	for name, tt := range map[string]struct {
		page  any
		words []string
	}{
		"another server": {"<html>", []string{"no kubelet_pleg_last_seen_seconds", "--kubelet"}},
		"nothing":        {"", []string{"no kubelet_pleg_last_seen_seconds"}},
		"words":          {kubelettest.Page(t, "1.36", lastSeen, "now"), []string{lastSeen, "is no number"}},
		"not a number":   {kubelettest.Page(t, "1.36", lastSeen, "NaN"), []string{"is no number"}},
		"below zero":     {kubelettest.Page(t, "1.36", relistCount, "-1"), []string{"below zero"}},
		"buckets":        {kubelettest.Page(t, "1.36", relistBucket+`{le="3"}`, "1"), []string{"a bucket of"}},
		"no bucket":      {kubelettest.Page(t, "1.36", relistBucket+`{le="NaN"}`, "1"), []string{"a bucket of"}},
		"403":            {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }), []string{"get nodes/metrics", "deploy/rbac.yaml"}},
		"cut off": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
			fmt.Fprint(w, whole[:len(whole)/2])
		}), []string{"unexpected EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.Want(t, newNode(t).sees(half, tt.page), plugin.Unknown, tt.words...)
		})
	}
	n := newNode(t)
	n.check.access = *kubelettest.Access(t, "--kubelet=127.0.0.1", "--token-file=/no/token")
	plugintest.Want(t, n.sees(half, ""), plugin.Unknown, "/no/token", "--token-file")
}

func TestQuantile(t *testing.T) {
	h := histogram{Count: 100, Sum: 200, Bounds: []float64{1, 2, 4}, Counts: []float64{50, 90, 95}}
	for q, want := range map[float64]float64{0.25: 0.5, 0.5: 1, 0.7: 1.5, 0.9: 2, 0.93: 3.2, 0.99: 4} {
		if got := h.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
	if got := (histogram{Count: 2, Sum: 240, Bounds: []float64{10}, Counts: []float64{0}}).quantile(0.99); got != 120 {
		t.Errorf("beyond the last bound: %v, want the mean", got)
	}
}
