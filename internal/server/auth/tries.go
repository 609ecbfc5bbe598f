package auth

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxFailed is how many bad keys an address may give in a window.
	maxFailed = 20
	window    = time.Minute
	// maxAddresses bounds how many addresses are remembered at once.
	maxAddresses = 65536
	// network6 is what one caller has of IPv6 at least.
	network6 = 64
)

// tries counts the bad keys of each address.
type tries struct {
	now func() time.Time

	mu    sync.Mutex
	count map[netip.Prefix]failures
}

type failures struct {
	n     int
	since time.Time
}

func newTries(now func() time.Time) *tries {
	return &tries{now: now, count: map[netip.Prefix]failures{}}
}

// caller is the network that an address counts for.
func caller(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = network6
	}
	p, _ := a.Prefix(bits) // the zero prefix for no address: those count together
	return p
}

// failed counts a bad key, and says how long the address must wait before it may give another; zero is not at all.
func (t *tries) failed(a netip.Addr) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.count) >= maxAddresses {
		for p, f := range t.count {
			if now.Sub(f.since) >= window {
				delete(t.count, p)
			}
		}
	}
	if len(t.count) >= maxAddresses { // so many at once: begin anew rather than grow
		clear(t.count)
	}
	f := t.count[caller(a)]
	if now.Sub(f.since) >= window {
		f = failures{since: now}
	}
	f.n++
	t.count[caller(a)] = f
	if f.n <= maxFailed {
		return 0
	}
	return f.since.Add(window).Sub(now)
}
