// Command cri-list-size tells that the container runtime's list replies come
// near the gRPC message limit, beyond which kubelet cannot list any more and
// the node goes NotReady.
package main

import (
	"context"
	"flag"
	"fmt"
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
		Reads: []string{"the CRI socket: ListContainers, ListPodSandbox; their parts by state, id and label, at most 64 questions in 10 minutes, when they are refused",
			"/var/log/pods (names of pods), when they are refused"},
		Needs:            "the directory of the CRI socket below --host-root, and the right to connect (root)",
		LookAlikes:       "a slow reply (it is weighed, not timed); a runtime that does not answer is Unknown here",
		Example:          "--host-root=/host --limit=16MiB --percent=50",
		FailureThreshold: 1,
		Timeout:          25 * time.Second,
		Flags: func(fs *flag.FlagSet) {
			plugin.BytesVar(fs, &c.limit, "limit", 16<<20, "largest message, a `size`: 16MiB is kubelet's (since 1.13) and containerd's; kubelet before 1.11 has 4MiB")
			plugin.PercentVar(fs, &c.percent, "percent", 50, "Problem at this `share` of the limit, in percent")
			cri.EndpointVar(fs, &c.endpoint)
		},
		Look: c.look,
	})
}

// survey is what both lists tell.
type survey struct {
	client                *cri.Client
	sandboxes, containers list
	pods                  map[string]*pod
	podOf                 map[string]*pod // by id of the sandbox
}

// list is one of the two lists as the runtime gave it, or refused it.
type list struct {
	what    string           // "ListContainers"
	unit    string           // "containers"
	states  map[int32]string // that an entry may be in, by the names of the API
	dead    int32            // the state of those that leak
	deadAre string           // "exited containers"
	ask     func(context.Context, question, func(entry)) (cri.List, error)

	bytes   uint64
	refused bool             // by the runtime, with ResourceExhausted
	limit   uint64           // that the runtime refused it for; 0 when not refused or not said
	large   map[int32]uint64 // bytes of the entries in a state that are too many for a reply as well
	deads   int              // entries that were seen in the state dead
}

// question is for the entries that match all of it, so the zero value is for all.
type question struct {
	state  *int32
	id     string // the beginning of one id
	labels map[string]string
}

// entry is one of a list.
type entry struct {
	pod   *pod
	bytes int
	state int32
}

// pod is what a pod adds to the lists, in bytes.
type pod struct {
	namespace, name string
	bytes           int
}

func newSurvey(client *cri.Client) *survey {
	s := &survey{client: client, pods: map[string]*pod{}, podOf: map[string]*pod{}}
	s.sandboxes = list{what: "ListPodSandbox", unit: "sandboxes", states: runtime.PodSandboxState_name,
		dead: int32(runtime.PodSandboxState_SANDBOX_NOTREADY), deadAre: "NotReady sandboxes", ask: s.askSandboxes}
	s.containers = list{what: "ListContainers", unit: "containers", states: runtime.ContainerState_name,
		dead: int32(runtime.ContainerState_CONTAINER_EXITED), deadAre: "exited containers", ask: s.askContainers}
	return s
}

func (s *survey) askSandboxes(ctx context.Context, q question, visit func(entry)) (cri.List, error) {
	filter := &runtime.PodSandboxFilter{Id: q.id, LabelSelector: q.labels}
	if q.state != nil {
		filter.State = &runtime.PodSandboxStateValue{State: runtime.PodSandboxState(*q.state)}
	}
	return s.client.Sandboxes(ctx, filter, func(b *cri.Sandbox) {
		p := s.pod(string(b.Namespace), string(b.Name))
		s.podOf[string(b.ID)] = p
		visit(entry{p, b.Bytes, int32(b.State)})
	})
}

func (s *survey) askContainers(ctx context.Context, q question, visit func(entry)) (cri.List, error) {
	filter := &runtime.ContainerFilter{Id: q.id, LabelSelector: q.labels}
	if q.state != nil {
		filter.State = &runtime.ContainerStateValue{State: runtime.ContainerState(*q.state)}
	}
	return s.client.Containers(ctx, filter, func(k *cri.Container) {
		p := s.podOf[string(k.SandboxID)]
		if p == nil {
			p = s.pod(string(k.Namespace), string(k.PodName))
		}
		visit(entry{p, k.Bytes, int32(k.State)})
	})
}

// pod finds or makes the entry of a pod.
func (s *survey) pod(namespace, name string) *pod {
	key := namespace + "/" + name
	if s.pods[key] == nil {
		s.pods[key] = &pod{namespace: namespace, name: name}
	}
	return s.pods[key]
}

