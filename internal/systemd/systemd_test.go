package systemd

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"npd-plugins/internal/host/hosttest"
	"npd-plugins/internal/systemd/systemdtest"
	"npd-plugins/test/lab"
)

// limit is the time of a look in these tests.
const limit = 5 * time.Second

// connect connects to what the test serves below root, and wants all goroutines gone when the test ends.
func connect(t *testing.T, root string, limit time.Duration) (context.Context, *Manager, error) {
	t.Helper()
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	m, err := Connect(ctx, hosttest.Open(t, root))
	t.Cleanup(func() {
		if m != nil {
			m.Close()
		}
		cancel()
		// A server's goroutine for the connection ends with it too.
		lab.Eventually(t, 5*time.Second, "no goroutine of the connection is left", func() bool { return runtime.NumGoroutine() <= before })
	})
	return ctx, m, err
}

func mustConnect(t *testing.T, root string) (context.Context, *Manager) {
	t.Helper()
	ctx, m, err := connect(t, root, limit)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, m
}

var long = strings.Repeat("a", 247) + ".service" // the longest name of a unit, UNIT_NAME_MAX of systemd

func node() *systemdtest.Manager {
	return &systemdtest.Manager{
		Units: []Unit{
			systemdtest.Unit("kubelet.service", "kubelet: The Kubernetes Node Agent", "active/running"),
			systemdtest.Unit("containerd.service", "containerd container runtime", "activating/auto-restart"),
			systemdtest.Unit("run-r1.scope", "Kubernetes transient mount for /x", "active/running"),
			systemdtest.Unit(long, "", "active/running"),
		},
		Properties: map[string]map[string]any{
			"kubelet.service": {"NRestarts": uint32(3), "Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(255),
				"ExecMainStartTimestamp": uint64(1793534520000001), "InvocationID": []byte{0xab, 0xcd}, "ActiveEnterTimestamp": uint64(1793534520000000)},
			long: {"ActiveEnterTimestamp": uint64(0), "NRestarts": "three"},
		},
	}
}

func TestManager(t *testing.T) {
	for _, socket := range []string{systemdtest.Private, systemdtest.Bus} {
		t.Run(socket, func(t *testing.T) {
			root := lab.ShortDir(t)
			node().ServeAt(t, root, socket)
			ctx, m := mustConnect(t, root)
			if m.Socket != "/"+socket {
				t.Errorf("reached by %s", m.Socket)
			}
			if n, err := m.Names(ctx); n != 4 || err != nil {
				t.Errorf("%d units, %v; want 4", n, err)
			}
			units, err := m.List(ctx, "run-*.scope", "kubelet.service")
			if diff := cmp.Diff([]Unit{node().Units[0], node().Units[2]}, units); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
			s, err := m.Service(ctx, "kubelet.service")
			if want := (Service{3, "abcd", "exit-code", 1, 255}); s != want || err != nil {
				t.Errorf("%+v, %v; want %+v", s, err, want)
			}
			if at, err := m.ActiveSince(ctx, "kubelet.service"); at.Unix() != 1793534520 || err != nil {
				t.Errorf("active since %v, %v", at, err)
			}
			if at, err := m.ActiveSince(ctx, long); !at.IsZero() || err != nil {
				t.Errorf("active since %v, %v; want never", at, err)
			}
		})
	}
}

// A systemd before 230 lists all units or none, one before 232 has no invocations, one before 235 counts no restarts.
func TestOldSystemd(t *testing.T) {
	root := lab.ShortDir(t)
	old := node()
	old.Hide = map[string]bool{"ListUnitsByPatterns": true, "NRestarts": true, "InvocationID": true}
	old.Serve(t, root)
	ctx, m := mustConnect(t, root)
	if units, err := m.List(ctx, "run-*.scope"); len(units) != 1 || units[0].Name != "run-r1.scope" || err != nil {
		t.Errorf("%v, %v", units, err)
	}
	s, err := m.Service(ctx, "kubelet.service")
	if want := (Service{0, "1793534520000001", "exit-code", 1, 255}); s != want || err != nil {
		t.Errorf("%+v, %v; want %+v", s, err, want)
	}
}

