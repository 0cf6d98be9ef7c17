package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// netlink is a socket to the kernel in the network namespace of the thread that opened it.
type netlink struct {
	fd  int
	seq uint32
}

func openNetlink(t testing.TB, protocol int) *netlink {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Skipf("needs a kernel with netlink protocol %d (its module is not loaded): %v", protocol, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &netlink{fd: fd}
}

// attribute is a netlink attribute of the parts one after the other (linux/netlink.h).
func attribute(kind uint16, parts ...[]byte) []byte {
	a := make([]byte, 4, 64)
	for _, part := range parts {
		a = append(a, part...)
	}
	binary.NativeEndian.PutUint16(a, uint16(len(a)))
	binary.NativeEndian.PutUint16(a[2:], kind)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

// message is a request; only with acknowledged set the kernel answers to one that succeeds.
func (n *netlink) message(kind, flags uint16, acknowledged bool, body []byte) []byte {
	n.seq++
	flags |= unix.NLM_F_REQUEST
	if acknowledged {
		flags |= unix.NLM_F_ACK
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags)
	m = binary.NativeEndian.AppendUint32(m, n.seq)
	m = binary.NativeEndian.AppendUint32(m, 0)
	return append(m, body...)
}

// do sends messages of which the last is acknowledged, and returns the first error of any.
func (n *netlink) do(messages []byte) error {
	if err := unix.Sendto(n.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	var first error
	buf := make([]byte, 64<<10)
	for {
		size, _, err := unix.Recvfrom(n.fd, buf, 0)
		if err != nil {
			return err
		}
		for b := buf[:size]; len(b) >= 20; {
			length := binary.NativeEndian.Uint32(b)
			if errno := -int32(binary.NativeEndian.Uint32(b[16:])); errno != 0 && first == nil {
				first = unix.Errno(errno)
			}
			if binary.NativeEndian.Uint32(b[8:]) == n.seq {
				return first
			}
			b = b[min(int(length+3)&^3, len(b)):]
		}
	}
}

// FillConntrack adds that many connections to the network namespace of the thread, of the kind that the kernel does not
// drop to make room for others. It returns the kernel's error when the table is full. The Flush removes them.
func FillConntrack(t testing.TB, n int) (flush func(), err error) {
	t.Helper()
	const (
		newEntry, deleteEntry = unix.NFNL_SUBSYS_CTNETLINK << 8, unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // linux/netfilter/nfnetlink_conntrack.h
		seenAssuredConfirmed  = 2 | 4 | 8                                                          // linux/netfilter/nf_conntrack_common.h
		batch                 = 200
	)
	s := openNetlink(t, unix.NETLINK_NETFILTER)
	header := []byte{unix.AF_INET, 0, 0, 0}
	flush = func() {
		if err := s.do(s.message(deleteEntry, 0, true, header)); err != nil {
			t.Errorf("flush conntrack: %v", err)
		}
	}
	var messages []byte
	for i := range n {
		last := i == n-1 || i%batch == batch-1
		body := append([]byte{}, header...)
		body = append(body, tuple(1, i, false)...)
		body = append(body, tuple(2, i, true)...)
		body = append(body, attribute(3, binary.BigEndian.AppendUint32(nil, seenAssuredConfirmed))...)
		body = append(body, attribute(7, binary.BigEndian.AppendUint32(nil, 600))...)
		messages = append(messages, s.message(newEntry, unix.NLM_F_CREATE|unix.NLM_F_EXCL, last, body)...)
		if last {
			if err := s.do(messages); err != nil {
				return flush, err
			}
			messages = messages[:0]
		}
	}
	return flush, nil
}

// tuple is one direction of the i-th connection, over UDP.
func tuple(kind uint16, i int, reply bool) []byte {
	const nested = 1 << 15
	from, to := []byte{10, byte(i >> 16 >> 8), byte(i >> 16), 1}, []byte{10, 200, 0, 1}
	fromPort, toPort := binary.BigEndian.AppendUint16(nil, uint16(i)), []byte{0, 53}
	if reply {
		from, to, fromPort, toPort = to, from, toPort, fromPort
	}
	return attribute(kind|nested,
		attribute(1|nested, attribute(1, from), attribute(2, to)),
		attribute(2|nested, attribute(1, []byte{unix.IPPROTO_UDP}), attribute(2, fromPort), attribute(3, toPort)))
}

// AddNeighbours adds entries to the neighbour table of IPv6, on the loopback interface of the thread's network namespace.
// Permanent ones do not count against the table's limit. It returns the kernel's error when the table is full. They go
// away with the namespace, or when they are removed.
func AddNeighbours(t testing.TB, from, to int, permanent bool) error {
	t.Helper()
	state := uint16(unix.NUD_REACHABLE)
	if permanent {
		state = unix.NUD_PERMANENT
	}
	return eachNeighbour(t, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, from, to, state)
}

// RemoveNeighbours takes them away.
func RemoveNeighbours(t testing.TB, from, to int) {
	t.Helper()
	if err := eachNeighbour(t, unix.RTM_DELNEIGH, 0, from, to, 0); err != nil {
		t.Errorf("remove neighbours: %v", err)
	}
}

func eachNeighbour(t testing.TB, kind, flags uint16, from, to int, state uint16) error {
	t.Helper()
	s := openNetlink(t, unix.NETLINK_ROUTE)
	for i := from; i < to; i++ {
		address := netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})
		body := []byte{unix.AF_INET6, 0, 0, 0}
		body = binary.NativeEndian.AppendUint32(body, 1) // lo
		body = binary.NativeEndian.AppendUint16(body, state)
		body = append(body, 0, unix.RTN_UNICAST)
		body = append(body, attribute(unix.NDA_DST, address.AsSlice())...)
		body = append(body, attribute(unix.NDA_LLADDR, []byte{2, 0, 0, 0, byte(i >> 8), byte(i)})...)
		if err := s.do(s.message(kind, flags, true, body)); err != nil {
			return fmt.Errorf("neighbour %d: %w", i, err)
		}
	}
	return nil
}

// LoopbackUp switches the loopback interface of the thread's network namespace on.
func LoopbackUp(t testing.TB) {
	t.Helper()
	s := openNetlink(t, unix.NETLINK_ROUTE)
	body := make([]byte, 16) // ifinfomsg
	binary.NativeEndian.PutUint32(body[4:], 1)
	binary.NativeEndian.PutUint32(body[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(body[12:], unix.IFF_UP)
	if err := s.do(s.message(unix.RTM_NEWLINK, 0, true, body)); err != nil {
		t.Fatalf("switch lo on: %v", err)
	}
}
