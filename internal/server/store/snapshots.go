package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Snapshot is a frozen sandbox under a name that is its team's own. Its host knows it by its id.
type Snapshot = db.Snapshot

const snapshotReady = "ready"

// BeginSnapshot takes a name for a snapshot of a sandbox. ErrAlreadyExists when it is taken.
func (s *Store) BeginSnapshot(ctx context.Context, of Sandbox, name string) (Snapshot, error) {
	snap, err := s.q.InsertSnapshot(ctx, db.InsertSnapshotParams{ID: id.NewOf(id.Snapshot), TeamID: of.TeamID, HostID: of.HostID, Name: name,
		SandboxID: of.ID, Template: of.Template})
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		err = fmt.Errorf("snapshot %q: %w", name, errs.ErrAlreadyExists)
	}
	return snap, err
}

// SnapshotReady makes a snapshot one that sandboxes start from: it was made, or could not be deleted.
func (s *Store) SnapshotReady(ctx context.Context, snapshot string) (Snapshot, error) {
	snap, err := s.q.SnapshotReady(ctx, snapshot)
	return snap, found(err, "snapshot", snapshot)
}

// RemoveSnapshot forgets a snapshot that could not be made or is deleted.
func (s *Store) RemoveSnapshot(ctx context.Context, snapshot string) error {
	return kind(s.q.RemoveSnapshot(ctx, snapshot))
}

// BeginDelete keeps new sandboxes from a snapshot, so that it can be deleted. ErrFailedPrecondition, with them, when there are some.
func (s *Store) BeginDelete(ctx context.Context, team, name string) (Snapshot, error) {
	var snap Snapshot
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		snap, err = q.LockSnapshot(ctx, db.LockSnapshotParams{TeamID: team, Name: name})
		if err := found(err, "snapshot", name); err != nil {
			return err
		}
		users, err := q.UsersOfSnapshot(ctx, snap.ID)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return fmt.Errorf("snapshot %q is used by %s: %w", name, strings.Join(users, ", "), errs.ErrFailedPrecondition)
		}
		snap, err = q.SnapshotDeleting(ctx, snap.ID)
		if err := kind(err); errors.Is(err, errs.ErrNotFound) {
			return fmt.Errorf("snapshot %q is being made: %w", name, errs.ErrFailedPrecondition)
		}
		return err
	})
	return snap, err
}

// GetSnapshot returns a team's snapshot. ErrNotFound when there is none, or it is not ready.
func (s *Store) GetSnapshot(ctx context.Context, team, name string) (Snapshot, error) {
	snap, err := s.q.ShareSnapshot(ctx, db.ShareSnapshotParams{TeamID: team, Name: name})
	if err == nil && snap.State != snapshotReady {
		err = fmt.Errorf("snapshot %q is %s: %w", name, snap.State, errs.ErrNotFound)
	}
	return snap, found(err, "snapshot", name)
}

// ListSnapshots returns a page of a team's snapshots, by name, and the cursor of the next page, empty on the last.
func (s *Store) ListSnapshots(ctx context.Context, team, cursor string, limit int) ([]Snapshot, string, error) {
	list, err := s.q.ListSnapshots(ctx, db.ListSnapshotsParams{TeamID: team, After: cursor, Page: int32(limit + 1)})
	list, next := cut(list, limit, func(n Snapshot) string { return n.Name })
	return list, next, kind(err)
}
