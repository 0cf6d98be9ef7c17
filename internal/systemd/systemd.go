// Package systemd asks the service manager of the host over D-Bus, on one
// connection that ends with its context and takes a bounded amount of memory,
// whatever the other side sends.
package systemd

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"npd-plugins/internal/host"
	"npd-plugins/internal/host/hostnet"
)

// sockets are where systemd answers on the host. Its private socket serves
// root without a bus between, and only those whose PID systemd can see: on the
// node and in its containers, but not from outside a container that has a
// systemd of its own (getpeercred in src/basic/socket-util.c). The system bus
// asks for no PID.
var sockets = []socket{
	{"/run/systemd/private", false},
	{"/run/dbus/system_bus_socket", true},
}

type socket struct {
	path string
	bus  bool // behind a message bus, which wants to be greeted
}

// maxReplies is the most that is read from one connection, in bytes. The list
// of MaxUnits units takes half of it, where their names and descriptions are of
// the common length.
const maxReplies = 8 << 20

// MaxUnits is up to how many units a list of all of them is reasonable: systemd
// does nothing else while it writes the list, 0.1 s for so many, and has to
// hold it.
const MaxUnits = 10000

// The name of systemd on a bus, and the object that stands for systemd itself.
const (
	service = "org.freedesktop.systemd1"
	manager = "/org/freedesktop/systemd1"
)

// Manager is a connection to systemd. It is one of godbus: that of go-systemd
// would be two, the second for signals, which it asks for without a deadline.
type Manager struct {
	conn   *dbus.Conn
	stream *limited
	Socket string // path on the host
}

// Connect reaches systemd by the first socket that lets it. All calls must end
// before ctx does, which ends the connection. An error says what to mend.
func Connect(ctx context.Context, h *host.Root) (*Manager, error) {
	var failed error
	for _, s := range sockets {
		if _, err := h.Stat(s.path); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				failed = cmp.Or(failed, fmt.Errorf("systemd: %w", err))
			}
			continue
		}
		m, err := dial(ctx, h, s)
		if err == nil {
			return m, nil
		}
		failed = cmp.Or(failed, unreachable(ctx, h, s, err))
		if ctx.Err() != nil {
			break // systemd hangs, and no other way to it helps
		}
	}
	if failed == nil {
		failed = fmt.Errorf("no socket of systemd under %s: mount the host's /run/systemd and /run/dbus there, or set --host-root; the check needs a host with systemd", h.Path("/run"))
	}
	return nil, failed
}

// unreachable says what an error of a connection means.
func unreachable(ctx context.Context, h *host.Root, s socket, err error) error {
	where := h.Path(s.path)
	switch info, statErr := h.Stat(s.path); {
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is no socket: mount the host's %s there", where, path.Dir(s.path))
	case ctx.Err() != nil:
		return fmt.Errorf("no answer at %s: systemd hangs, or --timeout is too short", where)
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: %w: run as root of the host (privileged, without a user namespace); SELinux may forbid it too", where, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w: nobody listens there, mount the directory and not the socket", where, err)
	case !s.bus && isHangup(err):
		return fmt.Errorf("%s hangs up: systemd serves only root of its own PID namespace or one below; mount /run/dbus too", where)
	}
	return fmt.Errorf("%s: %w", where, err)
}

