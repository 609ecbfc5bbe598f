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
	// Key is the id of the API key that it is made with; empty for none.
	Key string
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
	// Public opens its ports to everybody; AutoResume has a request to one of them wake it.
	Public, AutoResume bool
	Reason             string
}

// ErrOvertaken is how an operation learns at its end that the sandbox is no longer its own: it was destroyed meanwhile, has ended, or this
// operation took so long that it was given up. It is an ErrFailedPrecondition.
var ErrOvertaken = fmt.Errorf("something else happened to the sandbox meanwhile: %w", errs.ErrFailedPrecondition)

// Create makes a sandbox that is starting, and holds room for it on its host. A snapshot that it starts from, whose host is its host, can't be
// deleted from then on. ErrNotFound when there is none; ErrAlreadyExists when there is a sandbox of that id; a *errs.QuotaError when it is too much for
// its team or key; ErrResourceExhausted with what is short when no host has room for it.
func (s *Store) Create(ctx context.Context, n NewSandbox) (Sandbox, error) {
	var sb Sandbox
	err := s.inTx(ctx, func(q *db.Queries) error {
		if err := isNew(ctx, q, n.Team, n.ID); err != nil {
			return err
		}
		var from *string
		on := "" // where its snapshot is
		if n.Snapshot != "" {
			snap, err := q.ShareSnapshot(ctx, db.ShareSnapshotParams{TeamID: n.Team, Name: n.Snapshot})
			if err := found(err, "snapshot", n.Snapshot); err != nil {
				return err
			}
			if snap.State != SnapshotWhole {
				return fmt.Errorf("snapshot %q is %s: %w", n.Snapshot, snap.State, errs.ErrFailedPrecondition)
			}
			from, n.Sizes = &snap.ID, Sizes{snap.Template, snap.Vcpus, snap.MemoryMib, snap.DiskBytes}
			on = snap.HostID
		}
		counted, err := takeNew(ctx, q, &n, on)
		if err != nil {
			return err
		}
		if n.Host == "" {
			if err := place(ctx, q, &n, on); err != nil {
				return err
			}
		}
		if !counted {
			return ErrHostsJoin // a host has the template since a moment ago: what it takes is counted first
		}
		n.Host = cmp.Or(on, n.Host)
		sb, err = insert(ctx, q, n, Starting, from)
		return err
	})
	s.tell(err)
	return sb, err
}

