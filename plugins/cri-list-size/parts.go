package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/apart"
	"npd-plugins/internal/cri"
	"npd-plugins/internal/plugin"
)

// What it may cost to find what fills a list that is refused. For each question
// the runtime walks all of its records, some 20 ms of CPU for 20,000 of them, so
// that what was found holds for a while.
const (
	maxQuestions = 64
	maxBytes     = 16 << 20 // of all answers
	maxTime      = 8 * time.Second
	holds        = 10 * time.Minute
)

// largeEntry is the size in bytes of a large entry of a list.
const largeEntry = 16 << 10

// finding is what the next look need not ask for again.
type finding struct {
	At        time.Time         `json:"at"`
	Consumers []plugin.Consumer `json:"consumers"`
}

// fill tells who holds how much of the lists.
func (s *survey) fill(ctx context.Context, l *plugin.Look) []plugin.Consumer {
	if len(s.sandboxes.large)+len(s.containers.large) == 0 {
		return s.heaviest()
	}
	var f finding
	if !l.Recall(&f) || len(f.Consumers) == 0 || l.Now.Sub(f.At) > holds || f.At.After(l.Now) {
		f = finding{l.Now, s.divide(ctx, l)}
	}
	l.Remember(f)
	return f.Consumers
}

// divide finds who holds the parts of the lists that are refused.
func (s *survey) divide(ctx context.Context, l *plugin.Look) []plugin.Consumer {
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	d := division{ctx: ctx, survey: s, logged: logged(ctx, l), random: rand.New(rand.NewPCG(uint64(l.Now.UnixNano()), 0)),
		questions: maxQuestions, bytes: maxBytes, estimates: map[string]float64{}}
	var parts []part
	for _, list := range []*list{&s.sandboxes, &s.containers} {
		for state, size := range list.large {
			parts = append(parts, part{list, state, size})
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(b.size, a.size) })
	for i, part := range parts {
		d.part(part, d.questions/(len(parts)-i))
	}
	consumers := s.heaviest()
	for name, bytes := range d.estimates {
		same := func(c plugin.Consumer) bool { return c.Name == name || strings.HasPrefix(c.Name, name+" (") }
		if i := slices.IndexFunc(consumers, same); i >= 0 {
			bytes += consumers[i].Amount
			consumers = slices.Delete(consumers, i, i+1)
		}
		consumers = append(consumers, plugin.Consumer{Name: name + " about", Amount: bytes})
	}
	if d.unseen > 0 {
		consumers = append(consumers, plugin.Consumer{Name: "what could not be listed in parts", Amount: float64(d.unseen)})
	}
	return plugin.Culprits(consumers, 0, 50)
}

// division asks for a list in parts, each of which is answered, or refused with
// its size.
type division struct {
	ctx       context.Context
	survey    *survey
	logged    []loggedPod
	random    *rand.Rand
	questions int // that may still be asked
	bytes     int // that may still come

	estimates map[string]float64 // bytes by the name of an owner
	unseen    uint64             // bytes of which nothing is known
}

// part is the entries of one state, of which there are too many for a reply.
type part struct {
	*list
	state int32
	size  uint64
}

// ask returns the bytes of the answer, and whether it is refused for its size.
func (d *division) ask(p part, q question, visit func(entry)) (bytes uint64, refused, ok bool) {
	if d.questions == 0 || d.bytes <= 0 || d.ctx.Err() != nil {
		return 0, false, false
	}
	d.questions--
	q.state = &p.state
	answer, err := p.list.ask(d.ctx, q, visit)
	if size, _, tooLarge := cri.TooLarge(err); tooLarge {
		return size, true, true
	}
	d.bytes -= answer.Bytes
	return uint64(answer.Bytes), false, err == nil
}

// part tells namespaces apart by kubelet's label, and the owners in those of
// which there is still too much for a reply. Most of its questions draw entries.
func (d *division) part(p part, questions int) {
	drawn := d.draw(p, questions*3/4)
	weights := map[string]int{} // of namespaces
	for pod := range d.survey.pods {
		namespace, _, _ := strings.Cut(pod, "/")
		weights[namespace] += 0
	}
	for _, pod := range d.logged {
		weights[pod.namespace]++
	}
	for _, e := range drawn {
		weights[e.pod.namespace] += e.bytes
	}
	delete(weights, "") // no label selects what has none
	rest := p.size
	for _, namespace := range slices.SortedFunc(maps.Keys(weights), func(a, b string) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), strings.Compare(a, b))
	}) {
		if rest < p.size/20 {
			break // too little for a culprit
		}
		bytes, refused, ok := d.ask(p, question{labels: map[string]string{cri.LabelNamespace: namespace}}, p.count)
		if !ok {
			continue
		}
		rest -= min(rest, bytes)
		if refused {
			d.owners(p, namespace, bytes, drawn)
		}
	}
	d.share(rest, drawn, func(e entry) bool { return e.pod.namespace == "" }, func(rest uint64) { d.unseen += rest })
}

