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
)

const (
	// portProtocol is what envd makes of a connection.
	portProtocol = "wrenn-port"
	// portTime bounds how long envd may take to connect to a port.
	portTime = 15 * time.Second
)

// Port connects to a TCP port of the guest that listens for the guest itself alone, by envd's hand. What comes from it is the guest's word, as
// if it had been dialed. ErrUnavailable when nothing listens there, then also syscall.ECONNREFUSED.
func (c *Client) Port(ctx context.Context, port int) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, portTime)
	defer cancel()
	conn, err := c.dial(ctx, Port)
	if err != nil {
		return nil, broken(err)
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/ports/%d", baseURL, port), nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"X-Access-Token": {c.token}, "Connection": {"Upgrade"}, "Upgrade": {portProtocol}}
	if err := req.Write(conn); err != nil {
		return nil, broken(err)
	}
	in := bufio.NewReader(&io.LimitedReader{R: conn, N: maxHeaderBytes})
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, broken(err)
	}
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
	case http.StatusBadGateway, http.StatusNotFound, http.StatusForbidden: // not found: an older envd's, which reaches none
		return nil, fmt.Errorf("port %d: %w: %w", port, broken(fmt.Errorf("envd connects to nothing there")), syscall.ECONNREFUSED)
	default:
		return nil, unsound("status %d for a port", resp.StatusCode)
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	early := make([]byte, in.Buffered()) // what the server said first
	_, _ = io.ReadFull(in, early)        // it is there
	if len(early) == 0 {
		return conn, nil
	}
	return &begunConn{conn, early}, nil
}

// begunConn is a connection of which some was read.
type begunConn struct {
	net.Conn
	early []byte
}

// Read implements io.Reader.
func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.early)
	c.early = c.early[n:]
	return n, nil
}
