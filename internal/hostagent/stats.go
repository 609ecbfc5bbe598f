package hostagent

import (
	"context"
	"errors"
	"sync"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/sandbox"
)

// Stats are what one sandbox takes of the host.
type Stats struct {
	ID string
	sandbox.Usage
}

// statsWidth is how many sandboxes are looked at at once.
const statsWidth = 16

// Stats tells what sandboxes take of the host, by id; no ids are all. Those without a machine are left out. ErrNotFound when one that is
// asked for does not exist.
func (a *Agent) Stats(ctx context.Context, ids []string) ([]Stats, error) {
	wanted := map[string]bool{}
	for _, id := range ids {
		if _, err := a.m.Get(id); err != nil {
			return nil, err
		}
		wanted[id] = true
	}
	records, err := a.m.List()
	if err != nil {
		return nil, err
	}
	var there []Stats
	for _, r := range records {
		if r.State != sandbox.Paused && (len(ids) == 0 || wanted[r.ID]) {
			there = append(there, Stats{ID: r.ID})
		}
	}
	return a.measure(ctx, there)
}

// measure fills the stats in, and leaves out those that there are none of.
func (a *Agent) measure(ctx context.Context, list []Stats) ([]Stats, error) {
	some, failed := a.look(ctx, list)
	if len(failed) > 0 {
		return nil, failed[0]
	}
	return some, nil
}

// measureAll is measure of all sandboxes. Those that it fails for are counted.
func (a *Agent) measureAll(ctx context.Context) (some []Stats, unmeasured int, err error) {
	records, err := a.m.List()
	if err != nil {
		return nil, 0, err
	}
	var list []Stats
	for _, r := range records {
		if r.Machine != nil {
			list = append(list, Stats{ID: r.ID})
		}
	}
	some, failed := a.look(ctx, list)
	return some, len(failed), nil
}

// look fills the stats in, and returns those that there are, and the errors of others that should be.
func (a *Agent) look(ctx context.Context, list []Stats) (some []Stats, problems []error) {
	failed := make([]error, len(list))
	places := make(chan struct{}, statsWidth)
	var wg sync.WaitGroup
	for i := range list {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			list[i].Usage, failed[i] = a.m.Usage(ctx, list[i].ID)
		})
	}
	wg.Wait()
	for i, err := range failed {
		switch {
		case err == nil:
			some = append(some, list[i])
		case !errors.Is(err, errs.ErrNotFound):
			problems = append(problems, err)
		}
	}
	return some, problems
}