func isHangup(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// dial connects and authenticates.
func dial(ctx context.Context, h *host.Root, s socket) (*Manager, error) {
	c, err := hostnet.DialUnix(ctx, h, s.path)
	if err != nil {
		return nil, err
	}
	stream := &limited{Conn: c, in: bufio.NewReaderSize(c, 16<<10), left: maxReplies}
	conn, err := dbus.NewConn(stream, dbus.WithContext(ctx), dbus.WithIncomingInterceptor(ignoreAllButReplies))
	if err != nil {
		c.Close()
		return nil, err
	}
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	switch {
	case err != nil:
	case s.bus:
		err = conn.Hello()
	default:
		// Not Call, which waits for ever when the connection is lost already.
		err = conn.Object(service, manager).Go("org.freedesktop.DBus.Peer.Ping", dbus.FlagNoReplyExpected, nil, strings.Repeat(" ", authRead)).Err
	}
	if err != nil {
		conn.Close()
		return nil, cmp.Or(stream.failure(), err)
	}
	return &Manager{conn, stream, s.path}, nil
}

// authRead is up to how many bytes systemd reads together with the end of the
// authentication (bus_socket_read_auth in src/libsystemd/sd-bus/bus-socket.c).
// A message that is wholly among them is answered only when another comes. So
// the first one is longer, and wants no answer.
const authRead = 256

// ignoreAllButReplies makes godbus drop signals, of which it trusts the form,
// and calls, for which it would start a goroutine each.
func ignoreAllButReplies(m *dbus.Message) {
	if m.Type != dbus.TypeMethodReply && m.Type != dbus.TypeError {
		m.Type = 0
	}
}

// limited is a connection from which a bounded number of bytes is read. It has
// a buffer because godbus reads a header byte by byte, and keeps why it failed
// because godbus does not tell calls that come later.
type limited struct {
	net.Conn
	in     *bufio.Reader
	left   int
	failed atomic.Pointer[error]
}

var errTooMuch = errors.New("systemd sends more than " + strconv.Itoa(maxReplies>>20) + " MiB")

func (l *limited) Read(b []byte) (n int, err error) {
	if l.left <= 0 {
		err = errTooMuch
	} else {
		n, err = l.in.Read(b[:min(len(b), l.left)])
	}
	l.left -= n
	if err != nil {
		l.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// failure is why nothing can be read any more, nil when it can.
func (l *limited) failure() error {
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the connection.
func (m *Manager) Close() { m.conn.Close() }

// call calls a method of an object and reads the reply into p.
func (m *Manager) call(ctx context.Context, object dbus.ObjectPath, method string, p any, args ...any) error {
	return m.conn.Object(service, object).CallWithContext(ctx, method, 0, args...).Store(p)
}

// get reads a property of an object into p.
func (m *Manager) get(ctx context.Context, object dbus.ObjectPath, kind, name string, p any) error {
	var value dbus.Variant
	err := m.call(ctx, object, "org.freedesktop.DBus.Properties.Get", &value, service+"."+kind, name)
	if err == nil {
		err = dbus.Store([]any{value.Value()}, p)
	}
	return m.explain(ctx, name, err)
}

// explain says what an error of a call means.
func (m *Manager) explain(ctx context.Context, what string, err error) error {
	var refused dbus.Error
	switch failure := m.stream.failure(); {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Name == "org.freedesktop.DBus.Error.AccessDenied":
		return fmt.Errorf("%s at %s: %w: SELinux or the policy of the bus forbids it, run privileged", what, m.Socket, err)
	case errors.As(err, &refused):
	case ctx.Err() != nil:
		return fmt.Errorf("no answer to %s at %s: systemd hangs, or --timeout is too short", what, m.Socket)
	case failure != nil:
		err = failure
	}
	return fmt.Errorf("%s at %s: %w", what, m.Socket, err)
}

func isError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.DBus.Error."+name
}

// Names is the number of names of all units that systemd has loaded (the
// property NNames), a few more than units. It takes systemd no time to tell.
func (m *Manager) Names(ctx context.Context) (int, error) {
	var n uint32
	err := m.get(ctx, manager, "Manager", "NNames", &n)
	return int(n), err
}

// Unit is what lists tell of a unit.
type Unit = sd.UnitStatus

// List lists the loaded units whose name matches one of the patterns of
// fnmatch(3).
func (m *Manager) List(ctx context.Context, patterns ...string) (units []Unit, err error) {
	err = m.call(ctx, manager, service+".Manager.ListUnitsByPatterns", &units, []string{}, patterns)
	if isError(err, "UnknownMethod") { // before systemd 230
		err = m.call(ctx, manager, service+".Manager.ListUnits", &units)
		units = slices.DeleteFunc(units, func(u Unit) bool {
			return !slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, u.Name); return ok })
		})
	}
	return units, m.explain(ctx, "ListUnitsByPatterns", err)
}

// object is the object that stands for a unit.
func object(unit string) dbus.ObjectPath {
	return dbus.ObjectPath(manager + "/unit/" + sd.PathBusEscape(unit))
}

// ActiveSince is when a unit that is loaded became active, the zero time when
// it is not.
func (m *Manager) ActiveSince(ctx context.Context, unit string) (time.Time, error) {
	return m.when(ctx, unit, "ActiveEnterTimestamp")
}

// ActivatingSince is when a unit that is loaded began to start, whether it has
// started since or not, the zero time when it is inactive since the boot.
func (m *Manager) ActivatingSince(ctx context.Context, unit string) (time.Time, error) {
	return m.when(ctx, unit, "InactiveExitTimestamp")
}

func (m *Manager) when(ctx context.Context, unit, property string) (time.Time, error) {
	var microseconds uint64
	err := m.get(ctx, object(unit), "Unit", property, &microseconds)
	if err != nil || microseconds == 0 {
		return time.Time{}, err
	}
	return time.UnixMicro(int64(microseconds)), nil
}

// Service is what systemd knows of the runs of a service.
type Service struct {
	Restarts uint32 // by Restart= since somebody started it (NRestarts), or 0 before systemd 235, which does not count
	Start    string // identifies the last start, "" when there was none
	Result   string // of the last run: success, exit-code, signal, oom-kill, start-limit-hit, ...
	Code     int32  // how its main process ended (CLD_* of waitid(2)), 0 while it runs
	Status   int32  // its exit status, or the signal
}

// Service reads the properties of a service that is loaded.
func (m *Manager) Service(ctx context.Context, unit string) (s Service, err error) {
	var invocation []byte
	var started uint64
	for _, p := range []struct {
		kind, name string
		value      any
		since      int // the version of systemd that has it
	}{
		{"Service", "NRestarts", &s.Restarts, 235},
		{"Service", "Result", &s.Result, 0},
		{"Service", "ExecMainCode", &s.Code, 0},
		{"Service", "ExecMainStatus", &s.Status, 0},
		{"Service", "ExecMainStartTimestamp", &started, 0},
		{"Unit", "InvocationID", &invocation, 232},
	} {
		err := m.get(ctx, object(unit), p.kind, p.name, p.value)
		if p.since > 0 && isError(err, "UnknownProperty") {
			continue
		}
		if err != nil {
			return Service{}, fmt.Errorf("%s: %w", unit, err)
		}
	}
	switch {
	case len(invocation) > 0:
		s.Start = fmt.Sprintf("%x", invocation)
	case started > 0:
		s.Start = strconv.FormatUint(started, 10)
	}
	return s, nil
}
