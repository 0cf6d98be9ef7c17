package main

import (
	"context"
	"encoding/json"
	"fmt"
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

// fresh is the check with the defaults of its flags.
func fresh(t testing.TB) *check {
	c := &check{count: 5, window: 20 * time.Minute}
	if err := c.units.Set(nodeServices); err != nil {
		t.Fatal(err)
	}
	return c
}

// run is a service as it is at a look.
type run struct {
	restarts     uint32
	start        string // invocation
	result       string
	code, status int32
}

func (r run) properties() map[string]any {
	return map[string]any{"NRestarts": r.restarts, "InvocationID": []byte(r.start), "Result": r.result, "ExecMainCode": r.code, "ExecMainStatus": r.status,
		"ExecMainStartTimestamp": uint64(0)}
}

// runs is a service that runs.
func runs(restarts uint32, start string) run { return run{restarts, start, "success", 0, 0} }

// node has a systemd whose services a test changes between looks.
type node struct {
	*systemdtest.Manager
	check *check
	look  *plugin.Look
}

func newNode(t *testing.T) *node {
	t.Helper()
	root := lab.ShortDir(t)
	n := &node{Manager: &systemdtest.Manager{Properties: map[string]map[string]any{}}, check: fresh(t)}
	n.Serve(t, root)
	n.look = plugintest.Look(t, hosttest.Open(t, root))
	return n
}

// set has the service in that state ("active/running") from now on; it is not loaded when that is "".
func (n *node) set(name, state string, r run) {
	kept := n.Units[:0:0]
	for _, u := range n.Units {
		if u.Name != name {
			kept = append(kept, u)
		}
	}
	if state != "" {
		kept = append(kept, systemdtest.Unit(name, "", state))
	}
	n.Units, n.Properties[name] = kept, r.properties()
}

// after looks again after that time.
func (n *node) after(t *testing.T, d time.Duration) plugin.Verdict {
	t.Helper()
	n.look.Now = n.look.Now.Add(d)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	v := n.check.look(ctx, n.look)
	n.look = n.look.Next()
	return v
}

const minute = time.Minute

func TestFlapping(t *testing.T) {
	n := newNode(t)
	n.set("kubelet.service", "active/running", runs(37, "a"))
	n.set("containerd.service", "active/running", runs(0, "a"))
	plugintest.Want(t, n.after(t, 0), plugin.OK, "starts in 20m: containerd.service 0, kubelet.service 0") // 37, but nobody knows when
	n.set("kubelet.service", "activating/auto-restart", run{40, "b", "exit-code", 1, 255})
	plugintest.Want(t, n.after(t, minute), plugin.OK, "kubelet.service 3")
	n.set("kubelet.service", "active/running", runs(43, "c"))
	v := n.after(t, minute)
	plugintest.Want(t, v, plugin.Problem, "kubelet.service started 6 times in 20m, last ended by exit status 255; see journalctl -u kubelet.service")
	if m := v.Measurements[1]; m.Name != "starts_kubelet" || m.Value != 6 || m.Limit != 5 {
		t.Errorf("%+v", m)
	}
	plugintest.Want(t, n.after(t, 20*minute), plugin.OK, "kubelet.service 3") // the first three are too long ago
	plugintest.Want(t, n.after(t, 2*minute), plugin.OK, "kubelet.service 0")
}

func TestBoundaries(t *testing.T) {
	n := newNode(t)
	n.set("crio.service", "active/running", runs(0, "a"))
	n.after(t, 0)
	n.set("crio.service", "active/running", runs(4, "b"))
	plugintest.Want(t, n.after(t, minute), plugin.OK, "crio.service 4")
	n.set("crio.service", "active/running", runs(5, "c"))
	plugintest.Want(t, n.after(t, 20*minute), plugin.Problem, "crio.service started 5 times in 20m, last ended by an end that was not seen")
	plugintest.Want(t, n.after(t, time.Second), plugin.OK, "crio.service 1")
}

func TestLookAlikes(t *testing.T) {
	tests := []struct {
		name  string
		looks []func(*node)
		words string
	}{
		{"one planned restart", []func(*node){
			func(n *node) { n.set("kubelet.service", "active/running", runs(3, "a")) },
			func(n *node) { n.set("kubelet.service", "active/running", runs(0, "b")) },
		}, "kubelet.service 1"},
		{"started for the first time", []func(*node){
			func(n *node) { n.set("kubelet.service", "inactive/dead", runs(0, "")) },
			func(n *node) { n.set("kubelet.service", "active/running", runs(0, "a")) },
		}, "kubelet.service 1"},
		{"the counter reset", []func(*node){
			func(n *node) { n.set("kubelet.service", "active/running", runs(30, "a")) },
			func(n *node) { n.set("kubelet.service", "active/running", runs(0, "a")) },
		}, "kubelet.service 0"},
		{"installed and not used", []func(*node){
			func(n *node) {
				n.set("kubelet.service", "active/running", runs(0, "a"))
				n.set("docker.service", "inactive/dead", runs(0, ""))
			},
		}, "docker.service 0, kubelet.service 0"},
		{"stopped by hand", []func(*node){
			func(n *node) {
				n.set("kubelet.service", "active/running", runs(0, "a"))
				n.set("containerd.service", "active/running", runs(0, "a"))
			},
			func(n *node) { n.set("kubelet.service", "", runs(0, "a")) },
		}, "starts in 20m: containerd.service 0"},
		{"stopped by hand and started again", []func(*node){
			func(n *node) {
				n.set("kubelet.service", "active/running", runs(2, "a"))
				n.set("containerd.service", "active/running", runs(0, "a"))
			},
			func(n *node) { n.set("kubelet.service", "", runs(0, "a")) },
			func(n *node) { n.set("kubelet.service", "active/running", runs(0, "b")) },
		}, "kubelet.service 1"},
		{"a restart that is still to come", []func(*node){
			func(n *node) { n.set("kubelet.service", "active/running", runs(0, "a")) },
			func(n *node) { n.set("kubelet.service", "activating/auto-restart", run{1, "a", "signal", 2, 9}) },
			func(n *node) { n.set("kubelet.service", "active/running", runs(1, "b")) },
		}, "kubelet.service 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			for i, change := range tt.looks {
				change(n)
				words := []string{"starts in 20m: "}
				if i == len(tt.looks)-1 {
					words = []string{tt.words}
				}
				plugintest.Want(t, n.after(t, minute), plugin.OK, words...)
			}
		})
	}
}

