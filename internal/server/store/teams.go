package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Team is who sandboxes, snapshots and keys belong to.
type Team = db.Team

// AddTeam makes a team. One that is asked for again under its id is that team. ErrAlreadyExists when the name is taken.
func (s *Store) AddTeam(ctx context.Context, id, name string, l Limits) (Team, error) {
	t, err := s.q.AddTeam(ctx, db.AddTeamParams{ID: id, Name: name, MaxSandboxes: l.Sandboxes, MaxVcpus: l.VCPUs, MaxMemoryMib: l.MemoryMiB,
		MaxDiskBytes: l.DiskBytes, MaxSnapshots: l.Snapshots, RequestsPerSecond: l.PerSecond, Burst: l.Burst})
	if err = kind(err); !errors.Is(err, errs.ErrAlreadyExists) {
		return t, err
	}
	if t, err := s.GetTeam(ctx, id); !errors.Is(err, errs.ErrNotFound) {
		return t, err
	}
	return t, fmt.Errorf("team %q: %w", name, errs.ErrAlreadyExists)
}

// GetTeam returns a team. ErrNotFound when there is none, or it is deleted.
func (s *Store) GetTeam(ctx context.Context, team string) (Team, error) {
	t, err := s.q.GetTeam(ctx, team)
	return t, found(err, "team", team)
}

// ListTeams returns a page of all teams, by id, and the cursor of the next page, empty on the last.
func (s *Store) ListTeams(ctx context.Context, cursor string, limit int) ([]Team, string, error) {
	list, err := s.q.ListTeams(ctx, db.ListTeamsParams{After: cursor, Page: int32(limit + 1)})
	list, next := cut(list, limit, func(t Team) string { return t.ID })
	return list, next, kind(err)
}

// UpdateTeam gives a team another name and other limits; nil leaves them. ErrAlreadyExists when the name is taken.
func (s *Store) UpdateTeam(ctx context.Context, team string, name *string, l *Limits) (Team, error) {
	var t Team
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		if name != nil {
			if t, err = q.RenameTeam(ctx, db.RenameTeamParams{ID: team, Name: *name}); err != nil {
				return err
			}
		}
		if l != nil {
			t, err = q.LimitTeam(ctx, db.LimitTeamParams{ID: team, MaxSandboxes: l.Sandboxes, MaxVcpus: l.VCPUs, MaxMemoryMib: l.MemoryMiB,
				MaxDiskBytes: l.DiskBytes, MaxSnapshots: l.Snapshots, RequestsPerSecond: l.PerSecond, Burst: l.Burst})
		}
		return err
	})
	if errors.Is(err, errs.ErrAlreadyExists) {
		err = fmt.Errorf("team %q: %w", *name, errs.ErrAlreadyExists)
	}
	return t, found(err, "team", team)
}

// DeleteTeam ends a team and revokes its keys. Its name is free then. ErrFailedPrecondition, with some of them, when it has sandboxes that have
// not ended, or snapshots: nothing of it comes after that, see ShareTeam.
func (s *Store) DeleteTeam(ctx context.Context, team string) error {
	return s.inTx(ctx, func(q *db.Queries) error {
		if _, err := q.LockTeamToDelete(ctx, team); err != nil {
			return found(err, "team", team)
		}
		users, err := q.UsersOfTeam(ctx, team)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return fmt.Errorf("team %q has %s: %w", team, strings.Join(users, ", "), errs.ErrFailedPrecondition)
		}
		if err := q.RevokeKeysOfTeam(ctx, team); err != nil {
			return err
		}
		return q.DeleteTeam(ctx, team)
	})
}
