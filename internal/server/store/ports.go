package store

import (
	"context"
	"errors"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Route is what it takes to let a request through to a sandbox's port. Tokens are the hashes of those that open it.
type Route = db.RouteOfRow

// MaxAccessTokens is how many access tokens of a sandbox are good at once: the newest.
const MaxAccessTokens = 32

// Route returns the route to a sandbox, whoever's it is. ErrNotFound when there is none.
func (s *Store) Route(ctx context.Context, id string) (Route, error) {
	r, err := s.q.RouteOf(ctx, id)
	return r, found(err, "sandbox", id)
}

// SetPorts changes who reaches a sandbox's ports and whether that wakes it; nil leaves it. ErrFailedPrecondition when it has ended.
func (s *Store) SetPorts(ctx context.Context, team, id string, public, autoResume *bool) (Sandbox, error) {
	sb, err := s.q.SetPorts(ctx, db.SetPortsParams{Public: public, AutoResume: autoResume, ID: id, TeamID: team})
	return s.orWhy(ctx, team, id, sb, err)
}

// AddAccessToken keeps the hash of a token that opens a sandbox's ports. The oldest beyond MaxAccessTokens is no good any more.
// ErrFailedPrecondition when the sandbox has ended.
func (s *Store) AddAccessToken(ctx context.Context, team, id string, hash []byte) error {
	err := s.inTx(ctx, func(q *db.Queries) error {
		n, err := q.InsertAccessToken(ctx, db.InsertAccessTokenParams{Hash: hash, ID: id, TeamID: team})
		if err == nil && n == 0 {
			err = errs.ErrNotFound
		}
		if err != nil {
			return err
		}
		return q.TrimAccessTokens(ctx, db.TrimAccessTokensParams{SandboxID: id, Keep: MaxAccessTokens})
	})
	if errors.Is(err, errs.ErrNotFound) {
		_, err = s.orWhy(ctx, team, id, Sandbox{}, err)
	}
	return err
}

// DropAccessTokens makes all access tokens of a sandbox no good any more. ErrNotFound when there is no such sandbox.
func (s *Store) DropAccessTokens(ctx context.Context, team, id string) error {
	if _, err := s.Get(ctx, team, id); err != nil {
		return err
	}
	return kind(s.q.DeleteAccessTokens(ctx, id))
}