func TestUnexpectedAnswers(t *testing.T) {
	root := lab.ShortDir(t)
	node().Serve(t, root)
	ctx, m := mustConnect(t, root)
	for unit, want := range map[string]string{
		long:           "NRestarts at /run/systemd/private: ",
		"gone.service": "Result at /run/systemd/private: Unknown interface or property",
	} {
		if s, err := m.Service(ctx, unit); err == nil || s != (Service{}) || !strings.HasPrefix(err.Error(), unit+": "+want) {
			t.Errorf("%s: %+v, %v", unit, s, err)
		}
	}
}

// The private socket hangs up on those outside its PID namespace; the bus does not.
func TestFallback(t *testing.T) {
	root := lab.ShortDir(t)
	systemdtest.Accept(t, root, systemdtest.Private, func(net.Conn) {})
	t.Run("no bus", func(t *testing.T) {
		_, _, err := connect(t, root, limit)
		if err == nil || !strings.HasSuffix(err.Error(), "/run/systemd/private hangs up: systemd serves only root of its own PID namespace or one below; mount /run/dbus too") {
			t.Errorf("%v", err)
		}
	})
	node().ServeAt(t, root, systemdtest.Bus)
	t.Run("bus", func(t *testing.T) {
		if _, m := mustConnect(t, root); m.Socket != "/run/dbus/system_bus_socket" {
			t.Errorf("reached by %s", m.Socket)
		}
	})
}

func TestNoSystemd(t *testing.T) {
	absent := lab.ShortDir(t)
	file := lab.ShortDir(t)
	hosttest.Tree{systemdtest.Private: ""}.Write(t, file)
	link := lab.ShortDir(t)
	node().Serve(t, absent+"/outside")
	hosttest.Tree{"host/run": "-> " + absent + "/outside/run"}.Write(t, link)
	stale := lab.ShortDir(t)
	lab.LeaveSocket(t, stale, systemdtest.Private)
	for name, tt := range map[string]struct{ root, want string }{
		"no socket":                {absent, "no socket of systemd under " + absent + "/run: mount the host's /run/systemd and /run/dbus there"},
		"a file":                   {file, "/run/systemd/private is no socket: mount the host's /run/systemd there"},
		"a link that leads out":    {link + "/host", "no socket of systemd under " + link + "/host/run"},
		"a socket without systemd": {stale, "connection refused: nobody listens there, mount the directory and not the socket"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := connect(t, tt.root, limit); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// What is no systemd costs neither more than the time of a look nor more than some memory.
func TestHostileServers(t *testing.T) {
	random := make([]byte, 1<<16)
	rand.New(rand.NewSource(1)).Read(random)
	forever := func(conn net.Conn, b []byte) {
		for {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}
	wait := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	authenticated := func(then func(net.Conn)) func(net.Conn) {
		return func(conn net.Conn) {
			if systemdtest.Authenticate(conn, bufio.NewReader(conn)) == nil {
				then(conn)
			}
		}
	}
	signal := func(member string, body ...any) []byte {
		m := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.DBus"),
			dbus.FieldMember: dbus.MakeVariant(member), dbus.FieldSender: dbus.MakeVariant("org.freedesktop.DBus")}}
		if len(body) > 0 {
			m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
		}
		var b strings.Builder
		if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
			t.Fatal(err)
		}
		return []byte(b.String())
	}
	const silent = "no answer "
	for name, tt := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"accepts and never answers":   {wait, silent},
		"a line without end":          {func(conn net.Conn) { forever(conn, []byte("REJECTED EXTERNAL ")) }, "systemd sends more than 8 MiB"},
		"garbage for a greeting":      {func(conn net.Conn) { conn.Write(append(random, '\n')); wait(conn) }, "authentication protocol error"},
		"other ways to authenticate":  {func(conn net.Conn) { conn.Write([]byte("REJECTED ANONYMOUS\r\n")); wait(conn) }, "authentication failed"},
		"nothing after the greeting":  {authenticated(wait), silent},
		"hangs up after the greeting": {authenticated(func(net.Conn) {}), "NNames at /run/systemd/private: "},
		"garbage for messages":        {authenticated(func(conn net.Conn) { forever(conn, random) }), "systemd"},
		"newlines":                    {authenticated(func(conn net.Conn) { forever(conn, []byte("\n")) }), "systemd sends more than 8 MiB"},
		"half of a message":           {authenticated(func(conn net.Conn) { conn.Write(signal("x")[:20]); wait(conn) }), silent},
		"a message of 128 MiB": {authenticated(func(conn net.Conn) {
			conn.Write([]byte("l\x02\x00\x01\x00\x00\xff\x07\x01\x00\x00\x00\x00\x00\x00\x00"))
			forever(conn, random)
		}), "systemd"},
		"a name lost and not told":      {authenticated(func(conn net.Conn) { forever(conn, signal("NameLost")) }), "systemd sends more than 8 MiB"},
		"a name acquired, but a number": {authenticated(func(conn net.Conn) { forever(conn, signal("NameAcquired", uint32(1))) }), "systemd sends more than 8 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			root := lab.ShortDir(t)
			systemdtest.Accept(t, root, systemdtest.Private, tt.serve)
			began := time.Now()
			ctx, m, err := connect(t, root, 2*time.Second)
			if err == nil {
				_, err = m.Names(ctx)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %v of 2 s", took)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) && !strings.Contains(err.Error(), silent) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			t.Log(err, time.Since(began).Round(time.Millisecond))
		})
	}
}

