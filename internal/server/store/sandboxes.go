package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Sandbox is a row: what the server knows of a sandbox. TtlSeconds 0 is for ever.
type Sandbox = db.Sandbox

// Sizes are what a sandbox is made of; zero is not known yet.
type Sizes struct {
	Template  string
	VCPUs     int32
	MemoryMiB int32
	DiskBytes int64
}

// NewSandbox is what Create makes a row of.
type NewSandbox struct {
	ID, Team string
	// Host is where it is to be; empty leaves that to Create, which then finds one with room and writes the sizes that it has there.
	Host string
	// Op names the start; OpTime is how long it is waited for.
	Op     string
	OpTime time.Duration
	// Snapshot is the name of a snapshot that it starts from; empty for a template.
	Snapshot   string
	Sizes      Sizes
	Internet   bool
	Metadata   map[string]string
	TTLSeconds int32
	OnExpiry   string // destroy or pause
	Reason     string
}

// ErrOvertaken is how an operation learns at its end that the sandbox is no longer its own: it was destroyed meanwhile, has ended, or this
// operation took so long that it was given up. It is an ErrFailedPrecondition.
var ErrOvertaken = fmt.Errorf("something else happened to the sandbox meanwhile: %w", errs.ErrFailedPrecondition)

// Create makes a sandbox that is starting, and holds room for it on its host. A snapshot that it starts from, whose host is its host, can't be
// deleted from then on. ErrNotFound when there is none; ErrAlreadyExists when there is a sandbox of that id; ErrResourceExhausted with what
// is short when no host has room for it.
func (s *Store) Create(ctx context.Context, n NewSandbox) (Sandbox, error) {
	var sb Sandbox
	err := s.inTx(ctx, func(q *db.Queries) error {
		var from *string
		on := "" // where its snapshot is
		if n.Snapshot != "" {
			snap, err := q.ShareSnapshot(ctx, db.ShareSnapshotParams{TeamID: n.Team, Name: n.Snapshot})
			if err := found(err, "snapshot", n.Snapshot); err != nil {
				return err
			}
			if snap.State != snapshotReady {
				return fmt.Errorf("snapshot %q is %s: %w", n.Snapshot, snap.State, errs.ErrFailedPrecondition)
			}
			from, n.Sizes = &snap.ID, Sizes{snap.Template, snap.FrozenVcpus, snap.FrozenMemoryMib, snap.FrozenDiskBytes}
			on = snap.HostID
		}
		if n.Host == "" {
			if err := place(ctx, q, &n, on); err != nil {
				return err
			}
		}
		n.Host = cmp.Or(on, n.Host)
		var err error
		sb, err = insert(ctx, q, n, Starting, from)
		return err
	})
	s.tell(err)
	return sb, err
}

func insert(ctx context.Context, q *db.Queries, n NewSandbox, state State, snapshot *string) (Sandbox, error) {
	p := db.InsertSandboxParams{ID: n.ID, TeamID: n.Team, HostID: n.Host, State: state, Reason: words(n.Reason), Template: n.Sizes.Template,
		SnapshotID: snapshot, Vcpus: n.Sizes.VCPUs, MemoryMib: n.Sizes.MemoryMiB, DiskBytes: n.Sizes.DiskBytes, Internet: n.Internet,
		Metadata: n.Metadata, TtlSeconds: n.TTLSeconds, OnExpiry: n.OnExpiry}
	if p.Metadata == nil {
		p.Metadata = map[string]string{}
	}
	if n.Op != "" {
		p.Op, p.OpTime = &n.Op, &n.OpTime
	}
	return q.InsertSandbox(ctx, p)
}

// AddClones makes rows for the clones of a fork of a sandbox, which run already. They are like it but for their ids.
func (s *Store) AddClones(ctx context.Context, of Sandbox, ids []string, reason string) ([]Sandbox, error) {
	clones := make([]Sandbox, len(ids))
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		for i, id := range ids {
			n := NewSandbox{ID: id, Team: of.TeamID, Host: of.HostID, Sizes: Sizes{of.Template, of.Vcpus, of.MemoryMib, of.DiskBytes},
				Internet: of.Internet, Metadata: of.Metadata, TTLSeconds: of.TtlSeconds, OnExpiry: of.OnExpiry, Reason: reason}
			if clones[i], err = insert(ctx, q, n, Running, of.SnapshotID); err != nil {
				return err
			}
		}
		return nil
	})
	s.tell(err)
	return clones, err
}

// Get returns a team's sandbox. ErrNotFound when there is none.
func (s *Store) Get(ctx context.Context, team, id string) (Sandbox, error) {
	sb, err := s.q.GetSandbox(ctx, db.GetSandboxParams{ID: id, TeamID: team})
	return sb, found(err, "sandbox", id)
}

