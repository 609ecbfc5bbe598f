package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Snapshot is a frozen sandbox under a name that is its team's own. Its host knows it by its id.
type Snapshot = db.Snapshot

// The states of a snapshot.
const (
	SnapshotCreating = "creating"
	SnapshotWhole    = "ready"
	SnapshotDeleting = "deleting"
)

// NewSnapshot is what BeginSnapshot makes a row of.
type NewSnapshot struct {
	ID   string
	Of   Sandbox
	Name string
	// Key is the id of the API key that it is made with; empty for none.
	Key string
	// Op makes it; OpTime is how long it is waited for unless it is renewed.
	Op     string
	OpTime time.Duration
}

// BeginSnapshot takes a name for a snapshot of a sandbox. ErrAlreadyExists when it is taken, and a *errs.QuotaError when it is too much for
// its team or key.
func (s *Store) BeginSnapshot(ctx context.Context, n NewSnapshot) (Snapshot, error) {
	var snap Snapshot
	err := s.inTx(ctx, func(q *db.Queries) error {
		of := n.Of
		err := take(ctx, q, of.TeamID, given(n.Key), Amount{Snapshots: 1, DiskBytes: onDisk(of.MemoryMib, of.DiskBytes)})
		if err != nil {
			return err
		}
		snap, err = q.InsertSnapshot(ctx, db.InsertSnapshotParams{ID: n.ID, TeamID: of.TeamID, HostID: of.HostID, Name: n.Name, SandboxID: of.ID,
			Template: of.Template, KeyID: given(n.Key), Vcpus: of.Vcpus, MemoryMib: of.MemoryMib, DiskBytes: of.DiskBytes, Op: n.Op, OpTime: n.OpTime})
		if err = kind(err); errors.Is(err, errs.ErrNotFound) {
			err = fmt.Errorf("snapshot %q: %w", n.Name, errs.ErrAlreadyExists)
		}
		return err
	})
	return snap, err
}

// SnapshotOfID returns a team's snapshot in any state. ErrNotFound when there is none.
func (s *Store) SnapshotOfID(ctx context.Context, team, snapshot string) (Snapshot, error) {
	snap, err := s.q.SnapshotOfID(ctx, db.SnapshotOfIDParams{ID: snapshot, TeamID: team})
	return snap, found(err, "snapshot", snapshot)
}

// TakeSnapshot goes on with the making of a snapshot by the same operation. ErrNotFound when that does not make it.
func (s *Store) TakeSnapshot(ctx context.Context, team, snapshot, op string, opTime time.Duration) (Snapshot, error) {
	snap, err := s.q.TakeSnapshot(ctx, db.TakeSnapshotParams{ID: snapshot, TeamID: team, Op: op, OpTime: opTime})
	return snap, found(err, "snapshot", snapshot)
}

// RenewSnapshot says that the operation that makes a snapshot goes on, for opTime at least.
func (s *Store) RenewSnapshot(ctx context.Context, snapshot, op string, opTime time.Duration) error {
	return kind(s.q.RenewSnapshot(ctx, db.RenewSnapshotParams{ID: snapshot, Op: op, OpTime: opTime}))
}

// SnapshotReady makes a snapshot one that sandboxes start from: its operation has made it, or, without one, it could not be deleted. ErrNotFound
// when that was given up meanwhile.
func (s *Store) SnapshotReady(ctx context.Context, snapshot string, op *string) (Snapshot, error) {
	var snap Snapshot
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		if snap, err = q.SnapshotReady(ctx, db.SnapshotReadyParams{ID: snapshot, Op: op}); err != nil || op == nil {
			return err
		}
		return q.ClaimDone(ctx, *op)
	})
	return snap, found(err, "snapshot", snapshot)
}

// GiveUpSnapshot is AbandonSnapshot by the operation that could not make it. ErrNotFound when that does not make it any more.
func (s *Store) GiveUpSnapshot(ctx context.Context, snapshot, op string, opTime time.Duration) (Snapshot, error) {
	snap, err := s.q.GiveUpSnapshot(ctx, db.GiveUpSnapshotParams{ID: snapshot, Op: op, OpTime: opTime})
	return snap, found(err, "snapshot", snapshot)
}

// SnapshotsCutOff are a host's snapshots whose making or deleting nobody has been at for its time, those first that have waited longest.
func (s *Store) SnapshotsCutOff(ctx context.Context, host string, limit int) ([]Snapshot, error) {
	list, err := s.q.SnapshotsCutOff(ctx, db.SnapshotsCutOffParams{HostID: host, Page: int32(limit)})
	return list, kind(err)
}

// AbandonSnapshot gives the name of a snapshot back whose making was cut off, and keeps its id for as long as its host may still end it.
func (s *Store) AbandonSnapshot(ctx context.Context, snapshot string, opTime time.Duration) error {
	_, err := s.q.AbandonSnapshot(ctx, db.AbandonSnapshotParams{ID: snapshot, OpTime: opTime})
	return kind(err)
}

// RemoveSnapshot forgets a snapshot that could not be made or is deleted.
func (s *Store) RemoveSnapshot(ctx context.Context, snapshot string) error {
	return kind(s.q.RemoveSnapshot(ctx, snapshot))
}

// BeginDelete keeps new sandboxes from a snapshot, so that it can be deleted. ErrFailedPrecondition, with them, when there are some.
func (s *Store) BeginDelete(ctx context.Context, team, name string, opTime time.Duration) (Snapshot, error) {
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
		snap, err = q.SnapshotDeleting(ctx, db.SnapshotDeletingParams{ID: snap.ID, OpTime: opTime})
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
	if err == nil && snap.State != SnapshotWhole {
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
