package control

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

const (
	// lookAgain is how often everything on a host is looked at, although no event tells of it.
	lookAgain = time.Minute
	// findTime is how soon a host is followed that is new or back.
	findTime = 250 * time.Millisecond
	// comeBack is how soon an agent that does not answer is asked again, at first and at last.
	comeBack, comeBackAtMost = time.Second, 15 * time.Second
)

// follower is what follows one host.
type follower struct {
	leave context.CancelFunc
	look  chan struct{} // asks for a look at everything
}

// Watch writes down what happens to sandboxes by itself: those that end, that expire, and those whose operation was cut off, by the end of a
// server or an agent; and what hosts that were lost bring back. It returns when ctx ends.
func (c *Control) Watch(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	following := map[string]*follower{}
	tick := time.NewTicker(findTime)
	defer tick.Stop()
	for ctx.Err() == nil {
		hosts, err := c.hosts.Reachable(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("it is not known which hosts there are; those that were go on to be followed", "error", err)
		}
		for host, new := range hosts {
			f := following[host]
			if f == nil {
				f = &follower{look: make(chan struct{}, 1)}
				var followed context.Context
				followed, f.leave = context.WithCancel(ctx)
				following[host] = f
				running.Go(func() { c.followAlways(followed, host, f.look) })
			} else if new {
				select {
				case f.look <- struct{}{}:
				default: // it is asked for already
				}
			}
		}
		for host, f := range following {
			if _, there := hosts[host]; !there && err == nil {
				f.leave()
				delete(following, host)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for _, f := range following {
		f.leave()
	}
}

// followAlways follows a host until ctx ends.
func (c *Control) followAlways(ctx context.Context, host string, look <-chan struct{}) {
	wait := comeBack
	for {
		began := time.Now()
		err := c.follow(ctx, host, look)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lookAgain {
			wait = comeBack
		}
		c.log.Warn("the host's events can't be followed; it is tried again", "host", host, "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, comeBackAtMost)
	}
}

// follow looks at everything, and then at what the host's events name. An event says only where to look: what is true is what the agent
// says when it is asked.
func (c *Control) follow(ctx context.Context, host string, look <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	agent, err := c.hosts.Agent(ctx, host)
	if err != nil {
		return err
	}
	stream, err := agent.Host.Events(ctx, connect.NewRequest(&pb.EventsRequest{}))
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
			if err := c.lookAtAll(ctx, host, agent); err != nil {
				return err
			}
		}
		all = false
		select {
		case e, ok := <-events:
			if !ok {
				return stream.Err()
			}
			all = e.GetGap() != nil
			if told := e.GetStateChanged(); told != nil {
				if err := c.heard(ctx, host, agent, told.GetSandbox(), states[told.GetChange().GetState()]); err != nil {
					return err
				}
			}
		case <-look:
			all = true
		case <-tick.C:
			all = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// heard looks where an event says, unless there is nothing to be found: a state on the way has another event to come, and so has one that the
// sandbox has left again; what the row says already, or an operation under way will write, needs no question.
func (c *Control) heard(ctx context.Context, host string, agent *client.Client, sandbox string, state store.State) error {
	if (found{state: state}).undecided() {
		return nil
	}
	row, err := c.store.OfHost(ctx, host, sandbox)
	if errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	if err != nil || row.State == state {
		return err
	}
	if live := row.OpUntil != nil && time.Now().Before(*row.OpUntil); live && !store.Ended(state) && !store.Ended(row.State) {
		return nil
	}
	return c.check(ctx, host, agent, sandbox)
}

// lookAtAll compares all that the store and the agent have, checks each sandbox of which they say different things, and settles the snapshots that were
// cut off. Then the host is up.
func (c *Control) lookAtAll(ctx context.Context, host string, agent *client.Client) error {
	has, err := inventory(ctx, agent)
	if err != nil {
		return err
	}
	for after := ""; ; {
		rows, err := c.store.Alive(ctx, host, after, pageSize)
		if err != nil {
			return err
		}
		for _, row := range rows {
			after = row.ID
			same := row.Op == nil && !row.WithHost && states[has[row.ID]] == row.State
			delete(has, row.ID)
			if same {
				continue
			}
			if err := c.check(ctx, host, agent, row.ID); err != nil {
				return err
			}
		}
		if len(rows) < pageSize {
			break
		}
	}
	for id := range has { // what has ended by its row, or is nobody's
		if err := c.check(ctx, host, agent, id); err != nil {
			return err
		}
	}
	c.settleSnapshots(ctx, host, agent)
	return c.store.HostSettled(ctx, host)
}

// inventory are the states of all sandboxes that an agent has.
func inventory(ctx context.Context, agent *client.Client) (map[string]pb.State, error) {
	has := map[string]pb.State{}
	for token := ""; ; {
		resp, err := agent.Sandboxes.List(ctx, connect.NewRequest(&pb.ListRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, err
		}
		for _, is := range resp.Msg.GetSandboxes() {
			has[is.GetId()] = is.GetState()
		}
		if token = resp.Msg.GetNextPageToken(); token == "" {
			return has, nil
		}
	}
}
