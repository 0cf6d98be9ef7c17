package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/cri"
	"npd-plugins/internal/plugin"
)

// attempts are those of kubelet to start one container of a pod, in a row and
// without success. Each makes a container of its own, of the same name. kubelet
// waits two minutes for a start (runtimeRequestTimeout), the runtime then kills
// what hangs, and kubelet tries again after a pause that grows from ten seconds
// to five minutes (maxContainerBackOff in pkg/kubelet/kubelet.go).
type attempts struct {
	UID, Name string // of the pod, of the container in it
	Pod       string // for a message
	Tries     int
	Last      string // id of the container that the last attempt made
	Since     int64  // when the first attempt began, in seconds since 1970
	Seen      int64  // when a container was last seen created and not started, likewise
	Told      bool   // it has been long enough for a Problem
}

// memory is kept from look to look.
type memory []attempts

const (
	// settled is how old a created container is that is an attempt without
	// success so far. A healthy start takes far less than a second.
	settled = 10 * time.Second

	// paused is how long an attempt may be gone without the next: more than
	// kubelet's longest pause.
	paused = 10 * time.Minute

	maxAttempts = 50 // that are remembered
)

// askRuntime adds what the runtime knows to the processes: the containers that
// it lists as created for longer than the age, in one or several attempts.
func (c *check) askRuntime(ctx context.Context, l *plugin.Look, found []stuck, m *memory) ([]stuck, error) {
	client, err := cri.Connect(ctx, l.Host, c.endpoint)
	if err != nil {
		return found, err
	}
	defer client.Close()
	found, err = notRunning(ctx, client, found)
	if err != nil {
		return found, err
	}
	var created []stuck
	_, err = client.Containers(ctx, inState(runtime.ContainerState_CONTAINER_CREATED), func(k *cri.Container) {
		age := l.Now.Sub(k.CreatedAt)
		if k.State != runtime.ContainerState_CONTAINER_CREATED || k.CreatedAt.IsZero() || age < min(settled, c.age) {
			return
		}
		s := stuck{owner: k.Pod(), id: plugin.Safe(string(k.ID), 64), age: age}
		if a := m.attempt(k, l.Now); a != nil {
			s.tries, s.age = a.Tries, l.Now.Sub(time.Unix(a.Since, 0))
			a.Told = a.Told || s.age >= c.age
		}
		if s.age >= c.age {
			created = append(created, s)
		}
	})
	if err != nil {
		return found, err
	}
	between, err := m.between(ctx, client, l.Now)
	return append(merge(found, created), between...), err
}

func inState(state runtime.ContainerState) *runtime.ContainerFilter {
	return &runtime.ContainerFilter{State: &runtime.ContainerStateValue{State: state}}
}

// notRunning leaves out the processes of running containers: any process can
// call itself runc:[2:INIT], but none of a container that has not started.
func notRunning(ctx context.Context, client *cri.Client, found []stuck) ([]stuck, error) {
	if len(found) == 0 {
		return nil, nil
	}
	_, err := client.Containers(ctx, inState(runtime.ContainerState_CONTAINER_RUNNING), func(k *cri.Container) {
		if k.State == runtime.ContainerState_CONTAINER_RUNNING && len(k.ID) > 0 {
			found = slices.DeleteFunc(found, func(s stuck) bool { return strings.Contains(s.cgroups, string(k.ID)) })
		}
	})
	return found, err
}

// attempt notes a container that is created and not started. It is nil for one
// without kubelet's labels, and beyond what can be remembered.
func (m *memory) attempt(k *cri.Container, now time.Time) *attempts {
	if len(k.PodUID) == 0 || len(k.Name) == 0 {
		return nil
	}
	uid, name, id := plugin.Safe(string(k.PodUID), 64), plugin.Safe(string(k.Name), 64), plugin.Safe(string(k.ID), 64)
	i := slices.IndexFunc(*m, func(a attempts) bool { return a.UID == uid && a.Name == name })
	if i < 0 {
		if len(*m) == maxAttempts {
			return nil
		}
		i = len(*m)
		*m = append(*m, attempts{UID: uid, Name: name, Pod: k.Pod(), Since: k.CreatedAt.Unix()})
	}
	a := &(*m)[i]
	if a.Last != id {
		a.Last = id
		a.Tries++
	}
	a.Seen = now.Unix()
	return a
}

// between returns the containers of which kubelet has given up an attempt and
// not made the next, and forgets those that have started, or are gone.
func (m *memory) between(ctx context.Context, client *cri.Client, now time.Time) (over []stuck, err error) {
	*m = slices.DeleteFunc(*m, func(a attempts) bool {
		if a.Seen == now.Unix() || err != nil {
			return false
		}
		age := now.Sub(time.Unix(a.Seen, 0))
		if age < 0 || age > paused {
			return true
		}
		var ended bool
		if ended, err = a.ended(ctx, client); ended || err != nil {
			return err == nil
		}
		if a.Told {
			over = append(over, stuck{owner: cmp.Or(a.Pod, "pod "+a.UID), id: a.Last, age: now.Sub(time.Unix(a.Since, 0)), tries: a.Tries, over: true})
		}
		return false
	})
	return over, err
}

// ended says whether the newest container of the attempts has ever run, or there
// is none any more.
func (a attempts) ended(ctx context.Context, client *cri.Client) (bool, error) {
	var newest time.Time
	var id string
	_, err := client.Containers(ctx, cri.Of(a.UID), func(k *cri.Container) {
		if string(k.Name) == a.Name && string(k.PodUID) == a.UID && k.CreatedAt.After(newest) {
			newest, id = k.CreatedAt, string(k.ID)
		}
	})
	if err != nil || id == "" {
		return err == nil, err
	}
	return client.Started(ctx, id)
}
