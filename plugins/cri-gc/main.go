// Command cri-gc tells that dead containers and pod sandboxes stay which
// kubelet's garbage collection should have removed.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/host"
	"npd-plugins/internal/plugin"
)

type check struct {
	count      int
	age        time.Duration
	keep       int
	kubeletDir string
	endpoint   string
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "cri-gc",
		Condition: "ContainerGCStalled",
		Purpose: "kubelet removes dead containers and pod sandboxes every minute. What it cannot remove piles up in the runtime's lists, with its network addresses and disk space,\n" +
			"until the lists grow too long. Finds what kubelet's rules say to remove and what is still there.",
		Reads: []string{"the CRI socket: ListPodSandbox, ListContainers; PodSandboxStatus of up to 10 stuck sandboxes", "<kubelet-dir>/pods (names)",
			cniResults + " (names)", netnsDir + " (names)"},
		Needs:            "the directories of the CRI socket, of kubelet, " + cniResults + " and " + netnsDir + " below --host-root, the right to connect (root), and a --state-dir that lasts",
		LookAlikes:       "the one dead container that kubelet keeps of each restarted one; the last sandbox of a pod that still exists; what has not been there for --age",
		Example:          "--host-root=/host --count=10 --age=10m",
		FailureThreshold: 1,
		Timeout:          25 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.CountVar(fs, &c.count, "count", 10, "Problem at this `number` of records that stay")
			plugin.DurationVar(fs, &c.age, "age", 10*time.Minute, "a record stays when it could have been removed for this `duration`")
			plugin.CountVar(fs, &c.keep, "keep", 1, "dead containers that kubelet keeps of each, a `number`: its --maximum-dead-containers-per-container")
			fs.StringVar(&c.kubeletDir, "kubelet-dir", "/var/lib/kubelet", "`directory` below --host-root: kubelet's --root-dir")
			cri.EndpointVar(fs, &c.endpoint)
		},
		Look: c.look,
	})
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	client, err := cri.Connect(ctx, l.Host, c.endpoint)
	if err != nil {
		return plugin.Unknownf("cannot list what kubelet should remove: %s", cri.Reason(err))
	}
	defer client.Close()
	r, err := list(ctx, client)
	if err != nil {
		return plugin.Unknownf("cannot list what kubelet should remove: %s", cri.Reason(err))
	}

	results := networked(l.Host)
	found := r.leftovers(c.keep, c.gone(l.Host, r), func(id string) bool { return results[id] })
	ages := recallAges(l)
	for i := range found {
		found[i].age = ages[found[i].key]
	}
	slices.SortFunc(found, oldestFirst)
	rememberAges(l, found)
	stuck := found
	if i := slices.IndexFunc(found, func(f leftover) bool { return f.age < c.age }); i >= 0 {
		stuck = found[:i]
	}

	kept := r.notRunning() - len(found)
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "stuck", Value: float64(len(stuck)), Unit: "records"},
		{Name: "collectable", Value: float64(len(found)), Unit: "records"},
		{Name: "kept", Value: float64(kept), Unit: "records"},
	}}
	if len(stuck) < c.count {
		if len(found) >= c.count {
			v.Suspicion = plugin.Count(len(found), "record") + " for kubelet to collect"
		}
		v.Message = fmt.Sprintf("%d records wait for kubelet's collection, %d of them for %s; it keeps %d by design", len(found), len(stuck), age(c.age), kept)
		return v
	}
	sandboxes := stuckSandboxes(stuck, results)
	v.Status = plugin.Problem
	v.Message = count(stuck) + " not collected for " + age(c.age) + " or longer"
	if stuck[0].age > c.age {
		v.Message += ", oldest " + age(stuck[0].age)
	}
	if cause := teardown(ctx, l.Host, client, sandboxes, r.ready, results); cause != "" {
		v.Message += "; " + cause
	}
	pods := owners(stuck)
	v.Message = withPods(v.Message, pods, len(stuck))
	for _, o := range pods[:min(len(pods), 10)] {
		v.Details = append(v.Details, fmt.Sprintf("%s: %s, oldest %s", o.name(70), count(o.records), age(o.records[0].age)))
	}
	return v
}

// list reads both lists.
func list(ctx context.Context, client *cri.Client) (*records, error) {
	r := newRecords()
	sandboxes, err := client.Sandboxes(ctx, nil, r.addSandbox)
	if err != nil {
		return nil, err
	}
	release(sandboxes)
	containers, err := client.Containers(ctx, nil, r.addContainer)
	release(containers)
	return r, err
}

// longList is the size in bytes of a reply whose buffers are worth collecting at
// once: those of two long lists side by side are most of what a look needs.
const longList = 4 << 20

func release(l cri.List) {
	if l.Bytes >= longList {
		runtime.GC() // the transport's pool keeps its buffers for one collection
		debug.FreeOSMemory()
	}
}

