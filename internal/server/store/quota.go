package store

import (
	"context"
	"errors"
	"fmt"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Limits are what a team or a key may have at once and how often it may ask; nil is no limit.
type Limits struct {
	Sandboxes, VCPUs, MemoryMiB, DiskBytes, Snapshots *int64
	// PerSecond is how many requests are answered in the long run, and Burst how many may come at once; nil is as many as in a second.
	PerSecond, Burst *int32
}

// LimitsOfTeam are those of a team.
func LimitsOfTeam(t Team) Limits {
	return Limits{t.MaxSandboxes, t.MaxVcpus, t.MaxMemoryMib, t.MaxDiskBytes, t.MaxSnapshots, t.RequestsPerSecond, t.Burst}
}

// LimitsOfKey are those of a key.
func LimitsOfKey(k Key) Limits {
	return Limits{k.MaxSandboxes, k.MaxVcpus, k.MaxMemoryMib, k.MaxDiskBytes, k.MaxSnapshots, k.RequestsPerSecond, k.Burst}
}

// Amount is what is taken of the limits, or asked for. A sandbox that has not ended takes a sandbox and its disk; unless it is paused, or being
// destroyed, which one that is paused may be and takes no more for it, its virtual CPUs and its memory as well. Of the disk it takes its own and
// its memory's size, which is on the disk while it is paused: room for that is held from the start, so that no pause is refused, as the host's
// agent does. A snapshot takes as much disk as its sandbox.
type Amount struct{ Sandboxes, VCPUs, MemoryMiB, DiskBytes, Snapshots int64 }

// onDisk is what of memory and disk can be on a disk.
func onDisk(memoryMiB int32, diskBytes int64) int64 { return int64(memoryMiB)<<20 + diskBytes }

// sandboxes is what n sandboxes of a size take when they run.
func (z Sizes) sandboxes(n int) Amount {
	m := int64(n)
	return Amount{Sandboxes: m, VCPUs: m * int64(z.VCPUs), MemoryMiB: m * int64(z.MemoryMiB), DiskBytes: m * onDisk(z.MemoryMiB, z.DiskBytes)}
}

// quotas are the limits of amounts, with their names and what is used and asked for of each.
func (l Limits) quotas(used, asked Amount) []quota {
	return []quota{
		{"sandboxes", l.Sandboxes, used.Sandboxes, asked.Sandboxes},
		{"vcpus", l.VCPUs, used.VCPUs, asked.VCPUs},
		{"memory_mib", l.MemoryMiB, used.MemoryMiB, asked.MemoryMiB},
		{"disk_bytes", l.DiskBytes, used.DiskBytes, asked.DiskBytes},
		{"snapshots", l.Snapshots, used.Snapshots, asked.Snapshots},
	}
}

type quota struct {
	field       string
	most        *int64
	used, asked int64
}

// limited says whether there is any limit of what is asked for.
func (l Limits) limited(asked Amount) bool {
	for _, q := range l.quotas(Amount{}, asked) {
		if q.most != nil && q.asked > 0 {
			return true
		}
	}
	return false
}

// fit is a *errs.QuotaError for the first limit that what is asked for is over.
func (l Limits) fit(whose string, used, asked Amount) error {
	for _, q := range l.quotas(used, asked) {
		if q.most != nil && q.asked > 0 && q.used+q.asked > *q.most {
			return &errs.QuotaError{Whose: whose, Field: q.field, Used: q.used, Limit: *q.most, Asked: q.asked}
		}
	}
	return nil
}

// take makes sure that a team, and one of its keys unless that is empty, may have more. What is asked for is to be written in the same
// transaction: if there is a limit, no other one takes of it until that ends, on whatever server. What is used is counted from the rows
// themselves, from one index: a count beside them could come to differ, and there are no more rows than the limit allows.
func take(ctx context.Context, q *db.Queries, team string, key *string, asked Amount) error {
	t, err := q.ShareTeam(ctx, team)
	if err := found(err, "team", team); err != nil {
		return err
	}
	var of Limits
	if key != nil {
		k, err := q.GetKey(ctx, db.GetKeyParams{ID: *key, TeamID: team})
		if err := found(err, "API key", *key); err != nil {
			return err
		}
		of = LimitsOfKey(k)
	}
	if !LimitsOfTeam(t).limited(asked) && !of.limited(asked) {
		return nil
	}
	if t, err = q.LockTeam(ctx, team); err != nil { // its limits may have changed meanwhile
		return found(err, "team", team)
	}
	if l := LimitsOfTeam(t); l.limited(asked) {
		used, err := used(ctx, q, team, "")
		if err != nil {
			return err
		}
		if err := l.fit("team", used, asked); err != nil {
			return err
		}
	}
	if !of.limited(asked) {
		return nil
	}
	usedByKey, err := used(ctx, q, team, *key)
	if err != nil {
		return err
	}
	return of.fit("API key", usedByKey, asked)
}

// used is what a team takes, or with a key what was made with that.
func used(ctx context.Context, q *db.Queries, team, key string) (Amount, error) {
	s, err := q.UsedByTeam(ctx, db.UsedByTeamParams{TeamID: team, KeyID: key})
	if err != nil {
		return Amount{}, err
	}
	n, err := q.SnapshotsOfTeam(ctx, db.SnapshotsOfTeamParams{TeamID: team, KeyID: key})
	return Amount{Sandboxes: s.Sandboxes, VCPUs: s.Vcpus, MemoryMiB: s.MemoryMib, DiskBytes: s.DiskBytes + n.DiskBytes, Snapshots: n.Snapshots}, err
}

// Used is what a team takes of its limits.
func (s *Store) Used(ctx context.Context, team string) (Amount, error) {
	a, err := used(ctx, s.q, team, "")
	return a, kind(err)
}

// isNew says that there is no sandbox of the team with an id yet: one that is asked for again takes nothing more. ErrAlreadyExists else.
func isNew(ctx context.Context, q *db.Queries, team, sandbox string) error {
	_, err := q.GetSandbox(ctx, db.GetSandboxParams{ID: sandbox, TeamID: team})
	switch err = kind(err); {
	case errors.Is(err, errs.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("sandbox %q: %w", sandbox, errs.ErrAlreadyExists)
}
