package store

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Counts are how much there is of what metrics tell.
type Counts struct {
	Sandboxes         map[State]int64 // those that have not ended
	PendingDeliveries int64
}

// Count counts. It reads an index, or a part of the table, of what has not ended: it is not for every request.
func (s *Store) Count(ctx context.Context) (Counts, error) {
	c := Counts{Sandboxes: map[State]int64{}}
	rows, err := s.q.CountSandboxes(ctx)
	if err != nil {
		return c, kind(err)
	}
	for _, r := range rows {
		c.Sandboxes[r.State] = r.Number
	}
	c.PendingDeliveries, err = s.q.CountPendingDeliveries(ctx)
	return c, kind(err)
}

// Pool says how the connections are used.
func (s *Store) Pool() *pgxpool.Stat { return s.pool.Stat() }
