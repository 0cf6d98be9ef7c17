package main

import (
	"context"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/plugin"
	"npd-plugins/internal/plugin/plugintest"
	"npd-plugins/internal/systemd"
	"npd-plugins/internal/systemd/systemdtest"
	"npd-plugins/test/lab"
)

const (
	uid   = "0a3e4f52-9f6b-4c58-8f0e-6a1b2c3d4e5f"
	other = "11111111-2222-3333-4444-555555555555"
)

// defaults are the values of the flags.
var defaults = check{scopes: 500, units: 5000, age: 5 * time.Minute}

// node has some units as any node, and the names of a pod.
func node() *systemdtest.Manager {
	m := &systemdtest.Manager{Properties: map[string]map[string]any{}}
	for i := range 300 {
		m.Units = append(m.Units, systemdtest.Unit(fmt.Sprintf("cri-containerd-%064x.scope", i), "libcontainer container", "active/running"))
	}
	return m
}

// add adds units of that age, which are named by a format with a number.
func add(m *systemdtest.Manager, n int, name, description string, age time.Duration) *systemdtest.Manager {
	for range n {
		u := systemdtest.Unit(fmt.Sprintf(name, len(m.Units)), description, "active/running")
		m.Units = append(m.Units, u)
		m.Properties[u.Name] = map[string]any{"ActiveEnterTimestamp": uint64(plugintest.Now.Add(-age).UnixMicro())}
	}
	return m
}

// runScope is the name that systemd-run gives a scope.
const runScope = "run-r%032x.scope"

func secret(uid string) string {
	return "Kubernetes transient mount for /var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~secret/token"
}

// look is a look at a host with that systemd.
func look(t *testing.T, m *systemdtest.Manager, c check) plugin.Verdict {
	t.Helper()
	root := lab.ShortDir(t)
	hosttest.Tree{"proc/1/status": "Name:\tsystemd\nVmRSS:\t   26624 kB\n", "var/log/pods/shop_cart-0_" + uid + "/": ""}.Write(t, root)
	m.Serve(t, root)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return c.look(ctx, plugintest.Look(t, hosttest.Open(t, root)))
}

