package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/kubelet/kubelettest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
)

// node is a kubelet with a page, and looks at it every 30 s.
type node struct {
	t     *testing.T
	check *check
	look  *plugin.Look
	page  atomic.Value // string
}

func newNode(t *testing.T) *node {
	n := &node{t: t}
	s := kubelettest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n.page.Load() == "" {
			<-r.Context().Done()
		}
		fmt.Fprint(w, n.page.Load())
	})
	n.check = &check{*kubelettest.Access(t, s.Flags()...), time.Second, 80}
	n.look = plugintest.Look(t, hosttest.Tree{}.Open(t))
	return n
}

func (n *node) sees(page string) plugin.Verdict {
	n.t.Helper()
	n.page.Store(page)
	n.look.Now = n.look.Now.Add(30 * time.Second)
	allow := 20 * time.Second
	if page == "" {
		allow = time.Second
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), allow)
	defer cancel()
	v := n.check.look(ctx, n.look)
	n.look = n.look.Next()
	if len(v.Message) > plugin.MaxMessage {
		n.t.Errorf("message of %d bytes: %s", len(v.Message), v.Message)
	}
	return v
}

// waited are the lines of a verb's requests and their waits in seconds.
func waited(verb string, requests, seconds float64) []string {
	labels := fmt.Sprintf(`{host="10.0.0.1:6443",verb="%s"}`, verb)
	return []string{waitCount + labels, fmt.Sprint(requests), waitSum + labels, fmt.Sprint(seconds)}
}

func TestVersions(t *testing.T) {
	for _, version := range kubelettest.Versions {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			plugintest.Want(t, n.sees(kubelettest.Page(t, version)), plugin.OK, "first look")
			plugintest.Want(t, n.sees(kubelettest.Page(t, version)), plugin.OK, "no request under a limit")
			v := n.sees(kubelettest.Page(t, version, append(waited("GET", 743, 2.2), waited("PATCH", 330, 10)...)...))
			plugintest.Want(t, v, plugin.OK, "PATCH requests to 10.0.0.1:6443 wait 0.5 s on average")
			v = n.sees(kubelettest.Page(t, version, append(waited("GET", 843, 2.3), waited("PATCH", 360, 136)...)...))
			plugintest.Want(t, v, plugin.Problem, "kubelet holds back its own requests 100 percent of the time: PATCH requests to 10.0.0.1:6443 wait 4.2 s on average (30 in 30 s)",
				"raise kubeAPIQPS and kubeAPIBurst (--kube-api-qps, --kube-api-burst)")
			plugintest.Want(t, n.sees(kubelettest.Page(t, version, append(waited("GET", 843, 2.3), waited("PATCH", 400, 137)...)...)), plugin.OK)
		})
	}
}

func TestSettings(t *testing.T) {
	for verbs, want := range map[string]string{
		"PATCH":          "kubeAPIQPS and kubeAPIBurst (--kube-api-qps, --kube-api-burst)",
		"GET DELETE":     "kubeAPIQPS and kubeAPIBurst (--kube-api-qps, --kube-api-burst)",
		"POST":           "eventRecordQPS and eventBurst (--event-qps, --event-burst)",
		"POST PATCH GET": "kubeAPIQPS and kubeAPIBurst, and for events eventRecordQPS and eventBurst",
	} {
		n := newNode(t)
		var before, after []string
		for verb := range strings.FieldsSeq(verbs) {
			before, after = append(before, waited(verb, 1000, 1)...), append(after, waited(verb, 1010, 100)...)
		}
		plugintest.Want(t, n.sees(kubelettest.Page(t, "1.36", before...)), plugin.OK)
		v := n.sees(kubelettest.Page(t, "1.36", after...))
		plugintest.Want(t, v, plugin.Problem, "9.9 s on average")
		if !strings.HasSuffix(v.Message, "raise "+want) {
			t.Errorf("%s: %s\nwant %s", verbs, v.Message, want)
		}
	}
}

