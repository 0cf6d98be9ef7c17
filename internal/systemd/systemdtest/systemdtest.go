// Package systemdtest serves a systemd that is none, over D-Bus on a socket of
// a test.
package systemdtest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"path"
	"strings"
	"testing"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"npd-plugins/test/lab"
)

// The sockets of systemd and of the system bus below a host root.
const (
	Private = "run/systemd/private"
	Bus     = "run/dbus/system_bus_socket"
)

// Manager is a systemd with these units.
type Manager struct {
	Units      []sd.UnitStatus
	Properties map[string]map[string]any // by the name of a unit and of the property
	// Hide has the names of methods and properties that this version of systemd
	// does not have.
	Hide map[string]bool
	// Before is called before a method is answered; nil for nothing.
	Before func(method string)
}

// Unit is an entry of a list. The state is "active/running".
func Unit(name, description, state string) sd.UnitStatus {
	active, sub, _ := strings.Cut(state, "/")
	return sd.UnitStatus{Name: name, Description: description, LoadState: "loaded", ActiveState: active, SubState: sub,
		Path: dbus.ObjectPath(objects + sd.PathBusEscape(name)), JobPath: "/"}
}

const objects = "/org/freedesktop/systemd1/unit/"

// Serve answers at the private socket below root until the test ends.
func (m *Manager) Serve(t testing.TB, root string) { m.ServeAt(t, root, Private) }

// ServeAt answers at a socket below root until the test ends.
func (m *Manager) ServeAt(t testing.TB, root, socket string) {
	t.Helper()
	Accept(t, root, socket, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		if Authenticate(conn, in) != nil {
			return
		}
		for {
			call, err := dbus.DecodeMessage(in)
			if err != nil {
				return
			}
			if call.Flags&dbus.FlagNoReplyExpected != 0 {
				continue
			}
			if err := Reply(call, m.answer).EncodeTo(conn, binary.LittleEndian); err != nil {
				return
			}
		}
	})
}

// Accept hands each connection at a socket below root to serve and closes it
// afterwards, until the test ends.
func Accept(t testing.TB, root, socket string, serve func(net.Conn)) {
	t.Helper()
	l := lab.Listen(t, root, socket)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
}

// Authenticate is the server's side of the conversation before the messages.
func Authenticate(w io.Writer, in *bufio.Reader) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "ERROR\r\n"
		switch words := strings.Fields(strings.TrimLeft(line, "\x00")); {
		case len(words) == 1 && words[0] == "BEGIN":
			return nil
		case len(words) == 1 && words[0] == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		case len(words) > 1 && words[0] == "AUTH", len(words) > 0 && words[0] == "DATA":
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		}
		if _, err := io.WriteString(w, answer); err != nil {
			return err
		}
	}
}

// Reply is what a call is answered with.
func Reply(call *dbus.Message, answer func(object, method string, args []any) (any, *dbus.Error)) *dbus.Message {
	object, _ := call.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	method, _ := call.Headers[dbus.FieldMember].Value().(string)
	reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
	}}
	value, refused := answer(string(object), method, call.Body)
	switch {
	case refused != nil:
		reply.Type = dbus.TypeError
		reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(refused.Name)
		reply.Body = refused.Body
	case value != nil:
		reply.Body = []any{value}
	}
	if len(reply.Body) > 0 {
		reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(reply.Body...))
	}
	return reply
}

func (m *Manager) answer(object, method string, args []any) (any, *dbus.Error) {
	if m.Before != nil {
		m.Before(method)
	}
	switch {
	case m.Hide[method]:
	case method == "Hello":
		return ":1.42", nil
	case method == "AddMatch":
		return nil, nil
	case method == "Get" && len(args) == 2:
		return m.get(object, args[1].(string))
	case method == "ListUnitsByPatterns" && len(args) == 2:
		return m.list(args[1].([]string)), nil
	case method == "ListUnits":
		return m.list([]string{"*"}), nil
	}
	return nil, refusal("UnknownMethod", "Unknown method "+method+".")
}

func refusal(name, message string) *dbus.Error {
	return dbus.NewError("org.freedesktop.DBus.Error."+name, []any{message})
}

func (m *Manager) get(object, property string) (any, *dbus.Error) {
	if property == "NNames" {
		return dbus.MakeVariant(uint32(len(m.Units))), nil
	}
	for _, u := range m.Units {
		if value, ok := m.Properties[u.Name][property]; ok && !m.Hide[property] && string(u.Path) == object {
			return dbus.MakeVariant(value), nil
		}
	}
	return nil, refusal("UnknownProperty", "Unknown interface or property "+property+".")
}

func (m *Manager) list(patterns []string) []sd.UnitStatus {
	matched := []sd.UnitStatus{}
	for _, u := range m.Units {
		for _, p := range patterns {
			if ok, _ := path.Match(p, u.Name); ok {
				matched = append(matched, u)
				break
			}
		}
	}
	return matched
}
