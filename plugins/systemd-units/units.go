package main

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"npd-plugins/internal/cgroup"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/systemd"
)

const (
	// scopes is the name that systemd-run gives its scopes.
	scopes = "run-*.scope"
	// described begins the description that kubelet gives the scope of a mount,
	// before the path (AddSystemdScope in k8s.io/mount-utils, mount_linux.go).
	described = "Kubernetes transient mount for "
)

// mount is a scope in which kubelet makes, or has made, a mount.
type mount struct {
	unit string
	at   string // path on the host
}

// kubeletMounts picks the scopes of kubelet's mounts from a list.
func kubeletMounts(list []systemd.Unit) (mounts []mount) {
	for _, u := range list {
		at, ok := strings.CutPrefix(u.Description, described)
		if !ok {
			continue
		}
		if ok, _ := path.Match(scopes, u.Name); ok {
			mounts = append(mounts, mount{u.Name, at})
		}
	}
	return mounts
}

// volume tells the pod and the volume of a path in kubelet's directory:
//
//	/var/lib/kubelet/pods/<uid>/volumes/kubernetes.io~secret/token
//	/var/lib/kubelet/pods/<uid>/volume-subpaths/<volume>/<container>/<number>
//
// Of another path, such as that of a disk, the volume is all of it.
func (m mount) volume() (podUID, volume string) {
	_, rest, _ := strings.Cut(m.at, "/pods/")
	uid, rest, _ := strings.Cut(rest, "/")
	if podUID = cgroup.OwnerOf("pod" + uid).PodUID; podUID == "" {
		return "", m.at
	}
	return podUID, strings.TrimPrefix(rest, "volumes/")
}

// blame names the pods, or else the volumes, with most of the scopes.
func blame(l *plugin.Look, mounts []mount) (most []string) {
	count, example := map[string]int{}, map[string]string{}
	owners := map[string]string{}
	for _, m := range mounts {
		uid, volume := m.volume()
		key := cmp.Or(uid, volume)
		owners[key] = uid
		count[key]++
		example[key] = volume
	}
	for _, key := range descending(count)[:min(len(count), 10)] {
		what := "volume " + plugin.Safe(example[key], 60)
		if uid := owners[key]; uid != "" {
			what = l.Owner(cgroup.Owner{PodUID: uid}) + ", " + what
		}
		most = append(most, fmt.Sprintf("%d of %s", count[key], what))
	}
	return most
}

// largest names the families with most units and, when kubelet's mounts are
// most of them, their pods.
func largest(l *plugin.Look, list []systemd.Unit, mounts []mount) (message string, details []string) {
	count := map[string]int{}
	for _, u := range list {
		count[family(u.Name)]++
	}
	for _, f := range descending(count)[:min(len(count), 10)] {
		details = append(details, fmt.Sprintf("%d of %d are %s", count[f], len(list), plugin.Safe(f, 60)))
	}
	message = strings.Join(details[:min(len(details), 3)], ", ")
	if len(mounts) > len(list)/2 {
		pods := blame(l, mounts)
		message += ", kubelet's mounts: " + pods[0]
		details = append(details, pods...)
	}
	return message, details
}

// descending has the names by falling count.
func descending(count map[string]int) []string {
	return slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
}

// family is the name with a "*" for what tells it from others of its kind:
// session-4711.scope is of session-*.scope, user@0.service of user@*.service,
// run-r0123abcd.scope of run-*.scope. That begins behind an "@" or with the word
// that has the first digit. A name without any is a family by itself.
func family(name string) string {
	kind := path.Ext(name)
	stem := strings.TrimSuffix(name, kind)
	if before, _, ok := strings.Cut(stem, "@"); ok {
		return before + "@*" + kind
	}
	digit := strings.IndexAny(stem, "0123456789")
	if digit < 0 {
		return name
	}
	return stem[:strings.LastIndex(stem[:digit], "-")+1] + "*" + kind
}