// OfHost returns a host's sandbox, whoever's it is. ErrNotFound when there is none.
func (s *Store) OfHost(ctx context.Context, host, id string) (Sandbox, error) {
	sb, err := s.q.GetSandboxOfHost(ctx, db.GetSandboxOfHostParams{ID: id, HostID: host})
	return sb, found(err, "sandbox", id)
}

// Begin puts a sandbox into the state on the way, under the operation's name, for at most opTime. ErrNotFound when there is none;
// ErrFailedPrecondition with its state when it is not where the change may begin.
func (s *Store) Begin(ctx context.Context, team, id string, c Change, reason, op string, opTime time.Duration) (Sandbox, error) {
	sb, err := s.q.BeginChange(ctx, db.BeginChangeParams{State: c.Via, Reason: words(reason), Op: op, OpTime: opTime, ID: id, TeamID: team, FromStates: c.From})
	if err := kind(err); !errors.Is(err, errs.ErrNotFound) {
		s.tell(err)
		return sb, err
	}
	if sb, err = s.Get(ctx, team, id); err != nil {
		return sb, err
	}
	return sb, fmt.Errorf("sandbox %s is %s (%s): %w", id, sb.State, sb.Reason, errs.ErrFailedPrecondition)
}

// Finish takes a sandbox out of the state on the way. ErrOvertaken when the operation is no longer the sandbox's: nothing has changed then.
func (s *Store) Finish(ctx context.Context, id, op string, to State, reason string) (Sandbox, error) {
	sb, err := s.q.FinishChange(ctx, db.FinishChangeParams{State: to, Reason: words(reason), ID: id, Op: op})
	return sb, s.finished(err)
}

// Started is Finish of a start that went well, with what the sandbox turned out to be.
func (s *Store) Started(ctx context.Context, id, op string, is Sizes, reason string) (Sandbox, error) {
	sb, err := s.q.FinishStart(ctx, db.FinishStartParams{Reason: words(reason), Template: is.Template, Vcpus: is.VCPUs, MemoryMib: is.MemoryMiB,
		DiskBytes: is.DiskBytes, ID: id, Op: op})
	return sb, s.finished(err)
}

func (s *Store) finished(err error) error {
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		return ErrOvertaken
	}
	s.tell(err)
	return err
}

// Observe writes what a host says of a sandbox, if the row is still the one that was read before the host was asked. A sandbox with an
// operation under way is the operation's until its time is over, unless it has ended. It says whether the row changed.
func (s *Store) Observe(ctx context.Context, read Sandbox, is State, reason string) (bool, error) {
	_, err := s.q.Observe(ctx, db.ObserveParams{State: is, Reason: words(reason), ID: read.ID, Version: read.Version})
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		return false, nil
	}
	s.tell(err)
	return err == nil, err
}

// Alive are a host's sandboxes that have not ended, by id, from the first after an id on.
func (s *Store) Alive(ctx context.Context, host, after string, limit int) ([]Sandbox, error) {
	list, err := s.q.ListAlive(ctx, db.ListAliveParams{HostID: host, After: after, Page: int32(limit)})
	return list, kind(err)
}

// SetTTL writes a new time to live. ErrFailedPrecondition when the sandbox neither runs nor is paused.
func (s *Store) SetTTL(ctx context.Context, team, id string, seconds int32, onExpiry string) (Sandbox, error) {
	sb, err := s.q.SetTTL(ctx, db.SetTTLParams{TtlSeconds: seconds, OnExpiry: onExpiry, ID: id, TeamID: team})
	return s.orWhy(ctx, team, id, sb, err)
}

// SetMetadata writes new metadata. ErrFailedPrecondition when the sandbox has ended.
func (s *Store) SetMetadata(ctx context.Context, team, id string, metadata map[string]string) (Sandbox, error) {
	sb, err := s.q.SetMetadata(ctx, db.SetMetadataParams{Metadata: metadata, ID: id, TeamID: team})
	return s.orWhy(ctx, team, id, sb, err)
}

// orWhy says why an update met no row.
func (s *Store) orWhy(ctx context.Context, team, id string, sb Sandbox, err error) (Sandbox, error) {
	if err = kind(err); !errors.Is(err, errs.ErrNotFound) {
		return sb, err
	}
	if sb, err = s.Get(ctx, team, id); err != nil {
		return sb, err
	}
	return sb, fmt.Errorf("sandbox %s is %s (%s): %w", id, sb.State, sb.Reason, errs.ErrFailedPrecondition)
}

// found names what was not there.
func found(err error, what, name string) error {
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		return fmt.Errorf("%s %q: %w", what, name, errs.ErrNotFound)
	}
	return err
}

// maxReason bounds a reason, in bytes.
const maxReason = 1 << 10

// words is a reason as it can be kept: PostgreSQL's texts have no zero byte, and some of it may be what a guest has said.
func words(reason string) string {
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(reason, "\uFFFD"), "\x00", "\uFFFD")
}
