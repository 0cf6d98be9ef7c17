// Package hostnet connects to unix sockets of a node.
package hostnet

import (
	"context"
	"errors"
	"net"

	"npd-plugins/internal/host"
)

// DialUnix connects to the stream socket at the node's path. The error wraps the
// errno of connect(2): ECONNREFUSED where nobody listens, EAGAIN where the queue
// of connections that were not accepted is full.
func DialUnix(ctx context.Context, h *host.Root, path string) (net.Conn, error) {
	name, release, err := h.Reach(path)
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", name)
	var op *net.OpError
	if errors.As(err, &op) {
		op.Addr = &net.UnixAddr{Name: h.Path(path), Net: "unix"}
	}
	return conn, err
}
