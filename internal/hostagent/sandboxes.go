package hostagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
)

// Spec is what a caller of Create asks for.
type Spec struct {
	sandbox.Spec
	TTL      time.Duration // how long it may be idle; 0 is for ever
	OnExpiry Expiry        // "" is ExpiryDestroy
	Labels   map[string]string
	// Key is the name of the idempotency key, if the caller gave one: a sandbox that was made with it is not made again.
	Key string
}

// maxLabelBytes bounds all labels of a sandbox: they are in its record, which is written at every change of state.
const maxLabelBytes = 16 << 10

// Info is what there is to know of a sandbox.
type Info struct {
	sandbox.Record
	TTL       time.Duration
	OnExpiry  Expiry
	Labels    map[string]string
	ExpiresAt time.Time // zero while it is active, and when it does not run or has no TTL
}

// info adds to a record what the agent knows.
func (a *Agent) info(r sandbox.Record) Info {
	n := noteOf(r)
	i := Info{Record: r, TTL: n.TTL, OnExpiry: n.OnExpiry, Labels: n.Labels}
	a.mu.Lock()
	b := a.boxes[r.ID]
	a.mu.Unlock()
	if b != nil {
		i.ExpiresAt = b.expiresAt()
	}
	return i
}

// Create starts a sandbox, and returns when its guest answers. Errors are those of sandbox.Manager.Create, ErrResourceExhausted
// when the host's limits leave no room for it, and ErrAlreadyExists when there is one with the spec's ID: then nothing was made.
func (a *Agent) Create(ctx context.Context, spec Spec) (Info, []vmm.Step, error) {
	if err := spec.check(); err != nil {
		return Info{}, nil, err
	}
	if err := a.settled(ctx, spec.ID); err != nil {
		return Info{}, nil, err
	}
	if r, ok := a.madeWith(spec.Key); ok {
		return a.info(r), nil, nil
	}
	n := note{TTL: spec.TTL, OnExpiry: spec.OnExpiry, Labels: spec.Labels, Key: spec.Key}
	spec.ID, spec.Keep, spec.Note = cmp.Or(spec.ID, id.New()), true, n.encode()
	b := newBox(spec.ID, a.expire)
	return performed(ctx, a, b, job{"create", startTime}, func(ctx context.Context, o *operation) (Info, error) {
		if err := a.m.Check(ctx, &spec.Spec); err != nil {
			return Info{}, err
		}
		if err := a.addNew(b); err != nil {
			return Info{}, err
		}
		done, err := a.room(&spec.Spec)
		if err != nil {
			a.forget(b)
			return Info{}, err
		}
		defer done()
		sb, err := a.m.Create(ctx, spec.Spec, o.step)
		if err != nil {
			a.forget(b)
			return Info{}, err
		}
		a.hold(b, sb, n)
		return a.Get(b.id)
	})
}

// check refuses what the sandbox itself does not look at.
func (s *Spec) check() error {
	if s.Template == "" && s.Snapshot == "" {
		return errs.Field("template", "it is missing", "give a template or a snapshot to start from")
	}
	if s.OnExpiry == "" {
		s.OnExpiry = ExpiryDestroy
	}
	total := 0
	for k, v := range s.Labels {
		total += len(k) + len(v)
	}
	if total > maxLabelBytes {
		return errs.Field("labels", fmt.Sprintf("they have %d bytes together", total), fmt.Sprintf("give at most %d", maxLabelBytes))
	}
	return nil
}

// madeWith finds the sandbox that was made with an idempotency key by an agent that ended before it could keep the answer.
func (a *Agent) madeWith(key string) (sandbox.Record, bool) {
	if key == "" {
		return sandbox.Record{}, false
	}
	r, err := a.m.Get(a.made[key])
	return r, err == nil && r.State != sandbox.Starting && r.State != sandbox.Stopping
}

// settled waits until what is half made or half gone under an id is in order, as an agent before this one may have left it. The empty id is none.
func (a *Agent) settled(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	if r, err := a.m.Get(id); err != nil || r.State != sandbox.Starting && r.State != sandbox.Stopping {
		return nil // what is wrong is told where it is used
	}
	b, err := a.box(id)
	if err != nil {
		return nil // it is gone by now
	}
	if err := b.enter(ctx, a.life); err != nil {
		return fmt.Errorf("sandbox %s: %w", id, err)
	}
	b.leave()
	return nil
}

