package hostagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
)

// takeOver puts every sandbox of the host into a box, counts what it takes, and begins to bring each into a state in which it can stay.
func (a *Agent) takeOver(ctx context.Context) error {
	records, err := a.m.List()
	if err != nil {
		return err
	}
	for _, r := range records {
		a.ledger.Set(r.ID, amountOf(r))
		if key := noteOf(r).Key; key != "" {
			a.made[key] = r.ID
		}
	}
	a.countStored()
	ids, err := a.m.Known(ctx)
	if err != nil {
		return err
	}
	a.adopting.Store(int32(len(ids)))
	width := make(chan struct{}, adoptWidth)
	var all sync.WaitGroup
	for _, id := range ids {
		b := a.add(id)
		b.line <- struct{}{} // before anybody else's operation
		if err := a.enter(); err != nil {
			return err
		}
		all.Go(func() {
			defer a.leave()
			defer a.adopting.Add(-1)
			defer b.leave()
			width <- struct{}{}
			defer func() { <-width }()
			a.adopt(ctx, b)
		})
	}
	go func() {
		all.Wait()
		a.maintain()
	}()
	return nil
}

// maintainEvery is how often the host is tidied up.
const maintainEvery = time.Hour

// maintain does now and then what belongs to no sandbox, until the agent stops.
func (a *Agent) maintain() {
	for {
		_, _ = perform(a.life, a, nil, job{"tidy", maintainEvery}, func(ctx context.Context, _ *operation) (struct{}, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(a.life, cancel)() // it may be ended at any time
			defer a.countStored()
			return struct{}{}, a.m.Tidy(ctx)
		})
		select {
		case <-time.After(maintainEvery):
		case <-a.life.Done():
			return
		}
	}
}

// patience is how long an operation waits for another program, or the maintenance, to let go of a sandbox: a sweep looks at it for a
// moment, and a build that is made compact is busy for longer.
const (
	patience = 2 * time.Minute
	retry    = 20 * time.Millisecond
)

// patient tries again while a sandbox that rests is in use elsewhere. Who uses one in another state does so for long.
func patient[T any](ctx context.Context, s sandbox.State, fn func() (T, error)) (T, error) {
	rests := s == sandbox.Paused || s == sandbox.Failed || s == sandbox.Lost
	for began := time.Now(); ; {
		value, err := fn()
		if !rests || !errors.Is(err, sandbox.ErrInUse) || time.Since(began) > patience {
			return value, err
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return value, err
		}
	}
}

// adopt is the operation of taking one over. When it fails, the next operation on the sandbox tries again.
func (a *Agent) adopt(ctx context.Context, b *box) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*shortTime)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)() // half of it is a state that the next agent takes over as well
	o := &operation{job: job{name: "adopt"}, sandbox: b.id, began: time.Now()}
	found, err := a.recover(ctx, b)
	switch {
	case errors.Is(err, sandbox.ErrInUse): // another program's, which ends it
		a.forget(b)
		return
	case err == nil:
		a.metrics.adopted.WithLabelValues(string(found.State)).Inc()
	}
	a.report(o, err)
}

// recover brings the box's sandbox into a state in which it can stay, and takes it if it runs.
//
// Preconditions: the caller has the box's line, and the box holds nothing.
func (a *Agent) recover(ctx context.Context, b *box) (sandbox.Recovered, error) {
	found, err := a.m.Recover(ctx, b.id)
	if err != nil {
		return found, err
	}
	if found.State == sandbox.Stopped {
		a.forget(b)
		return found, nil
	}
	r, err := a.m.Get(b.id)
	if err != nil {
		return found, err
	}
	a.ledger.Set(b.id, amountOf(r))
	switch {
	case found.Sandbox != nil:
		a.hold(b, found.Sandbox, noteOf(r))
	case found.State == sandbox.Failed || found.State == sandbox.Lost:
		b.later(max(0, a.retention(r)))
	}
	return found, nil
}

