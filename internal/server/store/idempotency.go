package store

import (
	"bytes"
	"context"
	"errors"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// askAgain is how soon one looks again for the answer that another request with the same key is working on.
const askAgain = 100 * time.Millisecond

// Claim takes an idempotency key for a request, given as its hash, for at most claimTime. It returns the answer when the work was done
// before, and nil when the caller is to do it. Then the work has the name that Claim returns: the one that was given, or that under
// which it was begun by somebody who has not ended it in time. While another one does it, Claim waits. ErrKeyReused when the key is
// another request's.
func (s *Store) Claim(ctx context.Context, team, key, claim string, request []byte, claimTime time.Duration) (*Answer, string, error) {
	for {
		mine, err := s.q.ClaimKey(ctx, db.ClaimKeyParams{TeamID: team, Key: key, Request: request, Claim: claim, ClaimTime: claimTime})
		if err = kind(err); !errors.Is(err, errs.ErrNotFound) {
			return nil, mine.Claim, err
		}
		row, err := s.q.GetKeyed(ctx, db.GetKeyedParams{TeamID: team, Key: key})
		switch err = kind(err); {
		case errors.Is(err, errs.ErrNotFound): // it failed just now, and was given back
			continue
		case err != nil:
			return nil, "", err
		case !bytes.Equal(row.Request, request):
			return nil, "", ErrKeyReused
		case row.Status != nil:
			return &Answer{Status: int(*row.Status), Body: row.Answer}, row.Claim, nil
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, "", context.Cause(ctx)
		}
	}
}

// Keep keeps the answer of who has the key.
func (s *Store) Keep(ctx context.Context, team, key, claim string, a Answer) error {
	return kind(s.q.KeepAnswer(ctx, db.KeepAnswerParams{Status: int32(a.Status), Answer: a.Body, TeamID: team, Key: key, Claim: claim}))
}

// Drop gives a key back: the work failed and may be done anew.
func (s *Store) Drop(ctx context.Context, team, key, claim string) error {
	return kind(s.q.DropClaim(ctx, db.DropClaimParams{TeamID: team, Key: key, Claim: claim}))
}

// Renew has a key's claim last for claimTime from now on.
func (s *Store) Renew(ctx context.Context, team, key, claim string, claimTime time.Duration) error {
	return kind(s.q.RenewClaim(ctx, db.RenewClaimParams{TeamID: team, Key: key, Claim: claim, ClaimTime: claimTime}))
}

// Done says whether an operation that has an idempotency key came to its end well, though its answer was not kept.
func (s *Store) Done(ctx context.Context, op string) (bool, error) {
	done, err := s.q.IsClaimDone(ctx, op)
	return done, kind(err)
}