// addNew makes the box of a sandbox known that is to be made. ErrAlreadyExists when there is one with its id.
func (a *Agent) addNew(b *box) error {
	taken := fmt.Errorf("sandbox %s: %w", b.id, errs.ErrAlreadyExists)
	if _, err := a.m.Get(b.id); !errors.Is(err, errs.ErrNotFound) { // another program may have made it
		return taken
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.boxes[b.id] != nil {
		return taken
	}
	a.boxes[b.id] = b
	return nil
}

// Get returns a sandbox. ErrNotFound when there is none.
func (a *Agent) Get(id string) (Info, error) {
	r, err := a.m.Get(id)
	if err != nil {
		return Info{}, err
	}
	return a.info(r), nil
}

// Templates returns the host's templates, by name.
func (a *Agent) Templates() ([]template.Template, error) { return a.m.Templates() }

// DeleteTemplate removes a template. Errors are those of sandbox.Manager.DeleteTemplate.
func (a *Agent) DeleteTemplate(ctx context.Context, name string) error {
	_, err := perform(ctx, a, nil, job{"delete-template", shortTime}, func(ctx context.Context, _ *operation) (struct{}, error) {
		defer a.countStored()
		return struct{}{}, a.m.DeleteTemplate(ctx, name)
	})
	return err
}

// Filter says which sandboxes List returns.
type Filter struct {
	States map[sandbox.State]bool // nil is all
	Labels map[string]string      // those that it must have
}

func (f Filter) fits(i Info) bool {
	for k, v := range f.Labels {
		if got, ok := i.Labels[k]; !ok || got != v {
			return false
		}
	}
	return len(f.States) == 0 || f.States[i.State]
}

// List returns at most limit sandboxes, by id, from the first after an id on, and whether there are more.
func (a *Agent) List(f Filter, after string, limit int) (list []Info, more bool, err error) {
	records, err := a.m.List()
	if err != nil {
		return nil, false, err
	}
	for _, r := range records {
		if r.ID <= after {
			continue
		}
		i := a.info(r)
		if !f.fits(i) {
			continue
		}
		if len(list) == limit {
			return list, true, nil
		}
		list = append(list, i)
	}
	return list, false, nil
}

// Destroy ends a sandbox in any state and removes all it has. ErrNotFound when there is none.
func (a *Agent) Destroy(ctx context.Context, id, reason string) ([]vmm.Step, error) {
	b, err := a.box(id)
	if err != nil {
		return nil, err
	}
	return perform(ctx, a, b, job{"destroy", shortTime}, func(ctx context.Context, o *operation) ([]vmm.Step, error) {
		began := time.Now()
		if err := a.destroy(ctx, b, reason); err != nil {
			return nil, err
		}
		o.step(vmm.Step{Name: "destroy", Took: time.Since(began)})
		return o.all(), nil
	})
}

// destroy ends the box's sandbox.
//
// Preconditions: the caller has the box's line.
func (a *Agent) destroy(ctx context.Context, b *box, reason string) error {
	var err error
	if sb := b.held(); sb != nil {
		err = sb.Destroy(ctx, reason)
	} else {
		r, _ := a.m.Get(b.id) // one without a record that can be read is destroyed as well
		_, err = patient(ctx, r.State, func() (struct{}, error) { return struct{}{}, a.m.Destroy(ctx, b.id, reason) })
	}
	if err != nil {
		return err
	}
	a.forget(b)
	return nil
}

// SetTTL changes how long a sandbox may be idle, and begins that time anew.
func (a *Agent) SetTTL(ctx context.Context, id string, ttl time.Duration, on Expiry) (Info, error) {
	b, err := a.box(id)
	if err != nil {
		return Info{}, err
	}
	if on == "" {
		on = ExpiryDestroy
	}
	return perform(ctx, a, b, job{"set-ttl", shortTime}, func(ctx context.Context, _ *operation) (Info, error) {
		r, err := a.m.Get(id)
		if err != nil {
			return Info{}, err
		}
		n := noteOf(r)
		n.TTL, n.OnExpiry = ttl, on
		if sb := b.held(); sb != nil {
			err = sb.SetNote(n.encode())
		} else {
			_, err = patient(ctx, r.State, func() (struct{}, error) { return struct{}{}, a.m.SetNote(id, n.encode()) })
		}
		if err != nil {
			return Info{}, err
		}
		b.mu.Lock()
		b.note, b.since = n, time.Now()
		if b.sb != nil {
			b.arm()
		}
		b.mu.Unlock()
		return a.Get(id)
	})
}

// retryExpiry is when an expiry that failed is tried again.
const retryExpiry = time.Minute

// expire does what is to be done with a sandbox whose time has come, unless something has happened on it meanwhile.
func (a *Agent) expire(b *box) {
	_, err := perform(a.life, a, b, job{"expire", startTime}, func(ctx context.Context, o *operation) (struct{}, error) {
		var none struct{}
		running, idle, n := b.idle()
		switch {
		case !running:
			return none, a.expireRecord(ctx, b)
		case !idle:
			return none, nil
		case n.OnExpiry == ExpiryPause:
			return none, a.pause(ctx, b, o, fmt.Sprintf("it was idle for its TTL of %v", n.TTL))
		}
		return none, a.destroy(ctx, b, fmt.Sprintf("it was idle for its TTL of %v", n.TTL))
	})
	if err != nil && a.life.Err() == nil {
		b.later(retryExpiry)
	}
}

// expireRecord removes what is left of a sandbox that ended by itself long enough ago.
func (a *Agent) expireRecord(ctx context.Context, b *box) error {
	r, err := a.m.Get(b.id)
	if err != nil || r.State != sandbox.Failed && r.State != sandbox.Lost {
		return nil // it is gone, or it is something else by now
	}
	if left := a.retention(r); left > 0 {
		b.later(left)
		return nil
	}
	return a.destroy(ctx, b, fmt.Sprintf("it was %s for %v", r.State, a.cfg.Retention))
}

// retention is how long the record of a sandbox that ended is still to be kept.
func (a *Agent) retention(r sandbox.Record) time.Duration {
	return a.cfg.Retention - time.Since(r.Changes[len(r.Changes)-1].Time)
}

// States counts the host's sandboxes by their states, also those of other programs.
func (a *Agent) States() map[sandbox.State]int {
	counts := map[sandbox.State]int{}
	records, err := a.m.List()
	if err != nil {
		a.log.Error("the records can't be listed", "error", err)
	}
	for _, r := range records {
		counts[r.State]++
	}
	return counts
}
