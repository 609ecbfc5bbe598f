package client

import (
	"context"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// State is what a sandbox is doing.
type State string

// The states. Stopped, Failed and Lost are the end.
const (
	Starting State = "starting"
	Running  State = "running"
	Pausing  State = "pausing"
	Paused   State = "paused"
	Resuming State = "resuming"
	Stopping State = "stopping"
	Stopped  State = "stopped" // it was asked for, or its time had come
	Failed   State = "failed"  // it ended by itself, or never started
	Lost     State = "lost"    // its host lost it
)

// Ended says whether a sandbox in this state will never run again.
func (s State) Ended() bool { return s == Stopped || s == Failed || s == Lost }

// OnExpiry is what becomes of a sandbox that was idle for its time to live.
type OnExpiry string

// What may become of it.
const (
	DestroyOnExpiry OnExpiry = "destroy"
	PauseOnExpiry   OnExpiry = "pause"
)

// Sandbox is what was true of a sandbox when it was asked. Nothing changes it; methods that change the sandbox return it as it is then.
type Sandbox struct {
	ID     string // cl- and 20 of 0-9a-z
	State  State
	Reason string // why it is in that state
	// Template is what it began from, or what the snapshot did that it began from.
	Template   string
	SnapshotID string // empty when it began from no snapshot
	VCPUs      int
	MemoryMiB  int
	DiskBytes  int64
	Internet   bool // whether its guest reaches the public internet
	Metadata   map[string]string
	// TTL is how long it may be idle; 0 is for ever. OnExpiry is what becomes of it then.
	TTL      time.Duration
	OnExpiry OnExpiry
	// Public has everybody reach its ports who knows their URL; AutoResume lets it go on when a request to one of them comes.
	Public, AutoResume bool

	CreatedAt time.Time
	ChangedAt time.Time // of the state

	c *Client
}

func (c *Client) sandbox(s rest.Sandbox) *Sandbox {
	return &Sandbox{ID: s.ID, State: State(s.State), Reason: s.Reason, Template: s.Template, SnapshotID: or(s.SnapshotID, ""), VCPUs: int(s.Vcpus),
		MemoryMiB: int(s.MemoryMib), DiskBytes: s.DiskBytes, Internet: s.Internet, Metadata: s.Metadata,
		TTL: time.Duration(s.TTLSeconds) * time.Second, OnExpiry: OnExpiry(s.OnExpiry), Public: s.Public, AutoResume: s.AutoResume,
		CreatedAt: s.CreatedAt, ChangedAt: s.ChangedAt, c: c}
}

// Sandboxes are the sandboxes of the key's team.
type Sandboxes struct{ c *Client }

// CreateOptions say what a sandbox is made of. One of Template and Snapshot is given; all else may be left out.
type CreateOptions struct {
	Template, Snapshot string
	// The template's sizes, unless they are given. A snapshot's are fixed.
	VCPUs, MemoryMiB int
	DiskBytes        int64
	NoInternet       bool // the guest has no network but its own
	Metadata         map[string]string
	// TTL is how long it may be idle, in whole seconds; 0 is for ever. OnExpiry is what becomes of it then; empty is DestroyOnExpiry.
	TTL      time.Duration
	OnExpiry OnExpiry
	// Public has everybody reach its ports who knows their URL; AutoResume lets it go on when a request to one of them comes.
	Public, AutoResume bool
}

// Create starts a sandbox and returns when its guest answers.
func (s *Sandboxes) Create(ctx context.Context, o CreateOptions) (*Sandbox, error) {
	ttl, err := seconds("TTL", o.TTL)
	if err != nil {
		return nil, err
	}
	if o.VCPUs < 0 || o.VCPUs > math.MaxInt32 || o.MemoryMiB < 0 || o.MemoryMiB > math.MaxInt32 {
		return nil, invalid("VCPUs, MemoryMiB", "a size is out of range", "give what a host can have, or 0 for the template's")
	}
	body := rest.CreateSandbox{Template: given(o.Template), Snapshot: given(o.Snapshot), Vcpus: given(int32(o.VCPUs)), MemoryMib: given(int32(o.MemoryMiB)),
		DiskBytes: given(o.DiskBytes), Metadata: metadata(o.Metadata), TTLSeconds: given(ttl), OnExpiry: given(rest.OnExpiry(o.OnExpiry)),
		Public: given(o.Public), AutoResume: given(o.AutoResume)}
	if o.NoInternet {
		body.Internet = new(false)
	}
	resp, err := s.c.rest.CreateSandbox(ctx, &rest.CreateSandboxParams{IdempotencyKey: once(ctx)}, body)
	made, err := decode[rest.Sandbox](resp, err)
	if err != nil {
		return nil, err
	}
	return s.c.sandbox(made), nil
}

// seconds is a duration as the API has it.
func seconds(field string, d time.Duration) (int32, error) {
	if d < 0 || d > math.MaxInt32*time.Second || d%time.Second != 0 {
		return 0, invalid(field, d.String()+" can't be", "give whole seconds, at most a year")
	}
	return int32(d / time.Second), nil
}

func metadata(m map[string]string) *rest.Metadata {
	if m == nil {
		return nil
	}
	return new(rest.Metadata(m))
}

// Get tells of a sandbox. One that has ended is kept for a while, with the reason.
func (s *Sandboxes) Get(ctx context.Context, id string) (*Sandbox, error) {
	if err := named("id", id); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.GetSandbox(ctx, id)
	return s.c.toSandbox(decode[rest.Sandbox](resp, err))
}

func (c *Client) toSandbox(s rest.Sandbox, err error) (*Sandbox, error) {
	if err != nil {
		return nil, err
	}
	return c.sandbox(s), nil
}

// Of is a sandbox of which nothing is known but its id, to do something with it. It sends nothing.
func (s *Sandboxes) Of(id string) *Sandbox { return &Sandbox{ID: id, c: s.c} }

// ListOptions choose sandboxes. The zero value is all that have not ended.
type ListOptions struct {
	States   []State           // only those in one of these; none is all that have not ended
	Metadata map[string]string // only those that have all of these entries
	PageSize int               // how many are asked for at once, at most 1000; 0 is the server's choice
}

// List goes through the sandboxes, the newest first, and asks for each page as it is needed. Its error is the last pair.
func (s *Sandboxes) List(ctx context.Context, o ListOptions) iter.Seq2[*Sandbox, error] {
	params := rest.ListSandboxesParams{Limit: given(int32(min(max(o.PageSize, 0), math.MaxInt32)))}
	if len(o.States) > 0 {
		states := make([]rest.State, len(o.States))
		for i, state := range o.States {
			states[i] = rest.State(state)
		}
		params.State = &states
	}
	if len(o.Metadata) > 0 {
		var entries []string
		for _, k := range slices.Sorted(maps.Keys(o.Metadata)) {
			entries = append(entries, k+"="+o.Metadata[k])
		}
		params.Metadata = &entries
	}
	return pages(func(cursor *string) ([]rest.Sandbox, *string, error) {
		params.Cursor = cursor
		resp, err := s.c.rest.ListSandboxes(ctx, &params)
		page, err := decode[rest.SandboxPage](resp, err)
		return page.Sandboxes, page.NextCursor, err
	}, s.c.sandbox)
}

// pages goes through the items of a list that is read a page at a time.
func pages[W, T any](read func(cursor *string) ([]W, *string, error), item func(W) T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for cursor := (*string)(nil); ; {
			list, next, err := read(cursor)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, one := range list {
				if !yield(item(one), nil) {
					return
				}
			}
			if next == nil || *next == "" {
				return
			}
			cursor = next
		}
	}
}