func TestUnits(t *testing.T) {
	const hour = time.Hour
	subPath := "Kubernetes transient mount for /var/lib/kubelet/pods/" + uid + "/volume-subpaths/conf/app/0"
	disk := "Kubernetes transient mount for /var/lib/kubelet/plugins/kubernetes.io/gce-pd/mounts/pv-1"
	tests := []struct {
		name    string
		systemd *systemdtest.Manager
		status  plugin.Status
		words   string
	}{
		{"a quiet node", node(), plugin.OK, "300 units in systemd"},
		{"leaked scopes", add(add(node(), 400, runScope, secret(uid), 3*hour), 212, runScope, secret(other), 3*hour), plugin.Problem,
			"612 scopes of kubelet's mounts stay in systemd, oldest 3 h; most: 400 of pod shop/cart-0, volume kubernetes.io~secret/token; systemd has 26MiB"},
		{"of sub paths", add(node(), 500, runScope, subPath, 10*time.Minute), plugin.Problem, "500 scopes of kubelet's mounts stay in systemd, oldest 10 min; most: 500 of pod shop/cart-0, volume volume-subpaths/conf/app/0"},
		{"of a disk", add(node(), 500, runScope, disk, 72*hour), plugin.Problem, "oldest 3 d; most: 500 of volume /var/lib/kubelet/plugins/kubernetes.io/gce-pd/mounts/pv-1"},
		{"of a pod whose name is not known", add(node(), 500, runScope, secret(other), hour), plugin.Problem, "500 of pod " + other},
		{"not yet as many", add(node(), 499, runScope, secret(uid), hour), plugin.OK, "799 units in systemd, 499 scopes of kubelet's mounts among them, 0 stay"},
		{"mounts that are being made", add(node(), 800, runScope, secret(uid), 2*time.Second), plugin.OK, "1100 units in systemd, 800 scopes of kubelet's mounts among them, 0 stay"},
		{"scopes of others", add(node(), 800, runScope, "/usr/bin/make -j8", hour), plugin.OK, "1100 units in systemd, 0 scopes of kubelet's mounts among them"},
		{"a description without the name", add(node(), 800, "mine-%d.scope", secret(uid), hour), plugin.OK, "0 scopes of kubelet's mounts among them"},
		{"a node with many pods", add(node(), 3000, "var-lib-kubelet-pods-%d.mount", "/var/lib/kubelet/pods/x", hour), plugin.OK, "3300 units in systemd, 0 scopes"},
		{"leaked sessions", add(add(node(), 5500, "session-%d.scope", "Session of user backup", hour), 400, runScope, secret(uid), hour), plugin.Problem,
			"6200 units in systemd, limit 5000; 5500 of 6200 are session-*.scope, 400 of 6200 are run-*.scope, 300 of 6200 are cri-containerd-*.scope; systemd has 26MiB"},
		{"far more than can be listed", add(node(), 20000, runScope, secret(uid), hour), plugin.Problem, "20300 units in systemd, limit 5000; 78 of 80 are run-*.scope, 2 of 80 are cri-containerd-*.scope, kubelet's mounts: 78 of pod shop/cart-0, volume kubernetes.io~secret/token; systemd has 26MiB"},
		{"of which a sample has some others", add(node(), 20000, "odd-%d1.scope", "", hour), plugin.Problem, "20300 units in systemd, limit 5000; 2 of 2 are cri-containerd-*.scope; systemd has 26MiB"},
		{"of which a sample has none", add(&systemdtest.Manager{Properties: map[string]map[string]any{}}, 20000, "odd-%d1.scope", "", hour), plugin.Problem, "20000 units in systemd, limit 5000; none in a sample; systemd has 26MiB"},
		{"names as long as they may be", add(node(), 5000, "x%0248d.scope", "", hour), plugin.Problem, "5300 units in systemd, limit 5000"},
		{"hostile descriptions", add(node(), 500, runScope, "Kubernetes transient mount for %s\x1b[2J\n/pods/../"+strings.Repeat("\u00fc", 500), hour), plugin.Problem, "500 of volume ?s?[2J /pods/../??"},
		{"an empty description", add(node(), 500, runScope, "Kubernetes transient mount for ", hour), plugin.Problem, "most: 500 of volume ;"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := defaults
			plugintest.Want(t, look(t, tt.systemd, c), tt.status, tt.words)
		})
	}
}

// Half of the scopes are old: about half of them stay.
func TestSomeStay(t *testing.T) {
	m := node()
	for range 600 {
		add(m, 1, runScope, secret(uid), time.Hour)
		add(m, 1, runScope, secret(uid), time.Second)
	}
	plugintest.Want(t, look(t, m, defaults), plugin.Problem, "600 scopes of kubelet's mounts stay")
}

func TestMeasurements(t *testing.T) {
	v := look(t, add(node(), 600, runScope, secret(uid), time.Hour), defaults)
	var got []string
	for _, m := range v.Measurements {
		got = append(got, fmt.Sprintf("%s %v of %v %s %v", m.Name, m.Value, m.Limit, m.Unit, m.Forecast))
	}
	if want := "units 900 of 131072 units true; systemd_memory 2.7262976e+07 of 0 bytes false; leaked_scopes 600 of 0 scopes false"; strings.Join(got, "; ") != want {
		t.Errorf("%s, want %s", strings.Join(got, "; "), want)
	}
}

// A node with fewer units than a leak has is asked for their number alone.
func TestCheapFirst(t *testing.T) {
	m := node()
	m.Before = func(method string) {
		if strings.HasPrefix(method, "List") {
			t.Error("listed the units")
		}
	}
	plugintest.Want(t, look(t, m, defaults), plugin.OK, "300 units in systemd")
}

