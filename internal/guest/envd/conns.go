package envd

import (
	"net"
	"sync"
)

// conns keeps the connections that a listener has accepted.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{}
}

func newConns() *conns { return &conns{open: map[*conn]struct{}{}} }

// conn is a connection that is known until it is closed.
type conn struct {
	net.Conn
	of *conns
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// listener puts what it accepts into conns.
type listener struct {
	net.Listener
	conns *conns
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	n, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: n, of: l.conns}
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	l.conns.open[c] = struct{}{}
	return c, nil
}

// cut closes all connections but some, at once: what is still to be sent has nobody to go to. The requests that are under way on
// them end as if the client had gone.
func (c *conns) cut(keep func(net.Conn) bool) (n int) {
	var list []*conn
	c.mu.Lock()
	for conn := range c.open {
		if !keep(conn) {
			list = append(list, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range list {
		if tcp, ok := conn.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // fails when it is closed already
		}
		_ = conn.Close()
	}
	return len(list)
}
