package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

const (
	// routeTime is how long a route counts: a token that is revoked, or a sandbox that is public no more, is let through as long.
	routeTime = time.Second
	// staleTime is how long a route counts when the database does not answer: sandboxes can be reached although it is down.
	staleTime = 10 * time.Minute
	// maxRoutes bounds what is kept. It is dropped whole: it is read again soon enough.
	maxRoutes = 16 << 10
	// lookTime bounds one look.
	lookTime = 10 * time.Second
)

// routes keeps what it takes to let requests through. That there is no sandbox it keeps as well: whoever tries ids costs the database one
// look each.
type routes struct {
	look   func(ctx context.Context, sandbox string) (store.Route, error)
	flight singleflight.Group

	mu   sync.Mutex
	kept map[string]kept
}

type kept struct {
	route store.Route
	err   error // an ErrNotFound or nil
	at    time.Time
}

func newRoutes(look func(context.Context, string) (store.Route, error)) *routes {
	return &routes{look: look, kept: map[string]kept{}}
}

// get returns the route to a sandbox. ErrNotFound when there is none.
func (r *routes) get(ctx context.Context, sandbox string) (store.Route, error) {
	r.mu.Lock()
	k, ok := r.kept[sandbox]
	r.mu.Unlock()
	if ok && time.Since(k.at) < routeTime {
		return k.route, k.err
	}
	return r.fresh(ctx, sandbox)
}

// fresh is get of what is so now. Those who ask at once share a look.
func (r *routes) fresh(ctx context.Context, sandbox string) (store.Route, error) {
	result := r.flight.DoChan(sandbox, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
		defer cancel()
		route, err := r.look(ctx, sandbox)
		return r.keep(sandbox, kept{route, err, time.Now()})
	})
	select {
	case out := <-result:
		return out.Val.(store.Route), out.Err
	case <-ctx.Done():
		return store.Route{}, context.Cause(ctx)
	}
}

// keep puts away what was found, and returns it; or what was known before, if it is known no more.
func (r *routes) keep(sandbox string, now kept) (store.Route, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, ok := r.kept[sandbox]
	if now.err != nil && !errors.Is(now.err, errs.ErrNotFound) {
		if ok && now.at.Sub(before.at) < staleTime {
			return before.route, before.err
		}
		return now.route, now.err
	}
	if len(r.kept) >= maxRoutes && !ok {
		clear(r.kept)
	}
	r.kept[sandbox] = now
	return now.route, now.err
}
