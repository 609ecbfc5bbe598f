package api

import (
	"context"
	"time"

	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

// toHost is a host with the names of its templates.
func (s *server) toHost(ctx context.Context, h store.Host) (rest.Host, error) {
	list, err := s.Store.TemplatesOf(ctx, h.ID)
	if err != nil {
		return rest.Host{}, err
	}
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.Name
	}
	return rest.Host{ID: h.ID, State: rest.HostState(h.State), Draining: h.Draining, Address: h.Address, Version: h.Version,
		Capacity:  rest.Resources{Sandboxes: h.MaxSandboxes, Vcpus: h.MaxVcpus, MemoryMib: h.MaxMemoryMib, DiskBytes: h.MaxDiskBytes},
		Reserved:  rest.Resources{Sandboxes: h.ReservedSandboxes, Vcpus: h.ReservedVcpus, MemoryMib: h.ReservedMemoryMib, DiskBytes: h.ReservedDiskBytes},
		Templates: names, LeaseUntil: h.LeaseUntil.UTC(), CreatedAt: h.CreatedAt.UTC()}, nil
}

// defaultTokenTime is how long a token is good; the document says so, too.
const defaultTokenTime = 3600

// CreateHostToken implements rest.StrictServerInterface.
func (s *server) CreateHostToken(ctx context.Context, r rest.CreateHostTokenRequestObject) (rest.CreateHostTokenResponseObject, error) {
	token, id, expires, err := s.Hosts.Token(ctx, time.Duration(or(r.Body.TTLSeconds, defaultTokenTime))*time.Second)
	if err != nil {
		return nil, err
	}
	return rest.CreateHostToken201JSONResponse{ID: id, Token: token, ExpiresAt: expires.UTC()}, nil
}

// ListHosts implements rest.StrictServerInterface.
func (s *server) ListHosts(ctx context.Context, r rest.ListHostsRequestObject) (rest.ListHostsResponseObject, error) {
	list, next, err := s.Store.ListHosts(ctx, or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListHosts200JSONResponse{Hosts: make([]rest.Host, len(list)), NextCursor: given(next)}
	for i, h := range list {
		if page.Hosts[i], err = s.toHost(ctx, h); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// GetHost implements rest.StrictServerInterface.
func (s *server) GetHost(ctx context.Context, r rest.GetHostRequestObject) (rest.GetHostResponseObject, error) {
	h, err := s.Store.GetHost(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	host, err := s.toHost(ctx, h)
	return rest.GetHost200JSONResponse(host), err
}

// RemoveHost implements rest.StrictServerInterface.
func (s *server) RemoveHost(ctx context.Context, r rest.RemoveHostRequestObject) (rest.RemoveHostResponseObject, error) {
	if err := s.Store.RemoveHost(ctx, r.ID); err != nil {
		return nil, err
	}
	return rest.RemoveHost204Response{}, nil
}

// DrainHost implements rest.StrictServerInterface.
func (s *server) DrainHost(ctx context.Context, r rest.DrainHostRequestObject) (rest.DrainHostResponseObject, error) {
	h, err := s.Store.Drain(ctx, r.ID, true)
	if err != nil {
		return nil, err
	}
	host, err := s.toHost(ctx, h)
	return rest.DrainHost200JSONResponse(host), err
}

// UndrainHost implements rest.StrictServerInterface.
func (s *server) UndrainHost(ctx context.Context, r rest.UndrainHostRequestObject) (rest.UndrainHostResponseObject, error) {
	h, err := s.Store.Drain(ctx, r.ID, false)
	if err != nil {
		return nil, err
	}
	host, err := s.toHost(ctx, h)
	return rest.UndrainHost200JSONResponse(host), err
}
