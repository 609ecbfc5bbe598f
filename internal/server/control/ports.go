package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

// Route returns the route to a sandbox, whoever's it is. ErrNotFound when there is none.
func (c *Control) Route(ctx context.Context, sandbox string) (store.Route, error) {
	return c.store.Route(ctx, sandbox)
}

// Dial connects to a port of a sandbox that runs, as client.Client.Dial does.
func (c *Control) Dial(ctx context.Context, r store.Route, port int) (net.Conn, error) {
	agent, err := c.hosts.Agent(ctx, r.HostID)
	if err != nil {
		return nil, err
	}
	return agent.Dial(ctx, r.ID, port)
}

// onTheWay is how often a sandbox is looked at that will be in another state soon.
const onTheWay = 50 * time.Millisecond

// Wake returns when a sandbox runs: a paused one it resumes, one on the way it waits for. It may be asked of several servers at once.
// ErrNotFound when there is none, ErrFailedPrecondition when it has ended.
func (c *Control) Wake(ctx context.Context, sandbox string) error {
	for {
		r, err := c.store.Route(ctx, sandbox)
		if err != nil {
			return err
		}
		switch r.State {
		case store.Running:
			return nil
		case store.Paused:
			_, err := c.Resume(ctx, r.TeamID, NewOp(), sandbox)
			if !errors.Is(err, errs.ErrFailedPrecondition) {
				return err
			} // somebody else was faster
		case store.Starting, store.Pausing, store.Resuming:
		default:
			return fmt.Errorf("sandbox %s is %s: %w", sandbox, r.State, errs.ErrFailedPrecondition)
		}
		select {
		case <-time.After(onTheWay):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
