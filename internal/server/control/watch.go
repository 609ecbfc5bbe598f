package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
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

// onTheWay says that it will be in another state soon.
func (f found) onTheWay() bool {
	switch f.state {
	case store.Starting, store.Pausing, store.Resuming, store.Stopping:
		return true
	}
	return false
}

// look asks the agent for a sandbox. What an agent does not have has ended: its state says how, as far as the row tells.
func (c *Control) look(ctx context.Context, row store.Sandbox) (found, error) {
	resp, err := c.host.Sandboxes.Get(ctx, connect.NewRequest(&pb.GetRequest{Id: row.ID}))
	if errors.Is(err, errs.ErrNotFound) {
		if row.State == store.Starting {
			return found{store.Failed, "its start was cut off", true}, nil
		}
		return found{store.Stopped, "its host has it no more", true}, nil
	}
	if err != nil {
		return found{}, err
	}
	is := resp.Msg.GetSandbox()
	return found{states[is.GetState()], is.GetReason(), false}, nil
}

const (
	// lookAgain is how often everything is looked at, although no event tells of it.
	lookAgain = time.Minute
	// comeBack is how soon an agent that does not answer is asked again.
	comeBack = time.Second
	// raced is how soon a row is read again that changed meanwhile.
	raced = 10 * time.Millisecond
	// pageSize is how many sandboxes are read at once.
	pageSize = 500
)

// Watch writes down what happens to the host's sandboxes by itself: those that end, that expire, and those whose operation was cut off,
// by the end of a server or an agent. It returns when ctx ends.
func (c *Control) Watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("the host's events can't be followed; it is tried again", "host", c.host.ID, "error", err)
		select {
		case <-time.After(comeBack):
		case <-ctx.Done():
		}
	}
}

// follow looks at everything, and then at what the host's events name. An event says only where to look: what is true is what the agent
// says when it is asked.
func (c *Control) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.host.Host.Events(ctx, connect.NewRequest(&pb.EventsRequest{}))
	if err != nil {
		return err
	}
	defer stream.Close()
	events := make(chan *pb.EventsResponse)
	go func() {
		defer close(events)
		for stream.Receive() {
			select {
			case events <- stream.Msg():
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	all := true
	for {
		if all {
			if err := c.lookAtAll(ctx); err != nil {
				return err
			}
		}
		select {
		case e, ok := <-events:
			if !ok {
				return stream.Err()
			}
			all = e.GetGap() != nil
			if id := e.GetStateChanged().GetSandbox(); id != "" {
				if err := c.check(ctx, id); err != nil {
					return err
				}
			}
		case <-tick.C:
			all = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lookAtAll checks every sandbox that the store or the agent has.
func (c *Control) lookAtAll(ctx context.Context) error {
	for after := ""; ; {
		rows, err := c.store.Alive(ctx, c.host.ID, after, pageSize)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := c.check(ctx, row.ID); err != nil {
				return err
			}
			after = row.ID
		}
		if len(rows) < pageSize {
			break
		}
	}
	for token := ""; ; {
		resp, err := c.host.Sandboxes.List(ctx, connect.NewRequest(&pb.ListRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return err
		}
		for _, is := range resp.Msg.GetSandboxes() {
			if err := c.check(ctx, is.GetId()); err != nil {
				return err
			}
		}
		if token = resp.Msg.GetNextPageToken(); token == "" {
			return nil
		}
	}
}

// check brings a sandbox's row and the host together. One that the store does not know is somebody else's and left alone.
func (c *Control) check(ctx context.Context, sandbox string) error {
	for ctx.Err() == nil {
		row, err := c.store.OfHost(ctx, c.host.ID, sandbox)
		if errors.Is(err, errs.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		is, err := c.look(ctx, row) // after the row was read: see store.Observe
		if err != nil {
			return err
		}
		live := row.OpUntil != nil && time.Now().Before(*row.OpUntil)
		switch {
		case store.Ended(row.State):
			if is.absent || store.Ended(is.state) {
				return nil
			}
			return c.remove(ctx, sandbox, "it was "+row.State+": "+row.Reason)
		case row.State == store.Stopping && !live && !is.absent:
			if err := c.remove(ctx, sandbox, row.Reason); err != nil {
				return err
			}
			continue
		case row.Op == nil && row.State == is.state, live && (row.State == store.Starting || !store.Ended(is.state)), is.onTheWay():
			return nil // an operation under way tells of its end itself, and a state on the way has another event to come
		}
		if row.State == store.Stopping && is.absent {
			is = found{state: store.Stopped, reason: row.Reason}
		}
		if changed, err := c.store.Observe(ctx, row, is.state, is.reason); changed || err != nil {
			return err
		}
		time.Sleep(raced)
	}
	return context.Cause(ctx)
}