// Starts by hand count, and so do those of a systemd that does not count restarts.
func TestStartsByHand(t *testing.T) {
	for name, hide := range map[string]map[string]bool{"systemd 252": nil, "systemd 219": {"NRestarts": true, "InvocationID": true, "ListUnitsByPatterns": true}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.Hide = hide
			for i := range 6 {
				n.set("kubelet.service", "active/running", runs(0, fmt.Sprint(i)))
				n.Properties["kubelet.service"]["ExecMainStartTimestamp"] = uint64(i + 1)
				v := n.after(t, minute)
				if i < 5 {
					plugintest.Want(t, v, plugin.OK, fmt.Sprintf("kubelet.service %d", i))
				} else {
					plugintest.Want(t, v, plugin.Problem, "kubelet.service started 5 times in 20m")
				}
			}
		})
	}
}

// What happened while nobody looked is not known to have happened within the window.
func TestLongPause(t *testing.T) {
	n := newNode(t)
	n.set("kubelet.service", "active/running", runs(0, "a"))
	n.after(t, 0)
	n.set("kubelet.service", "active/running", runs(9, "b"))
	plugintest.Want(t, n.after(t, 21*minute), plugin.OK, "kubelet.service 0")
	n.set("kubelet.service", "active/running", runs(14, "c"))
	plugintest.Want(t, n.after(t, 15*minute), plugin.Problem, "kubelet.service started 5 times")
	plugintest.Want(t, n.after(t, -30*minute), plugin.OK, "kubelet.service 0") // the clock was set back
}

