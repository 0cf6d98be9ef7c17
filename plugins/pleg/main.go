// Command pleg tells that kubelet has stopped listing its containers, long
// before kubelet itself says "PLEG is not healthy" and the node goes NotReady.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"npd-plugins/internal/kubelet"
	"npd-plugins/internal/plugin"
)

type check struct {
	access kubelet.Access
	age    time.Duration
	relist time.Duration
	// sinceBoot is the time since the node's boot, which nobody sets.
	sinceBoot func() time.Duration
}

func main() {
	c := &check{sinceBoot: sinceBoot}
	plugin.Main(plugin.Check{
		Name:      "pleg",
		Condition: "PLEGStalled",
		Purpose: "kubelet has not listed the node's containers for --age; it notices no start and no end of a container, and the node goes NotReady after 3 minutes.\n" +
			"Reads kubelet's metrics: the time of the last relist, and how long relists took since the last look. A page that kubelet does not give while it\n" +
			"answers other requests counts too: kubelet writes it only when the container runtime has answered the same lists.",
		Reads: []string{"kubelet's https://NODE_IP:10250/metrics, and /metrics/probes when that is not answered",
			"the service account's token and ca.crt, /var/lib/kubelet/pki/kubelet.crt"},
		Needs: "NODE_IP (status.hostIP) and NODE_NAME in the environment, a service account that may get nodes/metrics (deploy/rbac.yaml); " +
			"for a kubelet that signs its own certificate /var/lib/kubelet/pki/kubelet.crt below --host-root",
		LookAlikes:       "one slow relist; a kubelet that has just started; a clock that was set; a kubelet before 1.37 with the feature gate EventedPLEG, which relists every 5 minutes",
		Example:          "--host-root=/host --age=1m",
		FailureThreshold: 1,
		Timeout:          15 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.DurationVar(fs, &c.age, "age", time.Minute, "Problem when the last relist was this `duration` ago; kubelet's own limit is 3m")
			plugin.DurationVar(fs, &c.relist, "relist", 10*time.Second, "Problem when the 99th percentile of the relists takes this `duration`, three looks in a row")
			c.access.Define(fs)
		},
		Look: c.look,
	})
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil { // no Linux since 2.6.39
		return 0
	}
	return time.Duration(ts.Nano())
}

// kubeletLimit is after what time kubelet gives up: genericPlegRelistThreshold
// in pkg/kubelet/kubelet.go.
const kubeletLimit = 3 * time.Minute

// maxGap is how far apart two looks may be that are compared.
const maxGap = 10 * time.Minute

// slowLooks is how many looks in a row must see slow relists. A node on which
// many pods start at once has some.
const slowLooks = 3

// memory is kept from look to look. Times are seconds since the node's boot.
type memory struct {
	At     float64 // of the look
	Silent float64 // when the first of the requests in a row was made that kubelet has not answered, 0 for none
	Slow   int     // looks in a row that saw slow relists
	Page   *page   // the last that kubelet gave
	Read   float64 // when it was asked for
	Age    float64 // seconds since the last relist, then
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	started := c.sinceBoot()
	m := memory{}
	if l.Recall(&m) && (started.Seconds() < m.At || started.Seconds()-m.At > maxGap.Seconds()) {
		m = memory{}
	}
	before := m
	m.At = started.Seconds()
	client, err := c.access.Open(l.Host)
	if err != nil {
		return plugin.Unknownf("cannot ask kubelet for its PLEG: %v", err)
	}
	p, err := readPage(ctx, client, patience(ctx))
	if errors.Is(err, kubelet.ErrSilent) && client.Answers(ctx) {
		if m.Silent == 0 {
			m.Silent = started.Seconds()
		}
		l.Remember(m)
		return c.silent(m)
	}
	m.Silent = 0
	if err != nil {
		l.Remember(m)
		if errors.Is(err, kubelet.ErrSilent) {
			err = errors.New("kubelet takes requests and answers none within --timeout: kubelet, or the API server it authorizes requests with, hangs")
		}
		return plugin.Unknownf("cannot ask kubelet for its PLEG: %v", err)
	}
	m.Page, m.Read = p, m.At
	v := c.judge(p, before, &m, l.Now)
	l.Remember(m)
	return v
}

// patience is how long kubelet may take for its page. The rest of the time is
// for finding out whether it answers anything.
func patience(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return time.Minute
	}
	return time.Until(deadline) / 10 * 7
}

