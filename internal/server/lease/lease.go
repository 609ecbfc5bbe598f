// Package lease has work that must not be done twice at once done by one of several servers.
//
//	lease.Run(ctx, store, lease.Config{Name: "webhooks", Log: log}, func(ctx context.Context, t store.Term) error {
//		…                                     // until ctx ends; what is written is written with t
//	})
//
// A lease is a row in the database with an end, by the database's clock, which its holder moves on as long as it lives. A holder that dies loses it
// when it ends, and another server takes it. One that only stands still, or can't reach the database, is told twice: its context ends by its own
// clock, before the lease does; and what it writes with its term is refused once the lease has ended, whatever its clock says. What it does elsewhere
// than in the database may in that moment happen a second time by the next holder.
package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store"
)

// Store is what keeps leases: *store.Store.
type Store interface {
	TakeLease(ctx context.Context, name, holder string, ttl time.Duration) (store.Term, bool, error)
	RenewLease(ctx context.Context, t store.Term, ttl time.Duration) error
	GiveLeaseBack(ctx context.Context, t store.Term) error
}

// Config says which lease and how.
type Config struct {
	// Name is the lease's: those who do the same work have the same.
	Name string
	// TTL is how long a holder that has died keeps others waiting; zero is 15 seconds.
	TTL time.Duration
	// Log is told when the lease comes and goes.
	Log *slog.Logger
	// Held, unless nil, is called with true when the work begins and with false when it has ended.
	Held func(bool)
}

const (
	defaultTTL = 15 * time.Second
	// renewals is how many times in a TTL the lease is renewed: as many tries may fail, less one.
	renewals = 3
	// early is which part of a TTL before its end a holder stops that could not renew it.
	early = 6
	// firstBackOff and maxBackOff are how long work that failed rests before it is begun again.
	firstBackOff = time.Second
	maxBackOff   = time.Minute
)

// Work is done by the lease's holder. Its context ends with the lease; what it returns otherwise is logged, and it is begun again after a while, as
// it is when it panics.
type Work func(ctx context.Context, t store.Term) error

// Run does the work whenever it gets the lease, until ctx ends.
func Run(ctx context.Context, s Store, c Config, work Work) {
	c.TTL = cmp.Or(c.TTL, defaultTTL)
	if c.Held == nil {
		c.Held = func(bool) {}
	}
	r := &runner{Config: c, store: s, holder: id.NewOf(id.Holder), work: work}
	for rest := firstBackOff; ctx.Err() == nil; {
		held, err := r.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case held && err == nil, errors.Is(err, store.ErrLeaseLost):
			rest = firstBackOff
		case held:
			r.Log.Error("work under a lease failed; it is begun again", "lease", r.Name, "after", rest, "error", err)
		case err != nil:
			r.Log.Warn("a lease can't be taken; it is tried again", "lease", r.Name, "error", err)
		}
		wait := r.TTL / renewals
		if held {
			wait = rest
			if err != nil {
				rest = min(2*rest, maxBackOff)
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

type runner struct {
	Config
	store  Store
	holder string
	work   Work
}

// once tries to take the lease and, if it has it, works until one of the two ends.
func (r *runner) once(ctx context.Context) (held bool, err error) {
	asked := time.Now() // before the database's clock is read, so that our end comes first
	term, held, err := r.store.TakeLease(ctx, r.Name, r.holder, r.TTL)
	if !held || err != nil {
		return false, err
	}
	r.Log.Info("this server has the lease", "lease", r.Name, "term", term.Number)
	r.Held(true)
	defer r.Held(false)
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	end := time.AfterFunc(time.Until(r.until(asked)), func() { stop(store.ErrLeaseLost) })
	defer end.Stop()
	done := make(chan error, 1)
	go func() { done <- r.safely(working, term) }()
	err = r.renew(working, stop, end, term, done)
	if back := cleanup.Do(ctx, func(ctx context.Context) error { return r.store.GiveLeaseBack(ctx, term) }); back != nil {
		r.Log.Warn("a lease was not given back; it ends by itself", "lease", r.Name, "error", back)
	}
	if cause := context.Cause(working); cause != nil && errors.Is(cause, store.ErrLeaseLost) {
		r.Log.Warn("this server has lost the lease", "lease", r.Name, "term", term.Number)
		return true, cause
	}
	return true, err
}

// until is when a holder stops whose lease was taken or renewed by what it asked for at a time.
func (r *runner) until(asked time.Time) time.Time { return asked.Add(r.TTL - r.TTL/early) }

// renew renews the lease until the work has ended, and returns its error.
func (r *runner) renew(ctx context.Context, stop context.CancelCauseFunc, end *time.Timer, term store.Term, done <-chan error) error {
	tick := time.NewTicker(r.TTL / renewals)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return <-done
		}
		asked := time.Now()
		trying, cancel := context.WithTimeout(ctx, r.TTL/renewals)
		err := r.store.RenewLease(trying, term, r.TTL)
		cancel()
		switch {
		case err == nil:
			end.Reset(time.Until(r.until(asked)))
		case errors.Is(err, store.ErrLeaseLost):
			stop(err)
		case ctx.Err() == nil:
			r.Log.Warn("a lease was not renewed; it is tried again", "lease", r.Name, "error", err)
		}
	}
}

// safely does the work; a panic is an error.
func (r *runner) safely(ctx context.Context, t store.Term) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return r.work(ctx, t)
}
