package hostagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/relay"
	"wrenn.dev/wrenn/internal/sandbox"
)

// Dial connects to a TCP port of the guest, whoever listens there may be for the guest itself alone: then envd connects. An open connection is
// activity. It is broken when the sandbox ends, when it is about to be frozen for a pause, and when the agent stops.
//
// Errors: ErrNotFound and ErrFailedPrecondition when there is no such sandbox or it does not run, ErrResourceExhausted when too many are open,
// ErrPermissionDenied for envd's port, ErrUnavailable when the guest does not answer; and then syscall.ECONNREFUSED when nothing listens.
func (a *Agent) Dial(ctx context.Context, id string, port int) (*Conn, error) {
	if port == client.Port {
		return nil, fmt.Errorf("port %d is envd's: %w", port, errs.ErrPermissionDenied)
	}
	if r, err := a.m.Get(id); err == nil && r.State == sandbox.Paused {
		return nil, fmt.Errorf("sandbox %s is paused: %w", id, errs.ErrFailedPrecondition) // many may come at once: none waits in line
	}
	_, u, err := a.useAs(ctx, id, connection)
	if err != nil {
		return nil, err
	}
	conn, err := u.sb.Dial(ctx, port)
	if errors.Is(err, syscall.ECONNREFUSED) {
		conn, err = u.guest.Port(ctx, port)
	}
	if err != nil {
		u.done()
		if gone := context.Cause(u.traffic); gone != nil {
			err = gone
		}
		return nil, err
	}
	a.metrics.connections.Inc()
	ended := context.AfterFunc(u.traffic, func() { relay.Break(conn) })
	stopped := context.AfterFunc(a.life, func() { relay.Break(conn) })
	return &Conn{Conn: conn, done: sync.OnceFunc(func() {
		ended()
		stopped()
		a.metrics.connections.Dec()
		u.done()
	})}, nil
}

// Conn is a connection to a port of a guest. It counts as activity until it is closed.
type Conn struct {
	// Conn is the socket itself.
	net.Conn
	done func()
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.done()
	return c.Conn.Close()
}
