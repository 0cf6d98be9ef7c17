package main

import (
	"cmp"
	"slices"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
)

// records are what the runtime lists, as kubelet's garbage collection sees it.
//
// Its rules are those of kubelet 1.36
// (pkg/kubelet/kuberuntime/kuberuntime_gc.go). Every minute (ContainerGCPeriod) kubelet removes
//
//   - of the containers that do not run (exited, created or unknown) all but
//     the newest of each pair of pod UID and container name
//     (MaxPerPodContainer, 1), which "kubectl logs --previous" reads;
//   - all containers that do not run of a pod that was deleted and is done;
//   - sandboxes that are not ready and hold no container, except the newest
//     sandbox of its pod, from which kubelet knows the pod's state;
//   - that one too when the pod was deleted and is done. Before it removes a
//     sandbox it stops it, and goes on to the next one when that fails.
//
// Of a pod that was deleted and is done kubelet also removes the directory,
// which is how this check knows of it.
//
// A sandbox whose network cannot be torn down is a case that these rules leave
// out: StopPodSandbox fails, the pod is never done, and kubelet keeps its
// sandbox and its containers while it tries again and again. The runtime's CNI
// library then still has the result it keeps for each sandbox from ADD until DEL
// has succeeded. A sandbox that is not ready and has one is counted as well.
//
// Records are kept short, as there may be tens of thousands: names of which
// nothing but equality matters are hashed.
type records struct {
	pods       map[uint64]*pod
	sandboxes  map[uint64]*sandbox // by hash of the id
	dead       []container
	namespaces map[string]string // each once

	ready int // sandboxes
}

// pod is a pod that has a record.
type pod struct {
	order           int    // of first sight in the lists
	uid             uint64 // hash, 0 when it is not known
	namespace, name string
	newest          *sandbox // nil when it has none
}

type sandbox struct {
	id      string
	pod     *pod
	created int64 // in nanoseconds since 1970
	ready   bool
	inUse   bool // holds a container, in whatever state
}

// container is one that does not run. Its pod and name make the unit of which
// kubelet keeps the newest.
type container struct {
	id      uint64 // hash
	pod     *pod
	name    uint64   // hash
	sandbox *sandbox // nil when it is not in the list
	created int64    // in nanoseconds since 1970
}

func newRecords() *records {
	return &records{pods: map[uint64]*pod{}, sandboxes: map[uint64]*sandbox{}, namespaces: map[string]string{}}
}

// hash is FNV-1a of 64 bits: the same for the same parts in every look.
func hash(parts ...[]byte) uint64 {
	h := uint64(14695981039346656037)
	for _, part := range parts {
		for _, b := range part {
			h = (h ^ uint64(b)) * 1099511628211
		}
		h = (h ^ '/') * 1099511628211 // no name of a pod or namespace holds one
	}
	return h
}

// pod finds or makes the pod of a record. What has no UID is told apart by its
// name, and else by the sandbox alone: such records are not known to belong
// together.
func (r *records) pod(uid, namespace, name, sandbox []byte) *pod {
	p := &pod{order: len(r.pods)}
	var key uint64
	switch {
	case len(uid) > 0:
		key = hash(uid)
		p.uid = key
	case len(name) > 0:
		key = hash(namespace, name)
	default:
		key = hash(nil, nil, sandbox)
	}
	if known := r.pods[key]; known != nil {
		return known
	}
	if _, ok := r.namespaces[string(namespace)]; !ok {
		r.namespaces[string(namespace)] = string(namespace)
	}
	p.namespace, p.name = r.namespaces[string(namespace)], string(name)
	r.pods[key] = p
	return p
}

func (r *records) addSandbox(b *cri.Sandbox) {
	key := hash(b.ID)
	if r.sandboxes[key] != nil {
		return
	}
	s := &sandbox{id: string(b.ID), pod: r.pod(b.UID, b.Namespace, b.Name, b.ID), created: nanoseconds(b.CreatedAt),
		ready: b.State == runtime.PodSandboxState_SANDBOX_READY}
	r.sandboxes[key] = s
	if s.ready {
		r.ready++
	}
	// Of two that are of the same time the ready one is the newest.
	if n := s.pod.newest; n == nil || s.created > n.created || s.created == n.created && s.ready {
		s.pod.newest = s
	}
}

// addContainer takes a container after all sandboxes.
func (r *records) addContainer(k *cri.Container) {
	s := r.sandboxes[hash(k.SandboxID)]
	if s != nil {
		s.inUse = true
	}
	if k.State == runtime.ContainerState_CONTAINER_RUNNING {
		return
	}
	c := container{id: hash(k.ID), name: hash(k.Name), sandbox: s, created: nanoseconds(k.CreatedAt)}
	if s != nil && (len(k.PodUID) == 0 || hash(k.PodUID) == s.pod.uid) {
		c.pod = s.pod
	} else {
		c.pod = r.pod(k.PodUID, k.Namespace, k.PodName, k.SandboxID)
	}
	r.dead = append(r.dead, c)
}

// nanoseconds is 0 for a record that does not tell its age: the oldest of all.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// notRunning is how many sandboxes are not ready and containers do not run.
func (r *records) notRunning() int { return len(r.sandboxes) - r.ready + len(r.dead) }

// leftover is a record that kubelet should have removed.
type leftover struct {
	key       uint64 // hash of its kind and id
	pod       *pod
	sandbox   *sandbox // itself, or that of the container; nil when it is not in the list
	container bool
	age       time.Duration // since a look first saw it as one
}

// leftovers finds what kubelet should have removed, keeping that many
// containers of each unit. gone says whether a pod was deleted and is done,
// networked whether CNI has yet to delete the network of a sandbox.
func (r *records) leftovers(keep int, gone func(*pod) bool, networked func(id string) bool) []leftover {
	var found []leftover
	slices.SortFunc(r.dead, func(a, b container) int { // the newest of each unit first
		if a.pod != b.pod {
			return cmp.Compare(a.pod.order, b.pod.order)
		}
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(b.created, a.created), cmp.Compare(a.id, b.id))
	})
	kept := 0 // of the unit of the container before
	for i, c := range r.dead {
		if i == 0 || c.pod != r.dead[i-1].pod || c.name != r.dead[i-1].name {
			kept = 0
		}
		if kept < keep && !gone(c.pod) {
			kept++
			continue
		}
		found = append(found, leftover{key: c.id, pod: c.pod, sandbox: c.sandbox, container: true})
	}
	for key, s := range r.sandboxes {
		needed := s.inUse || s == s.pod.newest && !gone(s.pod)
		if !s.ready && (!needed || networked(s.id)) {
			found = append(found, leftover{key: ^key, pod: s.pod, sandbox: s}) // another key than a container of that id
		}
	}
	return found
}
