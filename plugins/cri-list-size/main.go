// Command cri-list-size tells that the container runtime's list replies come
// near the gRPC message limit, beyond which kubelet cannot list any more and
// the node goes NotReady.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/plugin"
)

type check struct {
	limit    uint64
	percent  int
	endpoint string
}

func main() {
	c := new(check)
	plugin.Main(plugin.Check{
		Name:      "cri-list-size",
		Condition: "CRIListNearLimit",
		Purpose: "kubelet lists all containers and pod sandboxes every second. When exited containers and old sandboxes leak, the reply outgrows the gRPC message limit,\n" +
			"the runtime refuses to send it, and the node goes NotReady. Weighs the encoded replies against the limit.",
		Reads:      []string{"the CRI socket: ListContainers, ListPodSandbox"},
		Needs:      "the directory of the CRI socket below --host-root, and the right to connect (root)",
		LookAlikes: "a slow reply (it is weighed, not timed); a runtime that does not answer is Unknown here",
		Example:    "--host-root=/host --limit=16MiB --percent=50",
		For:        1,
		Timeout:    25 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.BytesVar(fs, &c.limit, "limit", 16<<20, "largest message, a `size`: 16MiB is kubelet's (since 1.13) and containerd's; kubelet before 1.11 has 4MiB")
			plugin.PercentVar(fs, &c.percent, "percent", 50, "Problem at this `share` of the limit, in percent")
			cri.EndpointVar(fs, &c.endpoint)
		},
		Look: c.look,
	})
}

// listed is one of the two lists as the runtime gave it, or refused it.
type listed struct {
	what    string // "ListContainers"
	bytes   uint64
	items   int
	refused bool   // by the runtime, with ResourceExhausted
	limit   uint64 // that the runtime refused it for; 0 when not refused or not said
	counted bool   // whether all items were seen
}

// survey is what both lists tell.
type survey struct {
	sandboxes, containers listed
	notReady, exited      int
	pods                  map[string]*pod
	podOf                 map[string]*pod // by id of the sandbox
}

// pod is what a pod adds to the lists, in bytes.
type pod struct {
	namespace, name string
	bytes           int
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	client, err := cri.Connect(ctx, l.Host, c.endpoint)
	if err != nil {
		return plugin.Unknownf("cannot weigh the CRI lists: %s", cri.Reason(err))
	}
	defer client.Close()
	s := survey{pods: map[string]*pod{}, podOf: map[string]*pod{}}
	if err := s.list(ctx, client); err != nil {
		return plugin.Unknownf("cannot weigh the CRI lists: %s", cri.Reason(err))
	}

	worst := s.containers
	if s.sandboxes.refused && !worst.refused || s.sandboxes.refused == worst.refused && s.sandboxes.bytes > worst.bytes {
		worst = s.sandboxes
	}
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "list_containers", Value: float64(s.containers.bytes), Limit: float64(c.limit), Unit: "bytes", Forecast: !worst.refused},
		{Name: "list_pod_sandbox", Value: float64(s.sandboxes.bytes), Limit: float64(c.limit), Unit: "bytes", Forecast: !worst.refused},
		{Name: "containers_exited", Value: float64(s.exited), Unit: "containers"},
		{Name: "sandboxes_not_ready", Value: float64(s.notReady), Unit: "sandboxes"},
	}}
	size := plugin.FormatBytes(float64(worst.bytes))
	if worst.refused {
		v.Status = plugin.Problem
		v.Message = fmt.Sprintf("runtime refuses %s: reply of %s over its gRPC limit", worst.what, size)
		if worst.limit > 0 {
			v.Message += " " + plugin.FormatBytes(float64(worst.limit))
		}
	} else {
		share := worst.bytes * 100 / c.limit
		v.Message = fmt.Sprintf("%s reply is %s, %d of 100 of the gRPC limit %s", worst.what, size, share, plugin.FormatBytes(float64(c.limit)))
		if share >= uint64(c.percent) {
			v.Status = plugin.Problem
		}
	}
	v.Message += "; " + s.counts()
	top := s.heaviest()
	if !s.counted() {
		l.Recall(&top) // what did not get through is best told by the last list that did
	}
	l.Remember(top)
	if v.Status == plugin.Problem && len(top) > 0 {
		v.Message += "; most: " + strings.Join(top[:min(len(top), 2)], ", ")
		v.Details = top[:min(len(top), 10)]
		if client.Streams(ctx) {
			v.Message += "; a kubelet that uses the runtime's streaming lists is safe"
		}
	}
	return v
}

