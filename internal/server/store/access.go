package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Key is an API key as it is kept: of the key itself only its hash.
type Key = db.ApiKey

// Team returns the team of a name, which it makes if there is none.
func (s *Store) Team(ctx context.Context, name string) (db.Team, error) {
	t, err := s.q.InsertTeam(ctx, db.InsertTeamParams{ID: id.NewOf(id.Team), Name: name})
	return t, kind(err)
}

// HasKeys says whether there is any API key: a server that has none is a new one.
func (s *Store) HasKeys(ctx context.Context) (bool, error) {
	n, err := s.q.CountKeys(ctx)
	return n > 0, kind(err)
}

// AddKey keeps a key.
func (s *Store) AddKey(ctx context.Context, k Key) (Key, error) {
	made, err := s.q.InsertKey(ctx, db.InsertKeyParams{ID: id.NewOf(id.Key), TeamID: k.TeamID, Name: k.Name, Prefix: k.Prefix, Hash: k.Hash,
		Scopes: k.Scopes, ExpiresAt: k.ExpiresAt, MaxSandboxes: k.MaxSandboxes, MaxVcpus: k.MaxVcpus, MaxMemoryMib: k.MaxMemoryMib,
		MaxDiskBytes: k.MaxDiskBytes, MaxSnapshots: k.MaxSnapshots, RequestsPerSecond: k.RequestsPerSecond, Burst: k.Burst})
	return made, kind(err)
}

// KeyByHash finds a key and its team, whether they are still good or not. ErrNotFound when there is none.
func (s *Store) KeyByHash(ctx context.Context, hash []byte) (Key, Team, error) {
	row, err := s.q.KeyByHash(ctx, hash)
	return row.ApiKey, row.Team, kind(err)
}

// ListKeys returns a page of a team's keys, by id, and the cursor of the next page, empty on the last.
func (s *Store) ListKeys(ctx context.Context, team, cursor string, limit int) ([]Key, string, error) {
	list, err := s.q.ListKeys(ctx, db.ListKeysParams{TeamID: team, After: cursor, Page: int32(limit + 1)})
	list, next := cut(list, limit, func(k Key) string { return k.ID })
	return list, next, kind(err)
}

// RevokeKey makes a key no good from now on. ErrNotFound when the team has none of that id; ErrPermissionDenied for an operator's, unless an
// operator asks.
func (s *Store) RevokeKey(ctx context.Context, team, key string, byOperator bool) (Key, error) {
	k, err := s.q.RevokeKey(ctx, db.RevokeKeyParams{ID: key, TeamID: team, ByOperator: byOperator})
	if err = kind(err); !errors.Is(err, errs.ErrNotFound) {
		return k, err
	}
	if k, err = s.q.GetKey(ctx, db.GetKeyParams{ID: key, TeamID: team}); err != nil {
		return k, found(err, "API key", key)
	}
	return k, fmt.Errorf("API key %q is an operator's: %w", key, errs.ErrPermissionDenied)
}

// KeysUsed writes when keys were last used, of many at once.
func (s *Store) KeysUsed(ctx context.Context, used map[string]time.Time) error {
	p := db.KeysUsedParams{Ids: slices.Sorted(maps.Keys(used))} // sorted: two servers take the rows' locks in the same order
	for _, key := range p.Ids {
		p.Times = append(p.Times, used[key])
	}
	return kind(s.q.KeysUsed(ctx, p))
}

// cut makes a page of what was asked for with one more than its limit.
func cut[T any](list []T, limit int, name func(T) string) ([]T, string) {
	if len(list) <= limit {
		return list, ""
	}
	return list[:limit], name(list[limit-1])
}

// keyTime is how long the answer to an idempotency key is kept.
const keyTime = 24 * time.Hour

// Answer is what was answered to a request with an idempotency key.
type Answer struct {
	Status int
	Body   []byte
}

// ErrKeyReused is an idempotency key that came before with another request.
var ErrKeyReused = errs.Field("Idempotency-Key", "it came before with another request", "give each request a key of its own")