// gone tells of which pods kubelet has removed the directory. Where the
// directories are not seen, no pod is.
func (c *check) gone(h *host.Root, r *records) func(*pod) bool {
	nobody := func(*pod) bool { return false }
	names, err := h.ReadNames(path.Join(c.kubeletDir, "pods"), maxNames)
	if err != nil || len(names) == maxNames {
		return nobody
	}
	there := map[uint64]bool{}
	for _, name := range names {
		there[hash([]byte(name))] = true
	}
	known := r.ready == 0
	for _, s := range r.sandboxes {
		known = known || s.ready && there[s.pod.uid]
	}
	if !known { // no running pod has one: these are not the directories of this kubelet
		return nobody
	}
	return func(p *pod) bool { return p.uid != 0 && !there[p.uid] }
}

func oldestFirst(a, b leftover) int {
	return cmp.Or(cmp.Compare(b.age, a.age), cmp.Compare(a.key, b.key))
}

// stuckSandboxes are the sandboxes of the records that are not ready, those
// first that have a result of CNI.
func stuckSandboxes(stuck []leftover, results map[string]bool) (sandboxes []*sandbox) {
	seen := map[*sandbox]bool{nil: true}
	for _, f := range stuck {
		if !seen[f.sandbox] && !f.sandbox.ready {
			seen[f.sandbox] = true
			sandboxes = append(sandboxes, f.sandbox)
		}
	}
	slices.SortStableFunc(sandboxes, func(a, b *sandbox) int {
		switch {
		case results[a.id] == results[b.id]:
			return 0
		case results[a.id]:
			return -1
		}
		return 1
	})
	return sandboxes
}

// count tells how many sandboxes and containers there are.
func count(records []leftover) string {
	sandboxes := 0
	for _, f := range records {
		if !f.container {
			sandboxes++
		}
	}
	var parts []string
	if sandboxes > 0 {
		parts = append(parts, plugin.Count(sandboxes, "dead sandbox"))
	}
	if n := len(records) - sandboxes; n > 0 {
		parts = append(parts, plugin.Count(n, "dead container"))
	}
	return strings.Join(parts, " and ")
}

// owner is a pod with what stays of it, oldest first.
type owner struct {
	*pod
	records []leftover
}

// name is of at most twice max bytes.
func (o *owner) name(max int) string {
	if o.pod.name == "" {
		return "a pod without a name"
	}
	return plugin.Safe(o.namespace, max) + "/" + plugin.Safe(o.pod.name, max)
}

// owners sorts the pods by how much stays of them, then by name.
func owners(stuck []leftover) []*owner {
	of := map[*pod]*owner{}
	var all []*owner
	for _, f := range stuck {
		o := of[f.pod]
		if o == nil {
			o = &owner{pod: f.pod}
			of[f.pod] = o
			all = append(all, o)
		}
		o.records = append(o.records, f)
	}
	slices.SortStableFunc(all, func(a, b *owner) int {
		return cmp.Or(cmp.Compare(len(b.records), len(a.records)), strings.Compare(a.namespace, b.namespace), strings.Compare(a.pod.name, b.pod.name))
	})
	return all
}

// withPods appends the names of the pods of which most stays, as many as a
// message has room for. Where no pod holds a good part, it tells the namespaces
// that do, and one pod.
func withPods(message string, pods []*owner, records int) string {
	culprits, namespaces := 0, map[string]int{}
	for _, o := range pods {
		namespaces[o.namespace] += len(o.records)
		if plugin.IsCulprit(float64(len(o.records)), float64(records)) {
			culprits++
		}
	}
	if culprits == 0 {
		var all []plugin.Consumer
		for namespace, n := range namespaces {
			all = append(all, plugin.Consumer{Name: plugin.Safe(namespace, 60), Amount: float64(n)})
		}
		message += fmt.Sprintf("; %d pods", len(pods))
		for i, c := range plugin.Culprits(all, float64(records), 2) {
			message += fmt.Sprintf("%s %s (%.0f)", []string{", most of namespace", ","}[min(i, 1)], c.Name, c.Amount)
		}
		return message + ", such as " + pods[0].name(60)
	}
	told := ""
	for i, o := range pods[:culprits] {
		name := o.name(60)
		more := " and " + plugin.Count(len(pods)-i-1, "more pod")
		if i == len(pods)-1 {
			more = ""
		}
		if i > 0 {
			name = ", " + name
		}
		if i > 0 && len(message)+len("; pods: ")+len(told)+len(name)+len(more) > plugin.MaxMessage {
			return message + "; pods: " + told + fmt.Sprintf(" and %d more", len(pods)-i)
		}
		told += name
	}
	if more := len(pods) - culprits; more > 0 {
		told += fmt.Sprintf(" and %d more", more)
	}
	return message + "; pods: " + told
}

// age writes a duration in its two largest units: 45s, 10m, 3h20m, 2d5h.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
