package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"npd-plugins/internal/kubelet"
)

// The series of kubelet that are read, all as they have been called since 1.16:
// pkg/kubelet/metrics/metrics.go. Those of Evented PLEG exist since 1.26.
const (
	lastSeen         = "kubelet_pleg_last_seen_seconds"
	relistBucket     = "kubelet_pleg_relist_duration_seconds_bucket"
	relistSum        = "kubelet_pleg_relist_duration_seconds_sum"
	relistCount      = "kubelet_pleg_relist_duration_seconds_count"
	operationSum     = "kubelet_runtime_operations_duration_seconds_sum"
	operationCount   = "kubelet_runtime_operations_duration_seconds_count"
	operationErrors  = "kubelet_runtime_operations_errors_total"
	eventedConnected = "kubelet_evented_pleg_connection_success_count"
	eventedFailed    = "kubelet_evented_pleg_connection_error_count"
	processStart     = "process_start_time_seconds"
)

var series = []string{lastSeen, relistBucket, relistSum, relistCount, operationSum, operationCount, operationErrors, eventedConnected, eventedFailed, processStart, kubelet.BuildInfo}

// relistOperations are the runtime's operations that a relist waits for.
var relistOperations = []string{"list_podsandbox", "list_containers", "podsandbox_status", "container_status"}

// page is what one page of metrics, or the difference of two, says of PLEG.
type page struct {
	LastSeen *float64 `json:",omitempty"` // seconds since 1970, 0 before the first relist
	Started  *float64 `json:",omitempty"` // seconds since 1970
	// Evented counts the connections of Evented PLEG, made and failed: above zero
	// the feature gate is on.
	Evented float64
	// AlwaysRelists is for a kubelet of 1.37 or later. Its Evented PLEG only asks
	// for relists between those that come every second, gate or no gate
	// (pkg/kubelet/pleg/evented.go).
	AlwaysRelists bool
	Relists       histogram
	Operations    map[string]operation
}

// evented says whether kubelet relists rarely, and its numbers say nothing.
func (p *page) evented() bool { return p.Evented > 0 && !p.AlwaysRelists }

type operation struct {
	Count, Seconds, Errors float64
}

// mean is how long the operation took on average, in seconds.
func (o operation) mean() float64 {
	if o.Count == 0 {
		return 0
	}
	return o.Seconds / o.Count
}

func readPage(ctx context.Context, client *kubelet.Client, patience time.Duration) (*page, error) {
	p := &page{Operations: map[string]operation{}}
	return p, client.Metrics(ctx, patience, series, p.add)
}

// add takes one line of the page.
func (p *page) add(s kubelet.Sample) error {
	if s.Value < 0 {
		return errors.New("a value below zero")
	}
	switch s.Name {
	case lastSeen:
		p.LastSeen = &s.Value
	case processStart:
		p.Started = &s.Value
	case eventedConnected, eventedFailed:
		p.Evented += s.Value
	case kubelet.BuildInfo:
		p.AlwaysRelists = kubelet.SinceMinor(s, 37)
	case relistSum:
		p.Relists.Sum = s.Value
	case relistCount:
		p.Relists.Count = s.Value
	case relistBucket:
		return p.Relists.add(s.Labels["le"], s.Value)
	default:
		name := s.Labels["operation_type"]
		if !slices.Contains(relistOperations, name) {
			return nil
		}
		o := p.Operations[name]
		switch s.Name {
		case operationSum:
			o.Seconds = s.Value
		case operationCount:
			o.Count = s.Value
		case operationErrors:
			o.Errors = s.Value
		}
		p.Operations[name] = o
	}
	return nil
}

