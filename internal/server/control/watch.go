package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// states are the agent's states as the store has them.
var states = map[pb.State]store.State{
	pb.State_STATE_STARTING: store.Starting, pb.State_STATE_RUNNING: store.Running, pb.State_STATE_PAUSING: store.Pausing,
	pb.State_STATE_PAUSED: store.Paused, pb.State_STATE_RESUMING: store.Resuming, pb.State_STATE_STOPPING: store.Stopping,
	pb.State_STATE_STOPPED: store.Stopped, pb.State_STATE_FAILED: store.Failed, pb.State_STATE_LOST: store.Lost,
}

// found is what an agent says of a sandbox.
type found struct {
	state  store.State
	reason string
	absent bool // the agent has none
}

// undecided says that nothing can be written down by it: it will be in another state soon, or its record can't be read.
func (f found) undecided() bool {
	switch f.state {
	case store.Starting, store.Pausing, store.Resuming, store.Stopping, "":
		return true
	}
	return false
}

// look asks the agent for a sandbox.
func (c *Control) look(ctx context.Context, row store.Sandbox) (found, error) {
	agent, err := c.hosts.Agent(ctx, row.HostID)
	if err != nil {
		return found{}, err
	}
	return lookAt(ctx, agent, row)
}

// lookAt is look. What an agent does not have has ended: its state says how, as far as the row tells.
func lookAt(ctx context.Context, agent *client.Client, row store.Sandbox) (found, error) {
	resp, err := agent.Sandboxes.Get(ctx, connect.NewRequest(&pb.GetRequest{Id: row.ID}))
	if errors.Is(err, errs.ErrNotFound) {
		switch row.State {
		case store.Starting:
			return found{store.Failed, "its start was cut off", true}, nil
		case store.Lost:
			return found{store.Lost, "its host came back without it", true}, nil
		}
		return found{store.Stopped, "its host has it no more", true}, nil
	}
	if errors.Is(err, errs.ErrCorrupt) {
		return found{}, nil // its record can't be read
	}
	if err != nil {
		return found{}, err
	}
	is := resp.Msg.GetSandbox()
	return found{states[is.GetState()], is.GetReason(), false}, nil
}

const (
	// raced is how soon a row is read again that changed meanwhile.
	raced = 10 * time.Millisecond
	// pageSize is how many sandboxes are read at once.
	pageSize = 500
)

// check brings a sandbox's row and its host together. Nothing is destroyed on a doubt: only what has ended by its row, or is to. One that the
// store does not know is somebody else's and left alone, and so is one whose record the agent can't read.
func (c *Control) check(ctx context.Context, host string, agent *client.Client, sandbox string) error {
	err := c.reconcile(ctx, host, agent, sandbox)
	if err == nil || ctx.Err() != nil || errors.Is(err, errs.ErrUnavailable) {
		return err
	}
	c.log.Warn("a sandbox and its host were not brought together; it is tried again with the next look", "sandbox", sandbox, "host", host, "error", err)
	return nil // and the others are looked at
}

func (c *Control) reconcile(ctx context.Context, host string, agent *client.Client, sandbox string) error {
	for ctx.Err() == nil {
		row, err := c.store.OfHost(ctx, host, sandbox)
		if errors.Is(err, errs.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		is, err := lookAt(ctx, agent, row) // after the row was read: see store.Observe
		if err != nil {
			return err
		}
		done, err := c.bring(ctx, row, is)
		if done || err != nil {
			return err
		}
		time.Sleep(raced)
	}
	return context.Cause(ctx)
}

// bring brings a row and what its host says together. It says whether that is done; else the row is read anew.
func (c *Control) bring(ctx context.Context, row store.Sandbox, is found) (done bool, err error) {
	live := row.OpUntil != nil && time.Now().Before(*row.OpUntil)
	switch {
	case row.WithHost && is.undecided():
		return true, nil
	case row.WithHost:
		if !is.absent {
			is.reason = "its host is back: " + is.reason
		}
		if is.state == store.Stopped { // an agent tells of none, but the row would have no reason
			is.state = store.Lost
		}
		return c.store.ComeBack(ctx, row, is.state, is.reason)
	case row.State == store.Lost:
		return true, nil // by its agent's own word
	case store.Ended(row.State):
		if is.absent || store.Ended(is.state) {
			return true, nil
		}
		return true, c.remove(ctx, row, "it was "+row.State+": "+row.Reason)
	case row.State == store.Stopping && !live && !is.absent:
		return false, c.remove(ctx, row, row.Reason)
	case row.Op == nil && row.State == is.state, live && (row.State == store.Starting || !store.Ended(is.state)), is.undecided():
		return true, nil // an operation under way tells of its end itself, and a state on the way has another event to come
	}
	if row.State == store.Stopping && is.absent {
		is = found{state: store.Stopped, reason: row.Reason}
	}
	return c.store.Observe(ctx, row, is.state, is.reason)
}
