// Command kubelet-throttle tells that kubelet holds back its own requests to
// kube-apiserver, so that pods stay Pending though their containers run.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/kubelet"
	"npd-plugins/internal/plugin"
)

type check struct {
	access kubelet.Access
	mean   time.Duration
	share  int
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "kubelet-throttle",
		Condition: "KubeletThrottled",
		Purpose: "kubelet's own rate limit delays its requests to kube-apiserver: pods stay Pending though their containers run, and terminate late.\n" +
			"Reads from kubelet's metrics how long requests have waited for the limit since the last look: each of them, and all of them.",
		Reads: []string{"kubelet's https://NODE_IP:10250/metrics", "the service account's token and ca.crt, /var/lib/kubelet/pki/kubelet.crt"},
		Needs: "NODE_IP (status.hostIP) and NODE_NAME in the environment, a service account that may get nodes/metrics (deploy/rbac.yaml); " +
			"for a kubelet that signs its own certificate /var/lib/kubelet/pki/kubelet.crt below --host-root; a --state-dir that stays",
		LookAlikes:       "a burst of pods that is over after a minute; a slow kube-apiserver; what waited before the first look; a kubelet that restarts",
		Example:          "--host-root=/host --mean=1s --percent=80",
		FailureThreshold: 3,
		Timeout:          15 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.mean, "mean", time.Second, "Problem when requests of one verb wait for this `duration` on average")
			plugin.PercentVar(fs, &c.share, "percent", 80, "Problem when requests wait for this `share` of the time, one after the other or together")
			c.access.Define(fs)
		},
		Look: c.look,
	})
}

// The series of kubelet that are read. The first is that of every kubelet; the
// others exist once a request was made under a limit:
// k8s.io/component-base/metrics/prometheus/restclient/metrics.go, with the
// labels verb and host since 1.23.
const (
	witness   = "kubelet_pleg_last_seen_seconds"
	waitSum   = "rest_client_rate_limiter_duration_seconds_sum"
	waitCount = "rest_client_rate_limiter_duration_seconds_count"
)

var series = []string{witness, waitSum, waitCount}

// maxWaits is how many pairs of verb and host are kept. kubelet has five verbs
// and mostly one host.
const maxWaits = 200

// waits are the requests by verb and host: "PATCH 10.0.0.1:6443".
type waits map[string]wait

type wait struct {
	Count   float64
	Seconds float64 // that all of them waited
}

func (w wait) mean() float64 { return w.Seconds / w.Count }

// since is what was added since an earlier look. A kubelet that has restarted
// counts from zero.
func (w waits) since(earlier waits) waits {
	d := waits{}
	for key, now := range w {
		if was := earlier[key]; was.Count <= now.Count && was.Seconds <= now.Seconds {
			now = wait{now.Count - was.Count, now.Seconds - was.Seconds}
		}
		if now.Count > 0 {
			d[key] = now
		}
	}
	return d
}

// memory is kept from look to look.
type memory struct {
	At    int64 // seconds since 1970
	Waits waits
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	client, err := c.access.Open(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot ask kubelet for its waits: %v", err)
	}
	now, err := read(ctx, client)
	if errors.Is(err, kubelet.ErrSilent) {
		err = errors.New("kubelet does not answer /metrics within --timeout, see PLEGStalled")
	}
	if err != nil {
		return plugin.Unknownf("cannot ask kubelet for its waits: %v", err)
	}
	var before memory
	recalled := l.Recall(&before)
	l.Remember(memory{l.Now.Unix(), now})
	elapsed := l.Now.Sub(time.Unix(before.At, 0))
	if !recalled || elapsed > maxGap {
		const seen = "the first look at kubelet's requests"
		return plugin.Verdict{Message: seen + "; the next tells how long they wait", Suspicion: seen + " does not tell how long they wait"}
	}
	return c.judge(now.since(before.Waits), elapsed)
}

// maxGap is how far apart two looks may be that are compared: over a longer
// time the waits of now are lost in the mean.
const maxGap = 10 * time.Minute

