package process

import (
	"context"
	"errors"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/pager"
)

// Usage is what a pager takes of the host, and what it did for that.
type Usage struct {
	CPU         time.Duration
	MemoryBytes int64
	// Stats is nil for one that does not answer: it has brought in everything and ended, or is about to.
	Stats *pager.Stats
}

// Usage tells of the sandbox's pager. ErrNotFound when it has none.
func (s Starter) Usage(ctx context.Context, sandbox string) (Usage, error) {
	if _, err := id.Parse(sandbox); err != nil {
		return Usage{}, err
	}
	g, err := s.groups().Get(sandbox).Usage()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{CPU: g.CPU, MemoryBytes: g.MemoryBytes}
	stats, err := (&Process{folder: s.folder(sandbox)}).Client().Stats(ctx)
	if err == nil {
		u.Stats = &stats
	}
	return u, unlessUnavailable(err)
}

// unlessUnavailable is an error but that nobody answers.
func unlessUnavailable(err error) error {
	if errors.Is(err, errs.ErrUnavailable) {
		return nil
	}
	return err
}
