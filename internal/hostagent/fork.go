package hostagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// Forks is what a caller of Fork asks for.
type Forks struct {
	Count int
	// IDs are the clones', as many as Count; without any they are made up.
	IDs []string
	// Key is the name of the idempotency key, if the caller gave one: a clone that was made with it is not made again.
	Key string
}

// Clone is what became of one clone of a fork.
type Clone struct {
	Info Info
	Err  error
}

// forkWidth is how many clones of a fork start at once, see sandbox.Sandbox.Fork.
const forkWidth = 8

// Fork starts others from where a sandbox is now. They have its labels, TTL, sizes and policy. The error is that of the freeze,
// ErrResourceExhausted when the host's limits leave no room for all of them, or ErrAlreadyExists when there is a sandbox with one of the ids that
// was not made with the key: then none was made.
func (a *Agent) Fork(ctx context.Context, id string, f Forks) ([]Clone, []vmm.Step, error) {
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	for _, clone := range f.IDs {
		if err := a.settled(ctx, clone); err != nil {
			return nil, nil, err
		}
	}
	if made, err := a.forkedWith(f); made != nil || err != nil {
		return made, nil, err
	}
	j, b, err := a.frozenJob("fork", id, time.Duration(f.Count/forkWidth+1)*startTime)
	if err != nil {
		return nil, nil, err
	}
	return performed(ctx, a, b, j, func(ctx context.Context, o *operation) ([]Clone, error) {
		sb, err := a.take(ctx, b)
		if err != nil {
			return nil, err
		}
		r, err := a.m.Get(id)
		if err != nil {
			return nil, err
		}
		todo, err := a.newClones(f)
		if err != nil {
			return nil, err
		}
		defer todo.leave()
		all := "fork of " + id
		if err := a.ledger.Reserve(all, amountOf(r).Times(len(todo.ids))); err != nil {
			todo.forget(a)
			return nil, err
		}
		over := b.hush()
		defer over()
		n := noteOf(r)
		n.Key = f.Key
		forked, _, err := sb.ForkAs(ctx, todo.ids, n.encode(), func(s vmm.Step) {
			o.step(s)
			if s.Name == "thaw" { // the clones start now, and it goes on
				over()
			}
		})
		var made []string
		for _, c := range forked {
			if c.Err == nil {
				made = append(made, c.Sandbox.ID)
			}
		}
		a.ledger.Split(all, made, amountOf(r))
		for i, c := range forked {
			if c.Err == nil {
				a.hold(a.add(c.Sandbox.ID), c.Sandbox, n)
			} else if todo.boxes[i] != nil {
				a.forget(todo.boxes[i])
			}
		}
		if len(forked) == 0 {
			todo.forget(a)
		}
		return a.clones(f, forked, err)
	})
}

func (f *Forks) check() error {
	if len(f.IDs) == 0 {
		f.IDs = make([]string, f.Count)
		return nil
	}
	if f.Count == 0 {
		f.Count = len(f.IDs)
	}
	if f.Count != len(f.IDs) {
		return errs.Field("ids", fmt.Sprintf("there are %d for %d clones", len(f.IDs), f.Count), "give one for each, or none")
	}
	sorted := slices.Sorted(slices.Values(f.IDs))
	if len(slices.Compact(sorted)) != f.Count || sorted[0] == "" {
		return errs.Field("ids", "one is there twice, or empty", "give each clone one of its own")
	}
	return nil
}

// forkedWith are the clones of a fork if all of them were made with its key, by an agent that ended before it could keep the answer; nil if one is
// still to be made. ErrAlreadyExists for one that was made otherwise.
func (a *Agent) forkedWith(f Forks) ([]Clone, error) {
	var clones []Clone
	for _, id := range f.IDs {
		if r, ok, err := a.cloneWith(id, f.Key); err != nil {
			return nil, err
		} else if ok {
			clones = append(clones, Clone{Info: a.info(r)})
		}
	}
	if len(clones) < f.Count {
		return nil, nil
	}
	return clones, nil
}

// cloneWith returns the clone of an id that was made with a key, and whether there is one. ErrAlreadyExists for one that was made otherwise.
func (a *Agent) cloneWith(id, key string) (sandbox.Record, bool, error) {
	if id == "" {
		return sandbox.Record{}, false, nil
	}
	r, err := a.m.Get(id)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		return r, false, nil
	case err != nil:
		return r, false, err
	case key == "" || noteOf(r).Key != key:
		return r, false, fmt.Errorf("sandbox %s: %w", id, errs.ErrAlreadyExists)
	}
	return r, true, nil
}

// toFork are the clones that a fork is to make: their ids and, where the caller gave them, their boxes. Who asks for one waits in line until the
// fork is done.
type toFork struct {
	ids   []string
	boxes []*box
}

// newClones makes the boxes of the clones that there are none of.
func (a *Agent) newClones(f Forks) (todo toFork, err error) {
	defer func() {
		if err != nil {
			todo.forget(a)
			todo.leave()
		}
	}()
	for _, id := range f.IDs {
		if _, made, err := a.cloneWith(id, f.Key); err != nil {
			return todo, err
		} else if made {
			continue
		}
		var b *box
		if id != "" {
			b = newBox(id, a.expire)
			b.line <- struct{}{}
			if err := a.addNew(b); err != nil {
				return todo, err
			}
		}
		todo.ids, todo.boxes = append(todo.ids, id), append(todo.boxes, b)
	}
	return todo, nil
}

func (t *toFork) leave() {
	for _, b := range t.boxes {
		if b != nil {
			b.leave()
		}
	}
}

func (t *toFork) forget(a *Agent) {
	for _, b := range t.boxes {
		if b != nil {
			a.forget(b)
		}
	}
}

// clones are the clones of a fork, in the order of their ids where those were given. A fork that made some is none that failed.
func (a *Agent) clones(f Forks, forked []sandbox.Forked, err error) ([]Clone, error) {
	clones, some := make([]Clone, 0, f.Count), false
	for _, id := range f.IDs {
		now := func(c sandbox.Forked) bool { return c.Err == nil && c.Sandbox.ID == id }
		if r, made, _ := a.cloneWith(id, f.Key); made && !slices.ContainsFunc(forked, now) {
			clones, some = append(clones, Clone{Info: a.info(r)}), true // by the same fork, before
			continue
		}
		if len(forked) == 0 {
			break
		}
		c := Clone{Err: forked[0].Err}
		if c.Err == nil {
			c.Info, c.Err = a.Get(forked[0].Sandbox.ID)
		}
		if c.Err != nil {
			err = errors.Join(err, c.Err)
		}
		clones, some, forked = append(clones, c), some || c.Err == nil, forked[1:]
	}
	if !some {
		return nil, err
	}
	return clones, nil
}