// list weighs both lists. An error means that the runtime could not be asked
// and has refused nothing.
func (s *survey) list(ctx context.Context, client *cri.Client) (err error) {
	s.sandboxes, err = weigh("ListPodSandbox", runtime.PodSandboxState_name, func(state *int32) (cri.List, error) {
		var filter *runtime.PodSandboxFilter
		if state != nil {
			filter = &runtime.PodSandboxFilter{State: &runtime.PodSandboxStateValue{State: runtime.PodSandboxState(*state)}}
		}
		return client.Sandboxes(ctx, filter, s.addSandbox)
	})
	if err != nil {
		return err
	}
	s.containers, err = weigh("ListContainers", runtime.ContainerState_name, func(state *int32) (cri.List, error) {
		var filter *runtime.ContainerFilter
		if state != nil {
			filter = &runtime.ContainerFilter{State: &runtime.ContainerStateValue{State: runtime.ContainerState(*state)}}
		}
		return client.Containers(ctx, filter, s.addContainer)
	})
	if s.sandboxes.refused {
		return nil // which is the finding, whatever became of the other list
	}
	return err
}

func (s *survey) addSandbox(b *cri.Sandbox) {
	p := s.pod(string(b.Namespace), string(b.Name))
	p.bytes += b.Bytes
	s.podOf[string(b.ID)] = p
	if b.State == runtime.PodSandboxState_SANDBOX_NOTREADY {
		s.notReady++
	}
}

func (s *survey) addContainer(k *cri.Container) {
	p := s.podOf[string(k.SandboxID)]
	if p == nil {
		p = s.pod(string(k.Namespace), string(k.PodName))
	}
	p.bytes += k.Bytes
	if k.State == runtime.ContainerState_CONTAINER_EXITED {
		s.exited++
	}
}

// weigh asks for a whole list and, when that is too large to get through, for
// its parts of one state each.
func weigh(what string, states map[int32]string, ask func(state *int32) (cri.List, error)) (listed, error) {
	list, err := ask(nil)
	size, limit, tooLarge := cri.TooLarge(err)
	if !tooLarge {
		return listed{what: what, bytes: uint64(list.Bytes), items: list.Items, counted: err == nil}, err
	}
	l := listed{what: what, bytes: size, limit: limit, counted: true}
	l.refused = limit != cri.MaxReply // else it was sent, and only this check did not take it
	for state := range states {
		list, err := ask(&state)
		if err != nil {
			l.counted = false
			continue
		}
		l.items += list.Items
		if size == 0 { // a refusal without figures weighs what its parts weigh
			l.bytes += uint64(list.Bytes)
		}
	}
	return l, nil
}

// pod finds or makes the entry of a pod.
func (s *survey) pod(namespace, name string) *pod {
	key := namespace + "/" + name
	if s.pods[key] == nil {
		s.pods[key] = &pod{namespace: namespace, name: name}
	}
	return s.pods[key]
}

func (s *survey) counted() bool { return s.sandboxes.counted && s.containers.counted }

// counts tells what leaks.
func (s *survey) counts() string {
	if !s.counted() {
		return fmt.Sprintf("%d containers and %d sandboxes could be listed, the rest is too large", s.containers.items, s.sandboxes.items)
	}
	return fmt.Sprintf("%d exited containers, %d NotReady sandboxes", s.exited, s.notReady)
}

// heaviest names the owners of pods that hold most bytes of the lists.
func (s *survey) heaviest() []string {
	type owner struct {
		pods, bytes int
		name        string
	}
	owners := map[string]*owner{}
	for _, p := range s.pods {
		prefix := p.namespace + "/" + ownerPrefix(p.name)
		o := owners[prefix]
		if o == nil {
			o = &owner{name: p.namespace + "/" + p.name}
			owners[prefix] = o
		}
		o.pods++
		o.bytes += p.bytes
	}
	prefixes := slices.SortedFunc(maps.Keys(owners), func(a, b string) int {
		return cmp.Or(cmp.Compare(owners[b].bytes, owners[a].bytes), cmp.Compare(a, b))
	})
	var names []string
	for _, prefix := range prefixes[:min(len(prefixes), 10)] {
		o := owners[prefix]
		name := plugin.Safe(o.name, 70)
		switch {
		case o.name == "/":
			name = "containers without a pod"
		case o.pods > 1:
			name = fmt.Sprintf("%s-* (%d pods)", plugin.Safe(prefix, 60), o.pods)
		}
		names = append(names, name+" "+plugin.FormatBytes(float64(o.bytes)))
	}
	return names
}

// ownerPrefix is the name of what made the pod: without the random five
// characters of a ReplicaSet, DaemonSet or Job, the ordinal of a StatefulSet,
// and the template hash of a Deployment or the time of a CronJob.
func ownerPrefix(name string) string {
	stem, suffix, ok := cutLast(name)
	if !ok {
		return name
	}
	if isDigits(suffix) {
		return stem
	}
	if len(suffix) != 5 || !isRandom(suffix) {
		return name
	}
	if rest, hash, ok := cutLast(stem); ok && len(hash) >= 8 && len(hash) <= 10 && (isRandom(hash) || isDigits(hash)) {
		return rest
	}
	return stem
}

func cutLast(s string) (stem, suffix string, ok bool) {
	i := strings.LastIndexByte(s, '-')
	if i <= 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// isRandom knows the alphabet of k8s.io/apimachinery/pkg/util/rand, in which
// Kubernetes also writes template hashes.
func isRandom(s string) bool { return strings.Trim(s, "bcdfghjklmnpqrstvwxz2456789") == "" }