// Refresh is the sandbox as it is now.
func (s *Sandbox) Refresh(ctx context.Context) (*Sandbox, error) { return s.c.Sandboxes.Get(ctx, s.ID) }

// Destroy ends the sandbox, in whatever state it is, and removes all it has. One that has ended stays as it is.
func (s *Sandbox) Destroy(ctx context.Context) error {
	if err := named("id", s.ID); err != nil {
		return err
	}
	resp, err := s.c.rest.DestroySandbox(sent(ctx, manner{safe: always}), s.ID)
	_, err = decode[struct{}](resp, err)
	return err
}

// Pause freezes the sandbox to disk, with its memory and processes; it gives back all else that it had on the host.
func (s *Sandbox) Pause(ctx context.Context) (*Sandbox, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.PauseSandbox(ctx, s.ID, &rest.PauseSandboxParams{IdempotencyKey: once(ctx)})
	return s.c.toSandbox(decode[rest.Sandbox](resp, err))
}

// Resume lets a paused sandbox go on where it was.
func (s *Sandbox) Resume(ctx context.Context) (*Sandbox, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.ResumeSandbox(ctx, s.ID, &rest.ResumeSandboxParams{IdempotencyKey: once(ctx)})
	return s.c.toSandbox(decode[rest.Sandbox](resp, err))
}

// UpdateOptions are what is to change of a sandbox; nil is left as it is.
type UpdateOptions struct {
	// Metadata is all of it, from then on; an empty map is none.
	Metadata map[string]string
	// TTL is how long it may be idle, in whole seconds; 0 is for ever. OnExpiry goes with it; empty is DestroyOnExpiry.
	TTL      *time.Duration
	OnExpiry OnExpiry
	// Public and AutoResume are as in CreateOptions.
	Public, AutoResume *bool
}

// Update changes a sandbox's time to live, metadata, or who reaches its ports.
func (s *Sandbox) Update(ctx context.Context, o UpdateOptions) (*Sandbox, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	body := rest.UpdateSandbox{Metadata: metadata(o.Metadata), OnExpiry: given(rest.OnExpiry(o.OnExpiry)), Public: o.Public, AutoResume: o.AutoResume}
	if o.TTL != nil {
		ttl, err := seconds("TTL", *o.TTL)
		if err != nil {
			return nil, err
		}
		body.TTLSeconds = &ttl
	}
	resp, err := s.c.rest.UpdateSandbox(sent(ctx, manner{safe: always}), s.ID, body)
	return s.c.toSandbox(decode[rest.Sandbox](resp, err))
}

// Clone is what became of one clone of a fork: a sandbox, or why there is none.
type Clone struct {
	Sandbox *Sandbox
	Err     error
}

// Fork starts count others from where the sandbox is now, with its memory, disk and processes, each with an identity of its own. The sandbox
// stands still for a moment and runs on. It fails as a whole only when none could be started.
func (s *Sandbox) Fork(ctx context.Context, count int) ([]Clone, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.ForkSandbox(ctx, s.ID, &rest.ForkSandboxParams{IdempotencyKey: once(ctx)}, rest.ForkSandbox{Count: new(int32(count))})
	fork, err := decode[rest.Fork](resp, err)
	if err != nil {
		return nil, err
	}
	clones := make([]Clone, len(fork.Clones))
	for i, clone := range fork.Clones {
		if clone.Sandbox == nil {
			clones[i].Err = &Error{Code: string(rest.Unavailable), Message: or(clone.Error, "it did not start")}
			continue
		}
		clones[i].Sandbox = s.c.sandbox(*clone.Sandbox)
	}
	return clones, nil
}