func read(ctx context.Context, client *kubelet.Client) (waits, error) {
	found, isKubelet := waits{}, false
	err := client.Metrics(ctx, time.Minute, series, func(s kubelet.Sample) error {
		if s.Name == witness {
			isKubelet = true
			return nil
		}
		key := s.Labels["verb"] + " " + s.Labels["host"]
		w, known := found[key]
		switch {
		case s.Value < 0:
			return errors.New("a value below zero")
		case !known && len(found) == maxWaits:
			return fmt.Errorf("more than %d pairs of verb and host", maxWaits)
		case s.Name == waitSum:
			w.Seconds = s.Value
		default:
			w.Count = s.Value
		}
		found[key] = w
		return nil
	})
	if err == nil && !isKubelet {
		err = errors.New("the page at --kubelet has no " + witness + ": that is no kubelet, or one before 1.16")
	}
	return found, err
}

// judge judges the requests of a time. kubelet sends the status of pods one
// after the other: each waits for no longer than one request may take, 0.2 s
// with kubeAPIQPS 5, however many are behind it. So a mean alone does not tell
// that the limit is reached, but that at all times one waits.
func (c *check) judge(w waits, d time.Duration) plugin.Verdict {
	keys := slices.SortedFunc(maps.Keys(w), func(a, b string) int {
		return cmp.Or(cmp.Compare(w[b].Seconds, w[a].Seconds), cmp.Compare(a, b))
	})
	if len(keys) == 0 {
		return plugin.Verdict{Message: "kubelet has made no request under a limit since the last look"}
	}
	share := w.shares(d)
	slow := slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		return w[key].mean() < c.mean.Seconds() && share[isEvent(key)] < float64(c.share)
	})
	worst := keys[0]
	if len(slow) > 0 {
		worst = slow[0]
	}
	verb, host, _ := strings.Cut(worst, " ")
	fact := fmt.Sprintf("%s requests to %s wait %.1f s on average", plugin.Safe(verb, 10), plugin.Safe(host, 60), w[worst].mean())
	v := plugin.Verdict{Message: fact, Measurements: measurements(w, keys)}
	if len(slow) == 0 {
		return v
	}
	v.Status = plugin.Problem
	v.Message = fmt.Sprintf("kubelet holds back its own requests %.0f percent of the time: %s (%.0f in %.0f s); raise %s",
		min(share[isEvent(worst)], 100), fact, w[worst].Count, d.Seconds(), settings(slow))
	v.Details = []string{v.Message}
	for _, key := range keys[:min(len(keys), 10)] {
		v.Details = append(v.Details, fmt.Sprintf("%s: %.0f requests, %.2f s on average", key, w[key].Count, w[key].mean()))
	}
	return v
}

// isEvent says whether the requests are mostly events, which have a limit of
// their own.
func isEvent(key string) bool { return strings.HasPrefix(key, "POST ") }

// shares is for events and for all else how long requests have waited, in 100
// of the time. It is more than 100 when several wait together.
func (w waits) shares(d time.Duration) map[bool]float64 {
	share := map[bool]float64{}
	if d <= 0 { // somebody has set the clock
		return share
	}
	for key, wait := range w {
		share[isEvent(key)] += 100 * wait.Seconds / d.Seconds()
	}
	return share
}

// measurements has the mean of each verb, at the host for which it waited longest.
func measurements(w waits, keys []string) (m []plugin.Measurement) {
	seen := map[string]bool{}
	for _, key := range keys {
		verb, _, _ := strings.Cut(key, " ")
		name := "wait_" + strings.ToLower(verb)
		if !slices.Contains(verbs, verb) || seen[verb] {
			continue
		}
		seen[verb] = true
		m = append(m, plugin.Measurement{Name: name, Value: w[key].mean(), Unit: "seconds"})
	}
	return m
}

var verbs = []string{"DELETE", "GET", "PATCH", "POST", "PUT"}

// settings names what in kubelet's configuration raises the limit of the
// requests. kubelet has a client for events, which are POSTs (and PATCHes when
// they repeat), and one for all else; cmd/kubelet/app/server.go. The lease and
// the node's status go without a limit.
func settings(slow []string) string {
	const all, events = "kubeAPIQPS and kubeAPIBurst", "eventRecordQPS and eventBurst"
	switch {
	case !slices.ContainsFunc(slow, isEvent):
		return all + " (--kube-api-qps, --kube-api-burst)"
	case slices.ContainsFunc(slow, func(key string) bool { return !isEvent(key) }):
		return all + ", and for events " + events
	}
	return events + " (--event-qps, --event-burst)"
}