// draw returns entries drawn at random. Runtimes take the beginning of an id for
// the whole when no other begins so (truncindex in containerd and CRI-O; Docker
// lists all that do), and ids are random. How many digits tell one id apart
// depends on how many there are: of three lengths that is taken which has hit
// most often.
func (d *division) draw(p part, questions int) (drawn []entry) {
	shortest := 1 // for entries as large as the annotations of kubectl apply make them
	for n := p.size / largeEntry; n > 16; n /= 16 {
		shortest++
	}
	type luck struct{ tries, hits float64 }
	var lengths [3]luck
	for range questions {
		best := slices.IndexFunc(lengths[:], func(l luck) bool {
			return !slices.ContainsFunc(lengths[:], func(o luck) bool { return (o.hits+1)/(o.tries+2) > (l.hits+1)/(l.tries+2) })
		})
		before := len(drawn)
		id := fmt.Sprintf("%016x", d.random.Uint64())[:min(shortest+best, 16)]
		if _, _, ok := d.ask(p, question{id: id}, func(e entry) { drawn = append(drawn, e) }); !ok {
			break
		}
		lengths[best].tries++
		if len(drawn) > before {
			lengths[best].hits++
		}
	}
	return drawn
}

// owners shares out the bytes of a namespace by what was drawn, else by asking
// for some of the pods that have logs.
func (d *division) owners(p part, namespace string, size uint64, drawn []entry) {
	d.share(size, drawn, func(e entry) bool { return e.pod.namespace == namespace }, func(size uint64) {
		d.ownersWithLogs(p, namespace, size)
	})
}

// share divides bytes among the owners of the entries in proportion to what
// these weigh, or leaves them all to the other function when there is no entry.
func (d *division) share(bytes uint64, of []entry, those func(entry) bool, otherwise func(uint64)) {
	total := 0
	for _, e := range of {
		if those(e) {
			total += e.bytes
		}
	}
	if total == 0 {
		otherwise(bytes)
		return
	}
	for _, e := range of {
		if those(e) {
			d.estimates[ownerName(e.pod.namespace, e.pod.name)] += float64(bytes) * float64(e.bytes) / float64(total)
		}
	}
}

// perOwner is how many pods of an owner stand for all.
const perOwner = 4

// ownersWithLogs asks for some of the pods of a namespace that kubelet has logs
// of, for they are all of one owner alike. What they do not make up is of pods
// without logs.
func (d *division) ownersWithLogs(p part, namespace string, size uint64) {
	pods := map[string][]loggedPod{}
	for _, pod := range d.logged {
		if pod.namespace == namespace {
			name := ownerName(namespace, pod.name)
			pods[name] = append(pods[name], pod)
		}
	}
	rest := float64(size)
	for _, name := range slices.SortedFunc(maps.Keys(pods), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(pods[b]), len(pods[a])), strings.Compare(a, b))
	}) {
		asked, bytes := 0, uint64(0)
		for _, pod := range pods[name][:min(len(pods[name]), perOwner)] {
			answer, _, ok := d.ask(p, question{labels: map[string]string{cri.LabelPodUID: pod.uid}}, func(entry) {})
			if !ok {
				break
			}
			asked++
			bytes += answer
		}
		if asked > 0 {
			held := min(float64(bytes)*float64(len(pods[name]))/float64(asked), rest)
			d.estimates[name] += held
			rest -= held
		}
	}
	if rest > 0 {
		d.estimates["pods without logs in namespace "+plugin.Safe(namespace, 63)] += rest
	}
}

// ownerName names the owner of a pod for a message.
func ownerName(namespace, pod string) string {
	if pod == "" {
		return withoutPod
	}
	name, more := plugin.Safe(namespace+"/"+pod, 70), ""
	if owner := ownerPrefix(pod); owner != pod {
		name, more = plugin.Safe(namespace+"/"+owner, 60), "-*"
	}
	return name + more
}

// loggedPod is a pod for which kubelet has a directory of logs.
type loggedPod struct{ namespace, name, uid string }

// logs is where kubelet keeps them, as <namespace>_<name>_<uid> (pkg/kubelet/kuberuntime/helpers.go).
const logs = "/var/log/pods"

// logged are the pods with logs. The directory is on a disk, which may hang.
func logged(ctx context.Context, l *plugin.Look) (pods []loggedPod) {
	ctx, cancel := context.WithTimeout(ctx, maxTime/4)
	defer cancel()
	names, err := apart.ReadNames(ctx, l.Host, logs, 20000)
	if err != nil {
		l.Log.Infof("the pods with logs are not known: %v", err)
	}
	for _, name := range names {
		if f := strings.Split(name, "_"); len(f) == 3 {
			pods = append(pods, loggedPod{f[0], f[1], f[2]})
		}
	}
	return pods
}