// since is what was added since an earlier page, nil for none. A kubelet that
// has restarted counts from zero: then it is what was added since that.
func (p *page) since(earlier *page) *page {
	d := &page{Relists: p.Relists, Operations: maps.Clone(p.Operations)}
	switch {
	case earlier == nil: // the months since kubelet's start say nothing of now
		return &page{}
	case p.Started != nil && earlier.Started != nil && *p.Started != *earlier.Started, p.Relists.Count < earlier.Relists.Count:
		return d
	}
	d.Relists = p.Relists.minus(earlier.Relists)
	for name, o := range d.Operations {
		was := earlier.Operations[name]
		d.Operations[name] = operation{max(o.Count-was.Count, 0), max(o.Seconds-was.Seconds, 0), max(o.Errors-was.Errors, 0)}
	}
	return d
}

// slowOperation is how long one of the runtime's operations may take in
// seconds; a healthy one takes some milliseconds.
const slowOperation = 1.0

// culprits names the operation of the runtime that takes longest, and the one
// that fails most, "" for none.
func (p *page) culprits() string {
	slowest, failing := "", ""
	for _, name := range relistOperations {
		o := p.Operations[name]
		if o.mean() >= slowOperation && (slowest == "" || o.mean() > p.Operations[slowest].mean()) {
			slowest = name
		}
		if o.Errors > 0 && (failing == "" || o.Errors > p.Operations[failing].Errors) {
			failing = name
		}
	}
	var parts []string
	if slowest != "" {
		parts = append(parts, fmt.Sprintf("the runtime's %s takes %s", slowest, amount(p.Operations[slowest].mean())))
	}
	if failing != "" {
		parts = append(parts, fmt.Sprintf("%s failed %.0f times", failing, p.Operations[failing].Errors))
	}
	return strings.Join(parts, ", ")
}

// details has a line for each operation.
func (p *page) details() (lines []string) {
	for _, name := range relistOperations {
		if o, ok := p.Operations[name]; ok {
			lines = append(lines, fmt.Sprintf("%s: %.0f times, %s on average, %.0f failed", name, o.Count, amount(o.mean()), o.Errors))
		}
	}
	return lines
}

// histogram is one of Prometheus: each bucket counts all that is not above its
// bound.
type histogram struct {
	Count, Sum float64
	Bounds     []float64 // ascending, in seconds, without +Inf
	Counts     []float64 // of each bound
}

// maxBounds is how many bounds are kept; kubelet's histograms have 11 to 14.
const maxBounds = 100

// add takes a bucket. They come in ascending order.
func (h *histogram) add(le string, count float64) error {
	if le == "+Inf" { // the same as Count
		return nil
	}
	last := 0.0
	if n := len(h.Bounds); n > 0 {
		last = h.Bounds[n-1]
	}
	bound, err := strconv.ParseFloat(le, 64)
	if err != nil || !(bound > last) || math.IsInf(bound, 0) || len(h.Bounds) == maxBounds {
		return fmt.Errorf("a bucket of %.20q", le)
	}
	h.Bounds, h.Counts = append(h.Bounds, bound), append(h.Counts, count)
	return nil
}

func (h histogram) minus(earlier histogram) histogram {
	d := histogram{Count: max(h.Count-earlier.Count, 0), Sum: max(h.Sum-earlier.Sum, 0)}
	if !slices.Equal(h.Bounds, earlier.Bounds) { // another kubelet's
		return d
	}
	for i, bound := range h.Bounds {
		d.Bounds, d.Counts = append(d.Bounds, bound), append(d.Counts, max(h.Counts[i]-earlier.Counts[i], 0))
	}
	return d
}

// quantile is the value that q of all do not exceed, as PromQL's
// histogram_quantile tells it: on a straight line within its bucket. Beyond the
// last bound it is that, or the mean if that is more.
func (h histogram) quantile(q float64) float64 {
	rank, lower, below := q*h.Count, 0.0, 0.0
	for i, count := range h.Counts {
		if count >= rank && count > below {
			return lower + (h.Bounds[i]-lower)*(rank-below)/(count-below)
		}
		lower, below = h.Bounds[i], count
	}
	return max(lower, h.Sum/h.Count)
}