func TestFailed(t *testing.T) {
	for _, tt := range []struct {
		run  run
		want string
	}{
		{run{5, "a", "start-limit-hit", 1, 1}, "start-limit-hit, exit status 1"},
		{run{0, "a", "exit-code", 1, 203}, "exit status 203"},
		{run{0, "a", "signal", 2, 9}, "SIGKILL"},
		{run{0, "a", "core-dump", 3, 11}, "SIGSEGV with a core dump"},
		{run{0, "a", "oom-kill", 2, 9}, "oom-kill, SIGKILL"},
		{run{0, "a", "signal", 2, 99}, "signal 99"},
		{run{0, "a", "%s\n", 0, 0}, "?s "},
	} {
		n := newNode(t)
		n.set("kubelet.service", "failed/failed", tt.run)
		n.set("containerd.service", "active/running", runs(0, "a"))
		plugintest.Want(t, n.after(t, 0), plugin.Problem, "kubelet.service has failed and systemd does not start it again: "+tt.want, "see journalctl -u kubelet.service")
	}
}

// The one that is down comes first.
func TestSeveral(t *testing.T) {
	n := newNode(t)
	for i, name := range []string{"containerd.service", "crio.service", "docker.service", "kubelet.service"} {
		n.set(name, "active/running", runs(uint32(i), "a"))
	}
	n.after(t, 0)
	n.set("containerd.service", "active/running", runs(6, "b"))
	n.set("crio.service", "active/running", runs(19, "b"))
	n.set("kubelet.service", "failed/failed", run{3, "a", "exit-code", 1, 1})
	v := n.after(t, minute)
	plugintest.Want(t, v, plugin.Problem, "kubelet.service has failed", "3 services: kubelet.service has failed", "; containerd.service started 6 times in 20m, last ended by ", "; also crio.service")
	if len(v.Details) != 3 || !strings.HasPrefix(v.Details[1], "containerd.service started 6 times") {
		t.Errorf("%q", v.Details)
	}
}

// A service that begins to start often while another does is told, and nothing else changes the message: each change of it is an
// event of NPD.
func TestSecondService(t *testing.T) {
	n := newNode(t)
	n.set("kubelet.service", "active/running", runs(0, "a"))
	n.set("containerd.service", "active/running", runs(0, "a"))
	n.after(t, 0)
	n.set("kubelet.service", "active/running", runs(6, "b"))
	plugintest.Want(t, n.after(t, minute), plugin.Problem, "kubelet.service started 6 times in 20m, last ended by an end that was not seen; see ")
	n.set("kubelet.service", "activating/auto-restart", run{8, "c", "exit-code", 1, 255})
	first := n.after(t, minute).Message
	if want := "kubelet.service started 8 times in 20m, last ended by exit status 255; see journalctl -u kubelet.service"; first != want {
		t.Errorf("%q, want %q", first, want)
	}
	n.set("kubelet.service", "activating/auto-restart", run{11, "d", "signal", 2, 9})
	n.set("containerd.service", "activating/auto-restart", run{3, "b", "exit-code", 1, 1})
	if again := n.after(t, minute).Message; again != first {
		t.Errorf("the message changes from %q to %q", first, again)
	}
	n.set("containerd.service", "activating/auto-restart", run{16, "c", "exit-code", 1, 1})
	both := "2 services: containerd.service started 16 times in 20m, last ended by exit status 1; kubelet.service started 8 times in 20m, last ended by exit status 255"
	for range 3 {
		if second := n.after(t, minute).Message; second != both {
			t.Errorf("%q, want %q", second, both)
		}
	}
	n.set("kubelet.service", "failed/failed", run{12, "d", "exit-code", 1, 255})
	plugintest.Want(t, n.after(t, minute), plugin.Problem, "2 services: kubelet.service has failed and systemd does not start it again: exit status 255; containerd.service started 16 times")
	n.set("kubelet.service", "active/running", runs(0, "e"))
	plugintest.Want(t, n.after(t, 21*minute), plugin.OK)
}

