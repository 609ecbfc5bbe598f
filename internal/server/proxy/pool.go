package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// pool has connections to ports for requests without a body, see plain.go. One that was used waits for a while for the next request.
type pool struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex
	idle  map[string][]*conn // by address, the one that was used last at the end
	count int
	timer *time.Timer // nil while nothing is idle
}

// conn is a connection to a port.
type conn struct {
	net.Conn
	address string
	limit   io.LimitedReader // of the answer's header
	r       *bufio.Reader
	w       *bufio.Writer
	since   time.Time // when it was last used
}

const readBuffer = 16 << 10

func newPool(dial func(context.Context, string, string) (net.Conn, error)) *pool {
	return &pool{dial: dial, idle: map[string][]*conn{}}
}

// connect makes a connection.
func (p *pool) connect(ctx context.Context, address string) (*conn, error) {
	nc, err := p.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, address: address, limit: io.LimitedReader{R: nc}, w: bufio.NewWriter(nc)}
	c.r = bufio.NewReaderSize(&c.limit, readBuffer)
	return c, nil
}

// take is an idle connection to an address, nil for none.
func (p *pool) take(address string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[address]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	p.drop(address, list[:len(list)-1], 1)
	return c
}

// drop leaves a list of the idle connections to an address, which is shorter by some.
//
// Preconditions: p.mu is held.
func (p *pool) drop(address string, list []*conn, some int) {
	p.count -= some
	if p.idle[address] = list; len(list) == 0 {
		delete(p.idle, address)
	}
}

// keep has a connection wait for the next request, or closes it when enough wait.
func (p *pool) keep(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count >= maxIdle || len(p.idle[c.address]) >= maxIdlePort {
		_ = c.Close()
		return
	}
	c.since = time.Now()
	p.idle[c.address] = append(p.idle[c.address], c)
	if p.count++; p.timer == nil {
		p.timer = time.AfterFunc(upstreamIdle, func() { p.sweep(upstreamIdle) })
	}
}

// sweep closes what has been idle for a time.
func (p *pool) sweep(idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, list := range p.idle {
		old := 0
		for old < len(list) && time.Since(list[old].since) >= idle {
			_ = list[old].Close()
			old++
		}
		if old > 0 {
			p.drop(address, append([]*conn(nil), list[old:]...), old)
		}
	}
	if p.timer = nil; p.count > 0 {
		p.timer = time.AfterFunc(upstreamIdle/4, func() { p.sweep(upstreamIdle) })
	}
}

// close closes what no request uses.
func (p *pool) close() {
	p.mu.Lock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.sweep(0)
}
