package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Term is one holder's time with a lease. A later holder's has a higher number.
type Term struct {
	Name, Holder string
	Number       int64
}

// ErrLeaseLost is how a holder learns that the lease is no longer its own: what it was about to write was not written.
var ErrLeaseLost = fmt.Errorf("the lease has ended: %w", errs.ErrFailedPrecondition)

// TakeLease takes a lease for as long as ttl, by the database's clock. False when somebody else has it.
func (s *Store) TakeLease(ctx context.Context, name, holder string, ttl time.Duration) (Term, bool, error) {
	number, err := s.q.TakeLease(ctx, db.TakeLeaseParams{Name: name, Holder: holder, Ttl: ttl})
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		return Term{}, false, nil
	}
	return Term{name, holder, number}, err == nil, err
}

// RenewLease prolongs a lease to ttl from now. ErrLeaseLost when it has ended, even if nobody else has taken it yet.
func (s *Store) RenewLease(ctx context.Context, t Term, ttl time.Duration) error {
	n, err := s.q.RenewLease(ctx, db.RenewLeaseParams{Name: t.Name, Holder: t.Holder, Term: t.Number, Ttl: ttl})
	if err == nil && n == 0 {
		return ErrLeaseLost
	}
	return kind(err)
}

// GiveLeaseBack ends a lease now. One that has ended already stays as it is.
func (s *Store) GiveLeaseBack(ctx context.Context, t Term) error {
	return kind(s.q.GiveLeaseBack(ctx, db.GiveLeaseBackParams{Name: t.Name, Holder: t.Holder, Term: t.Number}))
}

// during runs fn in one transaction in which the lease is the term's own, from its beginning to its end: nobody else gets it meanwhile. ErrLeaseLost
// when it is not; then nothing was written.
func (s *Store) during(ctx context.Context, t Term, fn func(q *db.Queries) error) error {
	return s.inTx(ctx, func(q *db.Queries) error {
		_, err := q.ProveLease(ctx, db.ProveLeaseParams{Name: t.Name, Holder: t.Holder, Term: t.Number})
		if err := kind(err); errors.Is(err, errs.ErrNotFound) {
			return ErrLeaseLost
		} else if err != nil {
			return err
		}
		return fn(q)
	})
}