func (c *check) look(ctx context.Context, l *plugin.Look) plugin.Verdict {
	client, err := cri.Connect(ctx, l.Host, c.endpoint)
	if err != nil {
		return plugin.Unknownf("cannot weigh the CRI lists: %s", cri.Reason(err))
	}
	defer client.Close()
	s := newSurvey(client)
	err = s.sandboxes.weigh(ctx)
	if err == nil {
		err = s.containers.weigh(ctx)
	}
	if err != nil && !s.sandboxes.refused { // which is the finding, whatever became of the other list
		return plugin.Unknownf("cannot weigh the CRI lists: %s", cri.Reason(err))
	}

	worst := &s.containers
	if s.sandboxes.refused && !worst.refused || s.sandboxes.refused == worst.refused && s.sandboxes.bytes > worst.bytes {
		worst = &s.sandboxes
	}
	v := plugin.Verdict{Measurements: []plugin.Measurement{
		{Name: "list_containers", Value: float64(s.containers.bytes), Limit: float64(c.limit), Unit: "bytes", Forecast: !worst.refused},
		{Name: "list_pod_sandbox", Value: float64(s.sandboxes.bytes), Limit: float64(c.limit), Unit: "bytes", Forecast: !worst.refused},
		{Name: "containers_exited", Value: float64(s.containers.deads), Unit: "containers"},
		{Name: "sandboxes_not_ready", Value: float64(s.sandboxes.deads), Unit: "sandboxes"},
	}}
	size := plugin.FormatBytes(float64(worst.bytes))
	if worst.refused {
		v.Status = plugin.Problem
		v.Message = fmt.Sprintf("runtime refuses %s: the reply is %s, over its gRPC limit", worst.what, size)
		if worst.limit > 0 {
			v.Message += " of " + plugin.FormatBytes(float64(worst.limit))
		}
	} else {
		share := worst.bytes * 100 / c.limit
		v.Message = fmt.Sprintf("%s reply is %s, %d percent of the gRPC limit %s", worst.what, size, share, plugin.FormatBytes(float64(c.limit)))
		if share >= uint64(c.percent) {
			v.Status = plugin.Problem
		}
	}
	v.Message += "; " + s.containers.counts() + ", " + s.sandboxes.counts()
	consumers := s.fill(ctx, l)
	if v.Status == plugin.Problem {
		v.Message += "; " + s.blame(consumers)
		v.Details = append(v.Details, fmt.Sprintf("ListContainers %s, ListPodSandbox %s", plugin.FormatBytes(float64(s.containers.bytes)), plugin.FormatBytes(float64(s.sandboxes.bytes))))
		for _, c := range plugin.Culprits(consumers, 0, 10) {
			v.Details = append(v.Details, told(c))
		}
		if client.Streams(ctx) {
			v.Message += "; a kubelet that uses the runtime's streaming lists is safe"
		}
	}
	return v
}

// weigh asks for the whole list and, when that is refused, for its parts of one
// state each. An error means that the runtime could not be asked.
func (l *list) weigh(ctx context.Context) error {
	whole, err := l.ask(ctx, question{}, l.count)
	size, limit, tooLarge := cri.TooLarge(err)
	l.bytes, l.limit = uint64(whole.Bytes), limit
	if !tooLarge {
		return err
	}
	l.refused = limit != cri.MaxReply // else it was sent, and only this check did not take it
	l.large = map[int32]uint64{}
	parts := uint64(0)
	for state := range l.states {
		part, err := l.ask(ctx, question{state: &state}, l.count)
		bytes := uint64(part.Bytes)
		if size, _, tooLarge := cri.TooLarge(err); tooLarge {
			bytes = size
			l.large[state] = size
		}
		parts += bytes
	}
	l.bytes = max(size, parts) // a refusal without figures weighs what its parts weigh
	return nil
}

// count takes an entry of the list into the books.
func (l *list) count(e entry) {
	e.pod.bytes += e.bytes
	if e.state == l.dead {
		l.deads++
	}
}

// counts tells what of the list leaks.
func (l *list) counts() string {
	if size, ok := l.large[l.dead]; ok {
		return plugin.FormatBytes(float64(size)) + " of " + l.deadAre
	}
	return fmt.Sprintf("%d %s", l.deads, l.deadAre)
}

// blame tells what fills the lists: the owners of pods that hold a good part of
// them, else the namespaces, else that nobody does.
func (s *survey) blame(consumers []plugin.Consumer) string {
	total := float64(s.sandboxes.bytes + s.containers.bytes)
	if names := culprits(consumers, total); names != "" {
		return "most: " + names
	}
	held := map[string]float64{}
	for _, c := range consumers {
		if namespace, _, ok := strings.Cut(c.Name, "/"); ok {
			held[namespace] += c.Amount
		}
	}
	var namespaces []plugin.Consumer
	for name, bytes := range held {
		namespaces = append(namespaces, plugin.Consumer{Name: name, Amount: bytes})
	}
	if names := culprits(namespaces, total); names != "" {
		return "many small ones, most in namespace " + names
	}
	return "many small ones: no owner of pods and no namespace holds 10 percent"
}

func culprits(consumers []plugin.Consumer, total float64) string {
	var names []string
	for _, c := range plugin.Culprits(consumers, total, 2) {
		names = append(names, told(c))
	}
	return strings.Join(names, ", ")
}

func told(c plugin.Consumer) string { return c.Name + " " + plugin.FormatBytes(c.Amount) }

// withoutPod are containers and sandboxes that kubelet did not make.
const withoutPod = "containers without a pod"

// heaviest are the owners of the pods that were seen in the lists, by what they hold.
func (s *survey) heaviest() []plugin.Consumer {
	type owner struct {
		pods, bytes int
		name        string
	}
	owners := map[string]*owner{}
	for _, p := range s.pods {
		if p.bytes == 0 {
			continue
		}
		name := ownerName(p.namespace, p.name)
		if owners[name] == nil {
			owners[name] = &owner{name: plugin.Safe(p.namespace+"/"+p.name, 70)}
		}
		owners[name].pods++
		owners[name].bytes += p.bytes
	}
	var consumers []plugin.Consumer
	for name, o := range owners {
		switch {
		case name == withoutPod:
		case o.pods == 1:
			name = o.name
		default:
			name = fmt.Sprintf("%s (%d pods)", name, o.pods)
		}
		consumers = append(consumers, plugin.Consumer{Name: name, Amount: float64(o.bytes)})
	}
	return consumers
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