func TestUnknown(t *testing.T) {
	c := fresh(t)
	plugintest.Want(t, c.look(t.Context(), plugintest.Look(t, hosttest.Tree{}.Open(t))), plugin.Unknown, "cannot ask systemd: no socket of systemd under ")

	n := newNode(t)
	n.set("ssh.service", "active/running", runs(0, "a"))
	plugintest.Want(t, n.after(t, 0), plugin.Unknown, "systemd has none of the services kubelet,containerd,crio,docker,cri-docker", ": set --units")

	n.set("kubelet.service", "active/running", runs(0, "a"))
	plugintest.WantSuspicion(t, n.after(t, 0), "")
	n = newNode(t)
	n.set("kubelet.service", "active/running", runs(5, "a"))
	plugintest.WantSuspicion(t, n.after(t, 0), "kubelet.service was restarted 5 times by systemd")

	n.Hide = map[string]bool{"Result": true}
	plugintest.Want(t, n.after(t, 0), plugin.Unknown, "how often services start is not known: kubelet.service: Result at /run/systemd/private: Unknown interface or property Result")
	n.Hide = map[string]bool{"ListUnitsByPatterns": true, "ListUnits": true}
	plugintest.Want(t, n.after(t, 0), plugin.Unknown, "the services are not known: ListUnitsByPatterns at ")
}

func TestUnitNames(t *testing.T) {
	long := strings.Repeat("a", 247)
	for value, want := range map[string]string{
		"kubelet": "kubelet.service", "kubelet.service": "kubelet.service", "a,b": "a.service b.service", `snap.x@y\x2dz`: `snap.x@y\x2dz.service`, long: long + ".service",
		"": "", "a,": "", "a b": "", "a/b": "", "kube*": "", "a\n": "", long + "a": "", "%s": "",
	} {
		var u unitNames
		err := u.Set(value)
		if got := strings.Join(u, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", value, got, err, want)
		}
	}
	n := newNode(t)
	if err := n.check.units.Set(long); err != nil {
		t.Fatal(err)
	}
	n.set(long+".service", "failed/failed", run{0, "a", "exit-code", 1, 1})
	v := n.after(t, 0)
	plugintest.Want(t, v, plugin.Problem, strings.Repeat("a", 38)+".. has failed and systemd does not start it again: exit status 1")
	if len(v.Message) > plugin.MaxMessage {
		t.Errorf("%d bytes: %s", len(v.Message), v.Message)
	}
}

func TestMeasured(t *testing.T) {
	for unit, want := range map[string]string{"cri-docker.service": "cri_docker", "K3S.service": "k3s", `a\x2d@b.service`: "a_x2d_b"} {
		if got := measured(unit); got != want {
			t.Errorf("measured(%q) = %q, want %q", unit, got, want)
		}
	}
}

// Whatever stands in the memory, the next look counts on from it.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{`{"seen":1793534400,"restarts":3,"start":"ab","starts":[[1793534400,3]],"end":"SIGKILL"}`, `{"starts":[[9223372036854775807,-1],[-9223372036854775808,9223372036854775807]]}`, `{}`, `null`} {
		f.Add([]byte(seed), uint32(4), "cd")
	}
	f.Fuzz(func(t *testing.T, memory []byte, restarts uint32, start string) {
		var r *record
		if json.Unmarshal(memory, &r) != nil {
			return
		}
		n := r.next(systemd.Service{Restarts: restarts, Start: start}, plugintest.Now, 20*minute)
		if n.count() < 0 || r == nil && n.count() != 0 {
			t.Errorf("%d starts: %+v after %+v", n.count(), n, r)
		}
		again := n.next(systemd.Service{Restarts: restarts, Start: start}, plugintest.Now, 20*minute)
		if again.count() != n.count() {
			t.Errorf("%d starts, and %d at the same look again", n.count(), again.count())
		}
	})
}