// silent judges a kubelet that answers, but not with its metrics.
func (c *check) silent(m memory) plugin.Verdict {
	since := c.sinceBoot() - time.Duration(m.Silent*float64(time.Second))
	fact := fmt.Sprintf("kubelet waits for the container runtime for %s (it answers, but not /metrics)", seconds(since))
	switch {
	case m.Page != nil && m.Page.evented():
		return plugin.Unknownf("%s, and it has Evented PLEG, which relists rarely: see ContainerRuntimeStalled", fact)
	case since < c.age:
		v := plugin.Unknownf("%s (Problem after %s)", fact, c.age)
		v.Suspicion = fact
		return v
	}
	v := plugin.Verdict{Status: plugin.Problem}
	v.Message = fmt.Sprintf("PLEG stalled: %s, as relists do; kubelet gives up after %s; see ContainerRuntimeStalled", fact, seconds(kubeletLimit))
	v.Measurements = []plugin.Measurement{{Name: "metrics_silent", Value: since.Seconds(), Limit: kubeletLimit.Seconds(), Unit: "seconds"}}
	v.Details = []string{v.Message}
	if m.Page != nil {
		v.Details = append(v.Details, fmt.Sprintf("%.0f s ago the last relist was %.0f s old", m.At-m.Read, m.Age))
	}
	return v
}

// judge judges a page and keeps in m what the next look must know.
func (c *check) judge(p *page, before memory, m *memory, now time.Time) plugin.Verdict {
	switch {
	case p.LastSeen == nil:
		return plugin.Undecidedf("the page at --kubelet has no kubelet_pleg_last_seen_seconds: that is no kubelet, or one before 1.16")
	case p.evented():
		// kubelet then sets the time of the last relist to now at every check of
		// its health, and relists every 5 minutes: the numbers say nothing.
		return plugin.Verdict{Message: "kubelet has Evented PLEG and does not depend on relists"}
	case *p.LastSeen == 0:
		return c.judgeStart(p, now)
	}
	age := now.Sub(time.Unix(int64(*p.LastSeen), 0))
	if before.Page != nil && before.Page.LastSeen != nil && *before.Page.LastSeen > 0 {
		// It cannot have grown more than time has passed: else somebody has set the clock.
		age = min(age, time.Duration((before.Age+m.Read-before.Read+1)*float64(time.Second)))
	}
	age = max(age, 0)
	m.Age = age.Seconds()
	since, slow := p.since(before.Page), ""
	measurements := []plugin.Measurement{{Name: "pleg_age", Value: age.Seconds(), Limit: kubeletLimit.Seconds(), Unit: "seconds"}}
	relists := "no relist ended since the last look"
	if since.Relists.Count > 0 {
		p99 := since.Relists.quantile(0.99)
		measurements = append(measurements, plugin.Measurement{Name: "relist_p99", Value: p99, Limit: kubeletLimit.Seconds(), Unit: "seconds"})
		relists = fmt.Sprintf("relists take %s (p99 of %.0f)", amount(p99), since.Relists.Count)
		if m.Slow++; p99 < c.relist.Seconds() {
			m.Slow = 0
		}
	}
	if m.Slow >= slowLooks {
		slow = "PLEG is slow: " + relists + fmt.Sprintf(", limit %s", c.relist)
	}
	v := plugin.Verdict{Measurements: measurements}
	last := fmt.Sprintf("the last relist was %s ago", seconds(age))
	switch {
	case age >= c.age:
		v.Message = join(fmt.Sprintf("PLEG stalled: %s, kubelet gives up after %s", last, seconds(kubeletLimit)), relists, since.culprits())
	case slow != "":
		v.Message = join(slow, last, since.culprits())
	default:
		v.Message = join(last, relists)
		if m.Slow > 0 {
			v.Suspicion = relists + ", limit " + c.relist.String()
		}
		return v
	}
	v.Status = plugin.Problem
	v.Details = append([]string{v.Message}, since.details()...)
	return v
}

// judgeStart judges a kubelet that has not listed once since it started.
func (c *check) judgeStart(p *page, now time.Time) plugin.Verdict {
	if p.Started == nil {
		return plugin.Undecidedf("kubelet has not listed its containers yet, and the page at --kubelet has no process_start_time_seconds")
	}
	since := now.Sub(time.UnixMilli(int64(*p.Started * 1000)))
	message := fmt.Sprintf("kubelet has not listed the containers once since its start %s ago", seconds(since))
	if since < c.age {
		return plugin.Verdict{Message: message}
	}
	message = join("PLEG stalled: "+message, p.culprits())
	return plugin.Verdict{Status: plugin.Problem, Message: message, Details: append([]string{message}, p.details()...)}
}

// join joins what is not empty.
func join(parts ...string) string {
	message := parts[0]
	for _, p := range parts[1:] {
		if p != "" {
			message += "; " + p
		}
	}
	return message
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }

// amount writes 4 ms and 12.5 s.
func amount(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0f ms", s*1000)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", s), ".0") + " s"
}
