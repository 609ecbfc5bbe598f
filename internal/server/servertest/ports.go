package servertest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"wrenn.dev/wrenn/internal/errs"
)

// Ports are the ports of every guest of a world: each leads to a server of the test's, and the others are closed.
type Ports struct {
	// Dials is how many connections were made.
	Dials atomic.Int64

	mu   sync.Mutex
	open map[int]string
}

// Open has a port lead to an address.
func (p *Ports) Open(port int, address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = map[int]string{}
	}
	p.open[port] = address
}

func (p *Ports) dial(ctx context.Context, _ string, port int) (net.Conn, error) {
	p.mu.Lock()
	address := p.open[port]
	p.mu.Unlock()
	if address == "" {
		return nil, fmt.Errorf("port %d: %w: %w", port, errs.ErrUnavailable, syscall.ECONNREFUSED)
	}
	p.Dials.Add(1)
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}
