package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// What WaitReady does next depends on how long it has waited already: a guest that takes long is asked less often, but of the
// whole wait only a small part is ever lost by asking late.
const (
	maxPending  = 8 // attempts to connect that are under way at once
	callAtLeast = 5 * time.Second
	callAtMost  = 2 * time.Minute
)

// silentAfter is when a connection that is not answered is joined by another attempt: a machine that is still booting loses what
// comes too early, and TCP repeats it after a second only.
func silentAfter(waited time.Duration) time.Duration {
	return min(max(waited/20, 10*time.Millisecond), time.Second)
}

// awakeAfter is the same for a machine that was frozen: its network is there and loses nothing, and it answers as soon as it can.
// More attempts only keep it from that.
func awakeAfter(waited time.Duration) time.Duration {
	return min(max(waited, 250*time.Millisecond), time.Second)
}

// refusedAfter is the pause after an answer that was no: nothing listens yet, or envd has no token yet.
func refusedAfter(waited time.Duration) time.Duration {
	return min(max(waited/50, 2*time.Millisecond), 250*time.Millisecond)
}

// WaitReady returns when envd has answered a call that shows the token. It tries until ctx ends, and then fails with the context's
// cause and what was wrong last. ErrUnauthenticated at once when envd wants another token.
func (c *Client) WaitReady(ctx context.Context) error {
	return c.wait(ctx, silentAfter, c.ping, func(err error) bool { return errors.Is(err, errs.ErrUnauthenticated) })
}

// wait makes a call until it succeeds, until ctx ends, or until it fails with what is final. An attempt to connect that is not
// answered is joined by another after pace.
func (c *Client) wait(ctx context.Context, pace func(time.Duration) time.Duration, call func(context.Context) error, final func(error) bool) error {
	began := time.Now()
	for {
		err := c.try(ctx, began, pace, call)
		if err == nil || final(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("envd did not answer within %v: %w (%w)", time.Since(began).Round(time.Millisecond), context.Cause(ctx), err)
		case <-time.After(refusedAfter(time.Since(began))):
		}
	}
}

// try connects and makes one call.
func (c *Client) try(ctx context.Context, began time.Time, pace func(time.Duration) time.Duration, call func(context.Context) error) error {
	conn, err := c.reach(ctx, began, pace)
	if err != nil {
		return broken(err)
	}
	select {
	case c.spare <- conn:
	default:
		_ = conn.Close()
	}
	defer c.dropSpare() // the call may have gone over another, and envd closes one that is not used
	ctx, cancel := context.WithTimeout(ctx, min(max(time.Since(began), callAtLeast), callAtMost))
	defer cancel()
	return call(ctx)
}

// reach makes a connection. While an attempt has no answer it starts another beside it, up to maxPending, and then gives the
// oldest up; the first answer counts, yes or no. It fails when ctx ends.
func (c *Client) reach(ctx context.Context, began time.Time, pace func(time.Duration) time.Duration) (net.Conn, error) {
	r := &race{dial: c.dial, answers: make(chan answer)}
	defer r.stop()
	for {
		r.start(ctx)
		next := time.After(pace(time.Since(began)))
		for waiting := true; waiting; {
			select {
			case a := <-r.answers:
				r.running--
				if a.givenUp() && ctx.Err() == nil {
					continue
				}
				return a.conn, a.err
			case <-next:
				waiting = false
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
}

// race is a number of attempts to connect, of which one is wanted.
type race struct {
	dial    DialFunc
	answers chan answer
	pending []context.CancelFunc // of the attempts that were not given up, oldest first
	running int
}

// answer is what became of an attempt.
type answer struct {
	ctx  context.Context
	conn net.Conn
	err  error
}

func (a answer) givenUp() bool { return a.err != nil && a.ctx.Err() != nil }

func (r *race) start(ctx context.Context) {
	if len(r.pending) == maxPending {
		r.pending[0]()
		r.pending = r.pending[1:]
	}
	ctx, cancel := context.WithCancel(ctx)
	r.pending = append(r.pending, cancel)
	r.running++
	go func() {
		conn, err := r.dial(ctx, Port)
		r.answers <- answer{ctx, conn, err}
	}()
}

// stop ends the attempts that run and closes what they made. A dial returns soon after its context ended.
func (r *race) stop() {
	for _, cancel := range r.pending {
		cancel()
	}
	for ; r.running > 0; r.running-- {
		if a := <-r.answers; a.conn != nil {
			_ = a.conn.Close()
		}
	}
}
