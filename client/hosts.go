package client

import (
	"context"
	"iter"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// HostState is how it stands with a host.
type HostState string

// The states of hosts.
const (
	HostJoining HostState = "joining" // it is new or back, and what it has is looked at
	HostUp      HostState = "up"      // it gets sandboxes, unless it drains
	HostLost    HostState = "lost"    // it was silent for too long; it joins again as soon as it is heard of
	HostRemoved HostState = "removed" // it is let in no more
)

// Resources are what sandboxes may take of a host together, where 0 is no limit, or what they take.
type Resources struct {
	Sandboxes, VCPUs int
	MemoryMiB        int64
	DiskBytes        int64 // with room for the memory of each
}

func toResources(r rest.Resources) Resources {
	return Resources{Sandboxes: int(r.Sandboxes), VCPUs: int(r.Vcpus), MemoryMiB: r.MemoryMib, DiskBytes: r.DiskBytes}
}

// Host is a machine that runs sandboxes.
type Host struct {
	ID         string // ho- and 20 of 0-9a-z
	State      HostState
	Draining   bool   // it gets no new sandboxes
	Address    string // where its agent is; empty until it has said so
	Version    string
	Capacity   Resources
	Reserved   Resources
	Templates  []string
	LeaseUntil time.Time // it is lost when it is not heard of by then
	CreatedAt  time.Time
}

func toHost(h rest.Host) *Host {
	return &Host{ID: h.ID, State: HostState(h.State), Draining: h.Draining, Address: h.Address, Version: h.Version, Capacity: toResources(h.Capacity),
		Reserved: toResources(h.Reserved), Templates: h.Templates, LeaseUntil: h.LeaseUntil, CreatedAt: h.CreatedAt}
}

// Hosts are the machines of the installation. They need ScopeOperator.
type Hosts struct{ c *Client }

// List goes through the hosts by id and asks for each page as it is needed. Its error is the last pair.
func (h *Hosts) List(ctx context.Context) iter.Seq2[*Host, error] {
	return pages(func(cursor *string) ([]rest.Host, *string, error) {
		resp, err := h.c.rest.ListHosts(ctx, &rest.ListHostsParams{Cursor: cursor})
		page, err := decode[rest.HostPage](resp, err)
		return page.Hosts, page.NextCursor, err
	}, toHost)
}

// Get tells of a host.
func (h *Hosts) Get(ctx context.Context, id string) (*Host, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := h.c.rest.GetHost(ctx, id)
	got, err := decode[rest.Host](resp, err)
	return as(toHost, got, err)
}

// HostToken is what one machine joins with, once: wrenn agent --join TOKEN.
type HostToken struct {
	ID        string
	Token     string
	ExpiresAt time.Time
}

// CreateToken makes a token that is good for so long, in whole seconds; 0 is the server's choice. It is told this once.
func (h *Hosts) CreateToken(ctx context.Context, ttl time.Duration) (*HostToken, error) {
	s, err := seconds("ttl", ttl)
	if err != nil {
		return nil, err
	}
	resp, err := h.c.rest.CreateHostToken(ctx, rest.CreateHostToken{TTLSeconds: given(s)})
	made, err := decode[rest.HostToken](resp, err)
	return as(func(t rest.HostToken) *HostToken { return &HostToken{ID: t.ID, Token: t.Token, ExpiresAt: t.ExpiresAt} }, made, err)
}

// Drain keeps new sandboxes from a host. Those that it has go on.
func (h *Hosts) Drain(ctx context.Context, id string) (*Host, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := h.c.rest.DrainHost(ctx, id, &rest.DrainHostParams{IdempotencyKey: once(ctx)})
	got, err := decode[rest.Host](resp, err)
	return as(toHost, got, err)
}

// Undrain lets new sandboxes onto a host again.
func (h *Hosts) Undrain(ctx context.Context, id string) (*Host, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := h.c.rest.UndrainHost(ctx, id, &rest.UndrainHostParams{IdempotencyKey: once(ctx)})
	got, err := decode[rest.Host](resp, err)
	return as(toHost, got, err)
}

// Remove lets a host in no more. One that has sandboxes or snapshots is ErrFailedPrecondition, and the error names them.
func (h *Hosts) Remove(ctx context.Context, id string) error {
	if err := named("id", id); err != nil {
		return err
	}
	resp, err := h.c.rest.RemoveHost(ctx, id)
	_, err = decode[struct{}](resp, err)
	return err
}