// A queue of one: kubelet asks again and again, each time after a short wait.
func TestAlwaysOneWaits(t *testing.T) {
	n := newNode(t)
	page := func(get, patch, post float64) string {
		return kubelettest.Page(t, "1.24", slices.Concat(waited("GET", 1000+5*get, 3+get), waited("PATCH", 1000+5*patch, 3+patch), waited("POST", 1000+5*post, 3+post))...)
	}
	plugintest.Want(t, n.sees(page(0, 0, 0)), plugin.OK)
	plugintest.Want(t, n.sees(page(11, 12, 20)), plugin.OK, "POST requests to 10.0.0.1:6443 wait 0.2 s on average")
	plugintest.Want(t, n.sees(page(23, 26, 40)), plugin.Problem, "87 percent of the time: PATCH requests to 10.0.0.1:6443 wait 0.2 s on average (70 in 30 s)",
		"raise kubeAPIQPS and kubeAPIBurst (--kube-api-qps")
	plugintest.Want(t, n.sees(page(23, 26, 69)), plugin.Problem, "97 percent of the time: POST requests", "raise eventRecordQPS and eventBurst (--event-qps")
	n.look.Now = n.look.Now.Add(-time.Hour) // a clock that is set is no share of the time
	plugintest.Want(t, n.sees(page(50, 50, 98)), plugin.OK)
}

// A kubelet that restarts counts from zero; one without limits counts nothing.
func TestRestart(t *testing.T) {
	n := newNode(t)
	plugintest.Want(t, n.sees(kubelettest.Page(t, "1.36", waited("PATCH", 5000, 9000)...)), plugin.OK)
	v := n.sees(kubelettest.Page(t, "1.36", waited("PATCH", 20, 30)...))
	plugintest.Want(t, v, plugin.Problem, "PATCH requests", "1.5 s on average (20 in 30 s)")
	none := kubelettest.Without(kubelettest.Page(t, "1.36"), "rest_client_")
	plugintest.Want(t, n.sees(none), plugin.OK, "no request under a limit")
	plugintest.Want(t, n.sees(none), plugin.OK, "no request under a limit")
}

func TestUnknown(t *testing.T) {
	many := kubelettest.Page(t, "1.36")
	for i := range maxWaits {
		many += fmt.Sprintf("%s{host=\"h%d\",verb=\"GET\"} 1\n", waitCount, i)
	}
	for name, tt := range map[string]struct {
		page  string
		words []string
	}{
		"another server": {"<html>\n", []string{"has no " + witness, "--kubelet"}},
		"words":          {kubelettest.Page(t, "1.36", waitCount, "many"), []string{"is no number"}},
		"below zero":     {kubelettest.Page(t, "1.36", waited("PATCH", -1, 1)...), []string{"below zero"}},
		"many":           {many, []string{"more than 200 pairs"}},
		"silent":         {"", []string{"does not answer /metrics", "PLEGStalled"}},
	} {
		t.Run(name, func(t *testing.T) {
			plugintest.Want(t, newNode(t).sees(tt.page), plugin.Unknown, tt.words...)
		})
	}
	n := newNode(t)
	plugintest.WantSuspicion(t, n.sees(kubelettest.Page(t, "1.36")), "the first look at kubelet's requests does not tell how long they wait")
	plugintest.WantSuspicion(t, n.sees(kubelettest.Page(t, "1.36")), "")
}

// Names of servers are others' words.
func TestHostileLabels(t *testing.T) {
	n := newNode(t)
	line := func(name, value string) string {
		return fmt.Sprintf("%s{verb=\"%s\",host=\"%s\"} %s\n", name, strings.Repeat("VERB", 50), strings.Repeat("%s ", 200), value)
	}
	plugintest.Want(t, n.sees(kubelettest.Page(t, "1.36")), plugin.OK)
	v := n.sees(kubelettest.Page(t, "1.36") + line(waitCount, "10") + line(waitSum, "90"))
	plugintest.Want(t, v, plugin.Problem, "VERBVERB.. requests", "9.0 s on average", "raise kubeAPIQPS")
	if strings.Contains(v.Message, "%") {
		t.Errorf("not safe: %s", v.Message)
	}
}
