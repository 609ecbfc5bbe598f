package hostagent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// frozenJob is a job on a sandbox whose limit is that of a freeze of it, and more.
func (a *Agent) frozenJob(name, id string, more time.Duration) (job, *box, error) {
	b, err := a.box(id)
	if err != nil {
		return job{}, nil, err
	}
	r, err := a.m.Get(id)
	if err != nil {
		return job{}, nil, err
	}
	return job{name, r.FreezeTime() + more}, b, nil
}

// Pause freezes a sandbox to disk and gives back what else it has on the host. What is open on it ends. Errors are those of
// sandbox.Sandbox.Pause.
func (a *Agent) Pause(ctx context.Context, id, reason string) (Info, []vmm.Step, error) {
	j, b, err := a.frozenJob("pause", id, shortTime)
	if err != nil {
		return Info{}, nil, err
	}
	return performed(ctx, a, b, j, func(ctx context.Context, o *operation) (Info, error) {
		if err := a.pause(ctx, b, o, reason); err != nil {
			return Info{}, err
		}
		return a.Get(id)
	})
}

// performed is perform of what answers with its phases as well.
func performed[T any](ctx context.Context, a *Agent, b *box, j job, fn func(context.Context, *operation) (T, error)) (T, []vmm.Step, error) {
	type both struct {
		value T
		steps []vmm.Step
	}
	out, err := perform(ctx, a, b, j, func(ctx context.Context, o *operation) (both, error) {
		value, err := fn(ctx, o)
		return both{value, o.all()}, err
	})
	return out.value, out.steps, err
}

// pause freezes the box's sandbox.
//
// Preconditions: the caller has the box's line.
func (a *Agent) pause(ctx context.Context, b *box, o *operation, reason string) error {
	sb, err := a.take(ctx, b)
	if err != nil {
		return err
	}
	defer b.hush()()
	b.cutTraffic(ended(b.id, "paused")) // while the guest can still learn of it
	steps, err := sb.Pause(ctx, reason)
	o.add(steps...)
	if err != nil && sb.Held() {
		return err // it runs on
	}
	b.drop(ended(b.id, "paused"))
	if err != nil { // it is frozen; the rest of what it had goes now, or with the next try
		if _, again := a.recover(ctx, b); again != nil {
			return errors.Join(err, again)
		}
	}
	r, err := a.m.Get(b.id)
	if err != nil {
		return err
	}
	a.ledger.Set(b.id, amountOf(r))
	return nil
}

// Resume lets a paused sandbox go on. Errors are those of sandbox.Manager.Resume, and ErrResourceExhausted when the host's limits
// leave no room for it. When it fails, it stays paused.
func (a *Agent) Resume(ctx context.Context, id string) (Info, []vmm.Step, error) {
	b, err := a.box(id)
	if err != nil {
		return Info{}, nil, err
	}
	return performed(ctx, a, b, job{"resume", startTime}, func(ctx context.Context, o *operation) (Info, error) {
		r, err := a.m.Get(id)
		if err != nil {
			return Info{}, err
		}
		if r.State != sandbox.Paused {
			return Info{}, fmt.Errorf("sandbox %s is %s: %w", id, r.State, errs.ErrFailedPrecondition)
		}
		asleep := amountOf(r)
		r.State = sandbox.Resuming
		if err := a.ledger.Reserve(id, amountOf(r)); err != nil {
			return Info{}, err
		}
		sb, err := patient(ctx, sandbox.Paused, func() (*sandbox.Sandbox, error) { return a.m.Resume(ctx, id, o.step) })
		if err != nil {
			a.ledger.Set(id, asleep)
			return Info{}, err
		}
		a.hold(b, sb, noteOf(r))
		return a.Get(id)
	})
}

// Snapshot is a frozen sandbox under a name.
type Snapshot struct{ Name, Build string }

// CreateSnapshot freezes a running sandbox under a name. It runs on. Errors are those of sandbox.Sandbox.Snapshot, and
// ErrResourceExhausted when the host's limit of disk leaves no room for all that it may take: then nothing was made.
func (a *Agent) CreateSnapshot(ctx context.Context, id, name string) (Snapshot, []vmm.Step, error) {
	j, b, err := a.frozenJob("snapshot", id, shortTime)
	if err != nil {
		return Snapshot{}, nil, err
	}
	return performed(ctx, a, b, j, func(ctx context.Context, o *operation) (Snapshot, error) {
		sb, err := a.take(ctx, b)
		if err != nil {
			return Snapshot{}, err
		}
		r, err := a.m.Get(id)
		if err != nil {
			return Snapshot{}, err
		}
		holder := "snapshot of " + id
		if err := a.ledger.Reserve(holder, quota.Amount{DiskBytes: buildBytes(r.Parts.MemoryMiB, r.Parts.DiskBytes)}); err != nil {
			return Snapshot{}, err
		}
		defer func() {
			a.countStored()
			a.ledger.Set(holder, quota.Amount{})
		}()
		defer b.hush()()
		steps, err := sb.Snapshot(ctx, name)
		o.add(steps...)
		if err != nil {
			return Snapshot{}, err
		}
		return Snapshot{Name: name, Build: sb.Build()}, nil
	})
}

// ListSnapshots returns at most limit snapshots, by name, from the first after a name on, and whether there are more.
func (a *Agent) ListSnapshots(after string, limit int) (list []Snapshot, more bool, err error) {
	names, err := a.m.Snapshots()
	if err != nil {
		return nil, false, err
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch {
		case name <= after:
		case len(list) == limit:
			return list, true, nil
		default:
			list = append(list, Snapshot{Name: name, Build: names[name]})
		}
	}
	return list, false, nil
}

// DeleteSnapshot removes a snapshot. Errors are those of sandbox.Manager.DeleteSnapshot.
func (a *Agent) DeleteSnapshot(ctx context.Context, name string) error {
	_, err := perform(ctx, a, nil, job{"delete-snapshot", shortTime}, func(ctx context.Context, _ *operation) (struct{}, error) {
		defer a.countStored()
		return struct{}{}, a.m.DeleteSnapshot(ctx, name)
	})
	return err
}
