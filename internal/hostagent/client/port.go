package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/wire"
)

// ErrPortClosed is the error of a port that nothing listens on. It is an ErrUnavailable.
var ErrPortClosed = wire.ErrPortClosed

// portTime bounds how long the agent may take to reach a port.
const portTime = 15 * time.Second

// Dial connects to a TCP port of a sandbox's guest. When the sandbox ends or is paused, the connection breaks: a read fails then, it does not end.
//
// Errors: ErrNotFound and ErrFailedPrecondition when there is no such sandbox or it does not run, ErrResourceExhausted when too many connections
// are open, ErrPermissionDenied for envd's port, ErrPortClosed, ErrUnavailable when the guest or the agent does not answer.
func (c *Client) Dial(ctx context.Context, sandbox string, port int) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, portTime)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		// As a text: that the agent refuses says nothing of a port.
		return nil, fmt.Errorf("the agent can't be reached: %v: %w", err, errs.ErrUnavailable)
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET /ports/%s/%d HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", sandbox, port, wire.PortProtocol); err != nil {
		return nil, fmt.Errorf("the agent: %v: %w", err, errs.ErrUnavailable)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, fmt.Errorf("the agent: %v: %w", err, errs.ErrUnavailable)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, wire.ReadPortError(resp.Body)
	}
	if !stop() {
		return nil, fmt.Errorf("the agent took too long: %w: %w", context.Cause(ctx), errs.ErrUnavailable)
	}
	p := &portConn{Conn: conn, early: make([]byte, in.Buffered())}
	_, _ = io.ReadFull(in, p.early) // it is there
	return p, nil
}

// portConn is a connection to a port of a guest.
type portConn struct {
	net.Conn
	early []byte // what the guest said together with the agent's answer
}

// Read implements io.Reader.
func (c *portConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.hungUp() {
		return n, fmt.Errorf("the sandbox's connection broke: %w", syscall.ECONNRESET)
	}
	return n, err
}

// hungUp says whether a unix socket's other end was closed and not just its sending half: so relay.Break tells that a connection broke.
func (c *portConn) hungUp() bool {
	socket, ok := c.Conn.(*net.UnixConn)
	if !ok {
		return false // on TCP it is reset
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	hungUp := false
	_ = raw.Control(func(fd uintptr) { // fails when it is closed here
		set := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(set, 0)
		hungUp = err == nil && set[0].Revents&unix.POLLHUP != 0
	})
	return hungUp
}
