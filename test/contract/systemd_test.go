package contract

import (
	"bufio"
	"fmt"
	"math/rand"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npd-plugins/internal/systemd/systemdtest"
)

func (c check) usesSystemd() bool { return strings.Contains(c.help, "\n  /run/systemd/private ") }

// serveSystemd has a systemd with a kubelet that runs.
func serveSystemd(t *testing.T, root string) {
	t.Helper()
	m := &systemdtest.Manager{Properties: map[string]map[string]any{"kubelet.service": kubelet("success")}}
	m.Units = append(m.Units, systemdtest.Unit("kubelet.service", "kubelet", "active/running"))
	m.Serve(t, root)
}

// serveSickSystemd has one with thousands of units of that name, and a kubelet that ended for a reason of that name.
func serveSickSystemd(t *testing.T, root, name string) {
	t.Helper()
	name = strings.ReplaceAll(strings.ToValidUTF8(name, "?"), "\x00", "?") // what D-Bus can carry
	m := &systemdtest.Manager{Properties: map[string]map[string]any{"kubelet.service": kubelet(name)}}
	m.Units = append(m.Units, systemdtest.Unit("kubelet.service", name, "failed/failed"))
	for i := range 5200 {
		unit := systemdtest.Unit(fmt.Sprintf("run-%s%d.scope", name[:min(len(name), 100)], i), "Kubernetes transient mount for /pods/"+name[:min(len(name), 200)], "active/running")
		m.Units = append(m.Units, unit)
		m.Properties[unit.Name] = map[string]any{"ActiveEnterTimestamp": uint64(1)}
	}
	m.Serve(t, root)
}

func kubelet(result string) map[string]any {
	return map[string]any{"NRestarts": uint32(0), "InvocationID": []byte{1}, "Result": result, "ExecMainCode": int32(0), "ExecMainStatus": int32(0),
		"ExecMainStartTimestamp": uint64(1)}
}

// TestBadSystemd has in place of systemd's socket what is none or speaks no D-Bus.
func TestBadSystemd(t *testing.T) {
	random := make([]byte, 4096)
	rand.New(rand.NewSource(4)).Read(random)
	forever := func(conn net.Conn, b []byte) {
		for {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}
	serve := func(answer func(net.Conn)) func(*testing.T, string) {
		return func(t *testing.T, root string) { systemdtest.Accept(t, root, systemdtest.Private, answer) }
	}
	authenticated := func(then func(net.Conn)) func(*testing.T, string) {
		return serve(func(conn net.Conn) {
			if systemdtest.Authenticate(conn, bufio.NewReader(conn)) == nil {
				then(conn)
			}
		})
	}
	sockets := map[string]func(*testing.T, string){
		"accepts and never answers":  serve(func(net.Conn) { time.Sleep(2 * timeout) }),
		"accepts and closes":         serve(func(net.Conn) {}),
		"answers garbage":            serve(func(conn net.Conn) { conn.Write(random); time.Sleep(2 * timeout) }),
		"answers garbage for ever":   serve(func(conn net.Conn) { forever(conn, []byte(strings.Repeat("%s\x1b[2J\n", 500))) }),
		"answers a line without end": serve(func(conn net.Conn) { forever(conn, []byte(strings.Repeat("a", 4096))) }),
		"lets in and never answers":  authenticated(func(net.Conn) { time.Sleep(2 * timeout) }),
		"lets in and sends garbage":  authenticated(func(conn net.Conn) { forever(conn, random) }),
		"is a file":                  func(t *testing.T, root string) { write(t, filepath.Join(root, systemdtest.Private), "") },
		"is a directory":             func(t *testing.T, root string) { makeDir(t, filepath.Join(root, systemdtest.Private)) },
	}
	for name, serve := range sockets {
		t.Run(name, func(t *testing.T) {
			root := healthyRoot(t, "v2")
			serve(t, root)
			eachCheck(t, check.usesSystemd, func(t *testing.T, c check) {
				c.wantUnknown(t, c.on(root), "systemd")
			})
		})
	}
}