func TestUnknown(t *testing.T) {
	plugintest.Want(t, defaults.look(t.Context(), plugintest.Look(t, hosttest.Tree{}.Open(t))), plugin.Unknown, "cannot ask systemd: no socket of systemd under ", "mount the host's /run/systemd and /run/dbus there")

	noNumber := node()
	noNumber.Hide = map[string]bool{"Get": true}
	plugintest.Want(t, look(t, noNumber, defaults), plugin.Unknown, "the number of systemd's units is not known: NNames at /run/systemd/private: Unknown method Get")

	noList := add(node(), 300, runScope, secret(uid), time.Hour)
	noList.Hide = map[string]bool{"ListUnitsByPatterns": true, "ListUnits": true}
	plugintest.Want(t, look(t, noList, defaults), plugin.Unknown, "600 units in systemd, but those of kubelet's mounts are not known: ListUnitsByPatterns at /run/systemd/private: ")
	plugintest.Want(t, look(t, add(noList, 5000, runScope, secret(uid), time.Hour), defaults), plugin.Problem, "5600 units in systemd, limit 5000; systemd has 26MiB; what they are is not known: ")

	noAge := add(node(), 600, runScope, secret(uid), time.Hour)
	noAge.Hide = map[string]bool{"ActiveEnterTimestamp": true}
	plugintest.Want(t, look(t, noAge, defaults), plugin.Unknown, "600 scopes of kubelet's mounts in systemd, for an unknown time: ActiveEnterTimestamp at ")
	plugintest.Want(t, look(t, add(noAge, 5000, "session-%d.scope", "", time.Hour), defaults), plugin.Problem, "5900 units in systemd, limit 5000; 5000 of 5900 are session-*.scope")
}

func TestFamily(t *testing.T) {
	for name, want := range map[string]string{
		"run-r0123456789abcdef0123456789abcdef.scope": "run-*.scope",
		"run-rdeadbeef0.scope":                        "run-*.scope",
		"run-u4711.service":                           "run-*.service",
		"session-c12.scope":                           "session-*.scope",
		"user@1000.service":                           "user@*.service",
		"user-runtime-dir@0.service":                  "user-runtime-dir@*.service",
		"cri-containerd-3f8a1c5e7d9b2046.scope":       "cri-containerd-*.scope",
		"kubepods-besteffort-pod0a3e4f52_9f6b.slice":  "kubepods-besteffort-*.slice",
		`var-lib-kubelet-pods-0a3e4f52\x2d9f6b-volumes-kubernetes.io\x7e.mount`: "var-lib-kubelet-pods-*.mount",
		"kubelet.service": "kubelet.service",
		"4711.scope":      "*.scope",
		"-.mount":         "-.mount",
		"":                "",
		"a7":              "*",
	} {
		if got := family(name); got != want {
			t.Errorf("family(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{90 * time.Second: "90 s", 7 * time.Minute: "7 min", 119 * time.Minute: "119 min", 47 * time.Hour: "47 h", 12 * 24 * time.Hour: "12 d"} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %q, want %q", d, got, want)
		}
	}
}

func FuzzFamily(f *testing.F) {
	for _, seed := range []string{"run-r0123.scope", "user@1000.service", "kubelet.service", "-.mount", "", "@", "1", "a-1-2@3.x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := family(name)
		if got == name {
			return
		}
		before, after, ok := strings.Cut(got, "*")
		if !ok || after != path.Ext(name) || !strings.HasPrefix(name, strings.TrimSuffix(before, "@")) {
			t.Errorf("family(%q) = %q", name, got)
		}
	})
}

func FuzzVolume(f *testing.F) {
	for _, seed := range []string{secret(uid), "Kubernetes transient mount for /", "Kubernetes transient mount for /pods//pods/" + uid, "/pods/" + uid + "/", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, description string) {
		for _, m := range kubeletMounts([]systemd.Unit{{Name: "run-r1.scope", Description: description}}) {
			pod, volume := m.volume()
			if pod != "" && len(pod) != 32 && len(pod) != 36 || !strings.Contains(m.at, volume) {
				t.Errorf("pod %q, volume %q of %q", pod, volume, description)
			}
		}
	})
}