// takeNew counts what a new sandbox takes, with its template's sizes where none are asked for: before its host's row is locked, as whoever else holds
// both locks does. It has not when no host knows the template.
func takeNew(ctx context.Context, q *db.Queries, n *NewSandbox, on string) (counted bool, err error) {
	if on == "" && n.Host == "" {
		t, err := q.TemplateOfHosts(ctx, n.Sizes.Template)
		if err = kind(err); errors.Is(err, errs.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		n.Sizes = Sizes{n.Sizes.Template, cmp.Or(n.Sizes.VCPUs, t.Vcpus), cmp.Or(n.Sizes.MemoryMiB, t.MemoryMib), cmp.Or(n.Sizes.DiskBytes, t.DiskBytes)}
	}
	return true, take(ctx, q, n.Team, given(n.Key), n.Sizes.sandboxes(1))
}

func insert(ctx context.Context, q *db.Queries, n NewSandbox, state State, snapshot *string) (Sandbox, error) {
	p := db.InsertSandboxParams{ID: n.ID, TeamID: n.Team, HostID: n.Host, State: state, Reason: words(n.Reason), Template: n.Sizes.Template,
		SnapshotID: snapshot, Vcpus: n.Sizes.VCPUs, MemoryMib: n.Sizes.MemoryMiB, DiskBytes: n.Sizes.DiskBytes, Internet: n.Internet,
		Metadata: n.Metadata, TtlSeconds: n.TTLSeconds, OnExpiry: n.OnExpiry, KeyID: given(n.Key),
		Public: n.Public, AutoResume: n.AutoResume}
	if p.Metadata == nil {
		p.Metadata = map[string]string{}
	}
	if n.Op != "" {
		p.Op, p.OpTime = &n.Op, &n.OpTime
	}
	return q.InsertSandbox(ctx, p)
}

// given is a pointer to a text that is not empty.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Clones is what BeginFork makes rows of: like the sandbox that they are of, but for their ids and the key that they are made with.
type Clones struct {
	Of     Sandbox
	IDs    []string
	Key    string
	Op     string
	OpTime time.Duration
	Reason string
}

// BeginFork makes the clones of a sandbox, which are starting, all or none, and none of them public; those of a fork that is asked for again are as they are now. It fails
// with a *errs.QuotaError when they are too many for their team or key.
func (s *Store) BeginFork(ctx context.Context, c Clones) (list []Sandbox, err error) {
	err = s.inTx(ctx, func(q *db.Queries) error {
		if list, err = q.ListOfOp(ctx, db.ListOfOpParams{TeamID: c.Of.TeamID, Ids: c.IDs}); err != nil || len(list) > 0 {
			return err
		}
		z := Sizes{c.Of.Template, c.Of.Vcpus, c.Of.MemoryMib, c.Of.DiskBytes}
		if err := take(ctx, q, c.Of.TeamID, given(c.Key), z.sandboxes(len(c.IDs))); err != nil {
			return err
		}
		for _, id := range c.IDs {
			n := NewSandbox{ID: id, Team: c.Of.TeamID, Host: c.Of.HostID, Key: c.Key, Op: c.Op, OpTime: c.OpTime, Sizes: z, Internet: c.Of.Internet,
				Metadata: c.Of.Metadata, TTLSeconds: c.Of.TtlSeconds, OnExpiry: c.Of.OnExpiry, AutoResume: c.Of.AutoResume, Reason: c.Reason}
			made, err := insert(ctx, q, n, Starting, c.Of.SnapshotID)
			if err != nil {
				return err
			}
			list = append(list, made)
		}
		return nil
	})
	s.tell(err)
	return list, err
}

// ClonesOf are the clones of a fork that was begun before, by their ids; none when it was not.
func (s *Store) ClonesOf(ctx context.Context, team string, ids []string) ([]Sandbox, error) {
	list, err := s.q.ListOfOp(ctx, db.ListOfOpParams{TeamID: team, Ids: ids})
	return list, kind(err)
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
// ErrFailedPrecondition with its state when it is not where the change may begin, unless it is there by the same operation; a *errs.QuotaError
// when a resume is too much for its team, or for the key that it was made with.
func (s *Store) Begin(ctx context.Context, team, id string, c Change, reason, op string, opTime time.Duration) (Sandbox, error) {
	var sb Sandbox
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		if c.Via == Resuming {
			if c.From, err = takeAwake(ctx, q, team, id, c.From); err != nil {
				return err
			}
		}
		sb, err = q.BeginChange(ctx, db.BeginChangeParams{State: c.Via, Reason: words(reason), Op: op, OpTime: opTime, ID: id, TeamID: team,
			FromStates: c.From})
		return err
	})
	if err := kind(err); !errors.Is(err, errs.ErrNotFound) {
		s.tell(err)
		return sb, err
	}
	if sb, err = s.Get(ctx, team, id); err != nil {
		return sb, err
	}
	return sb, fmt.Errorf("sandbox %s is %s (%s): %w", id, sb.State, sb.Reason, errs.ErrFailedPrecondition)
}

// takeAwake is take of what a paused sandbox takes more when it runs, and returns from where it may become so: from nowhere if it is not paused now,
// since nothing was taken for it, and that it is paused a moment later makes no difference.
func takeAwake(ctx context.Context, q *db.Queries, team, id string, from []State) ([]State, error) {
	sb, err := q.GetSandbox(ctx, db.GetSandboxParams{ID: id, TeamID: team})
	if err != nil || sb.State != Paused {
		return []State{}, err
	}
	return from, take(ctx, q, team, sb.KeyID, Amount{VCPUs: int64(sb.Vcpus), MemoryMiB: int64(sb.MemoryMib)})
}

// Finish takes a sandbox out of the state on the way. ErrOvertaken when the operation is no longer the sandbox's: nothing has changed then.
func (s *Store) Finish(ctx context.Context, id, op string, to State, reason string) (Sandbox, error) {
	sb, err := s.q.FinishChange(ctx, db.FinishChangeParams{State: to, Reason: words(reason), ID: id, Op: op})
	return sb, s.finished(err)
}

// Changed is Finish of an operation that came to its end well: asked again, it is done, see Done.
func (s *Store) Changed(ctx context.Context, id, op string, to State, reason string) (Sandbox, error) {
	var sb Sandbox
	err := s.inTx(ctx, func(q *db.Queries) (err error) {
		sb, err = q.FinishChange(ctx, db.FinishChangeParams{State: to, Reason: words(reason), ID: id, Op: op})
		if err != nil {
			return err
		}
		return q.ClaimDone(ctx, op)
	})
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
	err := s.inTx(ctx, func(q *db.Queries) error {
		_, err := q.Observe(ctx, db.ObserveParams{State: is, Reason: words(reason), ID: read.ID, Version: read.Version})
		if err != nil || read.Op == nil || is != goals[read.State] {
			return err
		}
		return q.ClaimDone(ctx, *read.Op) // cut off, but it has come to its end
	})
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
