package store

import (
	"context"
	"time"

	"wrenn.dev/wrenn/internal/server/store/db"
)

// OpenPlace returns how far a reader of the events of all teams has come. One that is new begins with what happens from now on. Only who has the term
// may read there.
func (s *Store) OpenPlace(ctx context.Context, t Term, name string) (Place, error) {
	var p Place
	err := s.during(ctx, t, func(q *db.Queries) error {
		row, err := q.OpenPlace(ctx, name)
		p = Place{row.Tx, row.EventID}
		return kind(err)
	})
	return p, err
}

// MovePlace writes down how far a reader has come. ErrLeaseLost when the term is over: somebody else may have come further.
func (s *Store) MovePlace(ctx context.Context, t Term, name string, to Place) error {
	return s.during(ctx, t, func(q *db.Queries) error {
		return kind(q.MovePlace(ctx, db.MovePlaceParams{Name: name, Tx: to.tx, EventID: to.id}))
	})
}

// NextOfAll is Next for the events of all teams.
func (s *Store) NextOfAll(ctx context.Context, after Place, limit int, quiet time.Duration) ([]Event, error) {
	return s.poll(ctx, quiet, func() ([]Event, error) {
		return s.q.EventsOfAllAfter(ctx, db.EventsOfAllAfterParams{Tx: after.tx, ID: after.id, Page: int32(limit)})
	})
}
