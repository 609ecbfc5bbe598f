package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

// wakeTime bounds how long a request waits for its sandbox.
const wakeTime = 2 * time.Minute

// awake returns when the sandbox of a route runs, or says why it does not.
func (p *Proxy) awake(ctx context.Context, route store.Route) *refusal {
	switch {
	case route.State == store.Running:
		return nil
	case store.Ended(route.State) || route.State == store.Stopping:
		return &notFound
	case !route.AutoResume && route.State == store.Paused:
		return &paused
	case !route.AutoResume:
		return onTheWay(route.State)
	}
	err := p.wake(ctx, route.ID)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errs.ErrNotFound), errors.Is(err, errs.ErrFailedPrecondition):
		return &notFound
	case errors.Is(err, errs.ErrResourceExhausted):
		return &noRoom
	}
	p.Log.Warn("a sandbox was not woken", "sandbox", route.ID, "error", err)
	return &notWoken
}

// wake returns when a sandbox runs. Of those who ask at once, one wakes it; who leaves does not end that.
func (p *Proxy) wake(ctx context.Context, sandbox string) error {
	result := p.waking.DoChan(sandbox, func() (any, error) {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), wakeTime, fmt.Errorf("it took over %v: %w", wakeTime, errs.ErrUnavailable))
		defer cancel()
		if err := p.Sandboxes.Wake(ctx, sandbox); err != nil {
			return nil, err
		}
		_, err := p.routes.fresh(ctx, sandbox)
		return nil, err
	})
	select {
	case out := <-result:
		return out.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