// take returns the running sandbox of a box. One that runs and is in nobody's hands, because it could not be taken over before, is
// taken now.
//
// Preconditions: the caller has the box's line.
func (a *Agent) take(ctx context.Context, b *box) (*sandbox.Sandbox, error) {
	if sb := b.held(); sb != nil {
		select {
		case <-sb.Ended():
			return nil, a.endOf(b.id)
		default:
			return sb, nil
		}
	}
	r, err := a.m.Get(b.id)
	if err != nil {
		return nil, err
	}
	if r.State == sandbox.Running || r.State == sandbox.Pausing {
		if _, err := a.recover(ctx, b); err != nil {
			return nil, err
		}
		if sb := b.held(); sb != nil {
			return sb, nil
		}
		if r, err = a.m.Get(b.id); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("sandbox %s is %s: %w", b.id, r.State, errs.ErrFailedPrecondition)
}

// add returns the box of an id, a new one if there is none.
func (a *Agent) add(id string) *box {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.boxes[id]
	if b == nil {
		b = newBox(id, a.expire)
		a.boxes[id] = b
	}
	return b
}

// box returns that of a sandbox that there is.
func (a *Agent) box(id string) (*box, error) {
	a.mu.Lock()
	b := a.boxes[id]
	a.mu.Unlock()
	if b != nil {
		return b, nil
	}
	if _, err := a.m.Get(id); err != nil { // one that another program has made since
		return nil, err
	}
	return a.add(id), nil
}

// forget removes the box of a sandbox that is gone.
func (a *Agent) forget(b *box) {
	b.drop(ended(b.id, "destroyed"))
	a.ledger.Set(b.id, quota.Amount{})
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.boxes[b.id] == b {
		delete(a.boxes, b.id)
	}
}

// hold takes a running sandbox into its box and watches for its end.
func (a *Agent) hold(b *box, sb *sandbox.Sandbox, n note) {
	live, end := b.hold(sb, a.cfg.Guest(sb.Dial, sb.Token), n)
	go func() {
		select {
		case <-sb.Ended():
			end(a.endOf(b.id))
			a.bury(b, sb)
		case <-live.Done():
		}
	}()
}

// endOf says why a sandbox has ended by itself, as its record does.
func (a *Agent) endOf(id string) error {
	r, err := a.m.Get(id)
	if err != nil {
		return ended(id, "destroyed")
	}
	return fmt.Errorf("sandbox %s has ended: %s: %w", id, r.Changes[len(r.Changes)-1].Reason, errs.ErrUnavailable)
}

// maxBuried is how many records of sandboxes that ended by themselves are kept: the oldest goes first.
const maxBuried = 1024

// bury removes what a sandbox that ended by itself has on the host. Its record, which says why, stays for a while, with what its machine
// wrote last.
func (a *Agent) bury(b *box, sb *sandbox.Sandbox) {
	_, _ = perform(a.life, a, b, job{"bury", shortTime}, func(ctx context.Context, _ *operation) (struct{}, error) {
		if b.held() != sb {
			return struct{}{}, nil // it was destroyed meanwhile
		}
		err := sb.Clear(ctx)
		b.drop(a.endOf(b.id))
		if err != nil { // the sweep of the next agent tries again
			return struct{}{}, err
		}
		a.ledger.Set(b.id, quota.Amount{})
		b.later(a.cfg.Retention)
		return struct{}{}, nil
	})
	a.limitBuried(a.maxBuried)
}

// limitBuried removes the oldest records of sandboxes that ended by themselves when there are more than so many: guests that end as soon
// as they start fill no disk.
func (a *Agent) limitBuried(most int) {
	records, err := a.m.List()
	if err != nil {
		a.log.Error("the records can't be listed", "error", err)
		return
	}
	buried := slices.DeleteFunc(records, func(r sandbox.Record) bool { return r.State != sandbox.Failed && r.State != sandbox.Lost })
	if len(buried) <= most {
		return
	}
	slices.SortFunc(buried, func(r, s sandbox.Record) int { return lastChange(r).Compare(lastChange(s)) })
	for _, r := range buried[:len(buried)-most] {
		if _, err := a.Destroy(a.life, r.ID, fmt.Sprintf("%d that ended after it are kept", most)); err != nil && !errors.Is(err, errs.ErrNotFound) {
			a.log.Error("an old record can't be removed", "sandbox", r.ID, "error", err)
		}
	}
}

func lastChange(r sandbox.Record) time.Time { return r.Changes[len(r.Changes)-1].Time }