// A systemd that hangs while it answers.
func TestHangs(t *testing.T) {
	root := lab.ShortDir(t)
	hangs := make(chan struct{})
	m := node()
	m.Before = func(method string) {
		if method == "Get" {
			<-hangs
		}
	}
	m.Serve(t, root)
	ctx, client, err := connect(t, root, 300*time.Millisecond)
	t.Cleanup(func() { close(hangs) }) // before the goroutines are counted
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Names(ctx); err == nil || !strings.Contains(err.Error(), "no answer to NNames at /run/systemd/private: systemd hangs") {
		t.Errorf("%v", err)
	}
	if _, err := client.Service(ctx, "kubelet.service"); err == nil {
		t.Error("an answer after the end")
	}
}

func TestDenied(t *testing.T) {
	root := lab.ShortDir(t)
	systemdtest.Accept(t, root, systemdtest.Private, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if systemdtest.Authenticate(conn, in) != nil {
			return
		}
		for {
			call, err := dbus.DecodeMessage(in)
			if err != nil {
				return
			}
			systemdtest.Reply(call, func(string, string, []any) (any, *dbus.Error) {
				return nil, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"SELinux policy denies access."})
			}).EncodeTo(conn, binary.LittleEndian)
		}
	})
	ctx, m := mustConnect(t, root)
	if _, err := m.List(ctx, "*"); err == nil || !strings.Contains(err.Error(), "SELinux policy denies access.: SELinux or the policy of the bus forbids it") {
		t.Errorf("%v", err)
	}
}

// A list of MaxUnits units is taken, one of ten times as many is given up. What that costs in memory is measured in test/bench.
func TestLongLists(t *testing.T) {
	units := make([]Unit, 100000)
	for i := range units {
		units[i] = systemdtest.Unit(fmt.Sprintf("run-r%032x.scope", i), fmt.Sprintf("Kubernetes transient mount for /var/lib/kubelet/pods/3f6c1a52-8d0e-4b7f-9a61-%012d/volumes/kubernetes.io~projected/kube-api-access-x7k2p", i), "active/running")
	}
	for name, n := range map[string]int{"as many as are asked for": MaxUnits, "far more": len(units)} {
		t.Run(name, func(t *testing.T) {
			root := lab.ShortDir(t)
			(&systemdtest.Manager{Units: units[:n]}).Serve(t, root)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			m, err := Connect(ctx, hosttest.Open(t, root))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			got, err := m.List(ctx, "*")
			if n == MaxUnits && (len(got) != n || err != nil) {
				t.Errorf("%d units, %v", len(got), err)
			}
			if n > MaxUnits && (err == nil || !strings.HasSuffix(err.Error(), "systemd sends more than 8 MiB")) {
				t.Errorf("%d units, %v", len(got), err)
			}
		})
	}
}
