// Package control does what callers ask of sandboxes: it writes down what is to happen, has the host's agent do it, and writes down how
// it ended. It knows no HTTP.
//
//	c := control.New(store, hosts, log)
//	go c.Watch(ctx)                                   // what happens on the hosts by itself
//	sb, err := c.Create(ctx, team, control.Spec{…})
//	sb, err = c.Pause(ctx, team, sb.ID)
//	c.Wait()                                          // until no operation is under way
//
// An operation goes on to its end on a context of its own although its caller leaves. When its end can't be known, because the agent does
// not answer, its sandbox stays in the state on the way until the operation's time is over; then Watch asks the agent how it is. A sandbox
// that was destroyed while it was being made is destroyed as soon as it turns out to be there.
package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Control works on sandboxes, on whichever hosts they are. Its methods may be called from several goroutines.
type Control struct {
	store *store.Store
	hosts Hosts
	log   *slog.Logger
	ops   sync.WaitGroup
}

// New returns one. It starts nothing.
func New(s *store.Store, h Hosts, log *slog.Logger) *Control {
	return &Control{store: s, hosts: h, log: log}
}

// Wait returns when no operation is under way.
func (c *Control) Wait() { c.ops.Wait() }

// What operations may take. The agent's own limits are below them and come first.
const (
	startTime = 16 * time.Minute
	shortTime = 6 * time.Minute
)

// OpTime is what the longest operation may take: as long, its idempotency key is its own.
const OpTime = 4 * time.Hour

// perform runs an operation to its end and returns its outcome, or leaves it to itself when its caller leaves.
func perform[T any](ctx context.Context, c *Control, limit time.Duration, fn func(context.Context) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	c.ops.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		value, err := fn(ctx)
		done <- outcome{value, err}
	})
	select {
	case out := <-done:
		return out.value, out.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("the caller has left, and the operation goes on: %w", context.Cause(ctx))
	}
}

// Op names one attempt at an operation: what is asked again with an idempotency key has the name that it had.
type Op string

// NewOp returns a fresh name.
func NewOp() Op { return Op(id.NewOf(id.Operation)) }

// sandbox is the id of the sandbox that an operation makes: asked again, it finds what it made.
func (o Op) sandbox() string { return id.Prefix + string(o)[len(id.Operation):] }

// Named is the id, with a prefix, of something else that an operation makes: asked again, it finds what it made.
func (o Op) Named(prefix string) string { return prefix + string(o)[len(id.Operation):] }

// Spec is what a sandbox is made of.
type Spec struct {
	Template, Snapshot string // one of them
	VCPUs, MemoryMiB   int32  // 0 is the template's
	DiskBytes          int64
	Internet           bool
	Metadata           map[string]string
	TTLSeconds         int32
	OnExpiry           string
}

func expiry(on string) pb.Expiry {
	if on == "pause" {
		return pb.Expiry_EXPIRY_PAUSE
	}
	return pb.Expiry_EXPIRY_DESTROY
}

// Create starts a sandbox, where there is room for it, and returns it when its guest answers. Errors are store.Create's, and the agent's, which
// the row tells as well.
func (c *Control) Create(ctx context.Context, team string, op Op, spec Spec) (store.Sandbox, error) {
	return perform(ctx, c, startTime, func(ctx context.Context) (store.Sandbox, error) {
		sb, err := c.place(ctx, store.NewSandbox{ID: op.sandbox(), Team: team, Op: string(op), OpTime: startTime,
			Snapshot: spec.Snapshot, Internet: spec.Internet, Metadata: spec.Metadata, TTLSeconds: spec.TTLSeconds, OnExpiry: spec.OnExpiry,
			Sizes: store.Sizes{Template: spec.Template, VCPUs: spec.VCPUs, MemoryMiB: spec.MemoryMiB, DiskBytes: spec.DiskBytes}, Reason: "asked for"})
		if errors.Is(err, errs.ErrAlreadyExists) { // begun before, by a server that did not end it
			sb, err = c.store.Get(ctx, team, op.sandbox())
			if err == nil && sb.State != store.Starting {
				return sb, alive(sb)
			}
		}
		if err != nil {
			return sb, err
		}
		return c.start(ctx, sb, string(op), spec)
	})
}

const (
	// joinTime is how long a sandbox waits for a host that is about to take some: one is, right after the start of all.
	joinTime = 10 * time.Second
	// joinPause is how soon it is tried again.
	joinPause = 100 * time.Millisecond
)

// place writes a sandbox down on a host with room for it.
func (c *Control) place(ctx context.Context, n store.NewSandbox) (store.Sandbox, error) {
	for deadline := time.Now().Add(joinTime); ; {
		sb, err := c.store.Create(ctx, n)
		if !errors.Is(err, store.ErrHostsJoin) || time.Now().After(deadline) {
			return sb, err
		}
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return sb, context.Cause(ctx)
		}
	}
}

// alive is an error when a sandbox has ended.
func alive(sb store.Sandbox) error {
	if store.Ended(sb.State) {
		return fmt.Errorf("sandbox %s is %s: %s: %w", sb.ID, sb.State, sb.Reason, errs.ErrFailedPrecondition)
	}
	return nil
}

// start has the agent make a sandbox.
func (c *Control) start(ctx context.Context, sb store.Sandbox, op string, spec Spec) (store.Sandbox, error) {
	req := &pb.CreateRequest{Id: sb.ID, IdempotencyKey: op, Template: spec.Template, Vcpus: uint32(spec.VCPUs), MemoryMib: uint32(spec.MemoryMiB),
		DiskBytes: uint64(spec.DiskBytes), Internet: spec.Internet, TtlSeconds: uint32(spec.TTLSeconds), OnExpiry: expiry(spec.OnExpiry)}
	if sb.SnapshotID != nil {
		req.Template, req.Snapshot = "", *sb.SnapshotID
	}
	agent, err := c.hosts.Agent(ctx, sb.HostID)
	if err != nil { // nobody was asked, and so nothing is there
		_, failed := c.store.Finish(ctx, sb.ID, op, store.Failed, err.Error())
		return sb, errors.Join(err, failed)
	}
	resp, err := agent.Sandboxes.Create(ctx, connect.NewRequest(req))
	if err != nil {
		return sb, errors.Join(err, c.notStarted(ctx, sb, op, err))
	}
	is := resp.Msg.GetSandbox()
	running, err := c.store.Started(ctx, sb.ID, op, store.Sizes{Template: cmp.Or(is.GetTemplate(), sb.Template), VCPUs: int32(is.GetVcpus()),
		MemoryMiB: int32(is.GetMemoryMib()), DiskBytes: int64(is.GetDiskBytes())}, is.GetReason())
	if errors.Is(err, store.ErrOvertaken) { // it was destroyed while it was being made, or its host lost, whose return Watch looks after
		if now, err2 := c.store.Get(ctx, sb.TeamID, sb.ID); err2 != nil || now.WithHost {
			return now, errors.Join(err, err2)
		}
		return sb, errors.Join(err, c.remove(ctx, sb, "it was destroyed while it was being made"))
	}
	return running, err
}

// notStarted writes down that a start failed, once nothing can be left of it.
func (c *Control) notStarted(ctx context.Context, sb store.Sandbox, op string, why error) error {
	if err := c.remove(ctx, sb, "its start failed"); err != nil {
		return err // Watch asks again when the operation's time is over
	}
	_, err := c.store.Finish(ctx, sb.ID, op, store.Failed, why.Error())
	if errors.Is(err, store.ErrOvertaken) {
		return nil // destroyed meanwhile: what became of it is on record
	}
	return err
}

// remove has the agent of a sandbox's host destroy what it has under its id, if anything.
func (c *Control) remove(ctx context.Context, sb store.Sandbox, reason string) error {
	return cleanup.Do(ctx, func(ctx context.Context) error {
		agent, err := c.hosts.Agent(ctx, sb.HostID)
		if err != nil {
			return err
		}
		_, err = agent.Sandboxes.Destroy(ctx, connect.NewRequest(&pb.DestroyRequest{Id: sb.ID, Reason: reason}))
		if errors.Is(err, errs.ErrNotFound) {
			return nil
		}
		return err
	})
}

// Pause freezes a running sandbox.
func (c *Control) Pause(ctx context.Context, team string, op Op, sandbox string) (store.Sandbox, error) {
	return c.change(ctx, team, op, sandbox, store.Pause, func(ctx context.Context, agent *client.Client) (*pb.Sandbox, error) {
		resp, err := agent.Sandboxes.Pause(ctx, connect.NewRequest(&pb.PauseRequest{Id: sandbox, IdempotencyKey: string(op)}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.GetSandbox(), nil
	})
}

// Resume lets a paused sandbox go on.
func (c *Control) Resume(ctx context.Context, team string, op Op, sandbox string) (store.Sandbox, error) {
	return c.change(ctx, team, op, sandbox, store.Resume, func(ctx context.Context, agent *client.Client) (*pb.Sandbox, error) {
		resp, err := agent.Sandboxes.Resume(ctx, connect.NewRequest(&pb.ResumeRequest{Id: sandbox, IdempotencyKey: string(op)}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.GetSandbox(), nil
	})
}

// change does what takes a sandbox from one state to another.
func (c *Control) change(ctx context.Context, team string, op Op, sandbox string, change store.Change,
	do func(context.Context, *client.Client) (*pb.Sandbox, error)) (store.Sandbox, error) {
	return perform(ctx, c, startTime, func(ctx context.Context) (store.Sandbox, error) {
		sb, agent, err := c.usable(ctx, team, sandbox, change.From...)
		if err != nil {
			return sb, err
		}
		sb, err = c.store.Begin(ctx, team, sandbox, change, "asked for", string(op), startTime)
		if err != nil {
			return sb, err
		}
		is, err := do(ctx, agent)
		if err != nil {
			return sb, errors.Join(err, c.settle(ctx, sb, string(op)))
		}
		return c.store.Finish(ctx, sandbox, string(op), states[is.GetState()], is.GetReason())
	})
}

// settle writes down how a sandbox is after an operation on it failed, if the agent can say.
func (c *Control) settle(ctx context.Context, sb store.Sandbox, op string) error {
	return cleanup.Do(ctx, func(ctx context.Context) error {
		is, err := c.look(ctx, sb)
		if err != nil || is.undecided() {
			return err // Watch asks again when the operation's time is over
		}
		_, err = c.store.Finish(ctx, sb.ID, op, is.state, is.reason)
		if errors.Is(err, store.ErrOvertaken) {
			return nil
		}
		return err
	})
}

// Destroy ends a sandbox in any state. One that has ended stays as it is. On a host that is lost it ends as far as anybody can say: it is
// destroyed there when the host comes back.
func (c *Control) Destroy(ctx context.Context, team, sandbox string) error {
	_, err := perform(ctx, c, shortTime, func(ctx context.Context) (struct{}, error) {
		var none struct{}
		for {
			op := NewOp()
			sb, err := c.store.Begin(ctx, team, sandbox, store.Stop, "asked for", string(op), shortTime)
			switch {
			case err == nil:
				return none, c.stop(ctx, sb, op)
			case !errors.Is(err, errs.ErrFailedPrecondition) || !store.Ended(sb.State):
				return none, err
			case !sb.WithHost:
				return none, nil
			}
			_, err = c.store.GiveUp(ctx, team, sandbox, "asked for"+whenBack)
			if !errors.Is(err, errs.ErrNotFound) {
				return none, err
			}
			// Its host came back just now.
		}
	})
	return err
}

// whenBack is added to the reason of a sandbox's end that its host has not heard of.
const whenBack = "; its host is lost, and destroys it when it comes back"

// stop has a sandbox destroyed that is stopping.
func (c *Control) stop(ctx context.Context, sb store.Sandbox, op Op) error {
	reason := "asked for"
	agent, err := c.hosts.Agent(ctx, sb.HostID)
	if err == nil {
		_, err = agent.Sandboxes.Destroy(ctx, connect.NewRequest(&pb.DestroyRequest{Id: sb.ID, Reason: reason}))
	}
	if errors.Is(err, errs.ErrUnavailable) {
		if h, err2 := c.store.GetHost(ctx, sb.HostID); err2 == nil && h.State == store.HostLost {
			reason, err = reason+whenBack, nil
		}
	}
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	_, err = c.store.Finish(ctx, sb.ID, string(op), store.Stopped, reason)
	if errors.Is(err, store.ErrOvertaken) { // the host told of its end first, or it was destroyed twice
		err = nil
	}
	return err
}

// SetTTL changes how long a sandbox may be idle, and begins that time anew.
func (c *Control) SetTTL(ctx context.Context, team, sandbox string, seconds int32, onExpiry string) (store.Sandbox, error) {
	return perform(ctx, c, shortTime, func(ctx context.Context) (store.Sandbox, error) {
		_, agent, err := c.usable(ctx, team, sandbox, store.Running, store.Paused)
		if err != nil {
			return store.Sandbox{}, err
		}
		_, err = agent.Sandboxes.SetTTL(ctx, connect.NewRequest(&pb.SetTTLRequest{Id: sandbox, TtlSeconds: uint32(seconds), OnExpiry: expiry(onExpiry)}))
		if err != nil {
			return store.Sandbox{}, err
		}
		return c.store.SetTTL(ctx, team, sandbox, seconds, onExpiry)
	})
}

// usable returns a team's sandbox if it is in one of the states, and who speaks to its host's agent.
func (c *Control) usable(ctx context.Context, team, sandbox string, in ...store.State) (store.Sandbox, *client.Client, error) {
	sb, err := c.store.Get(ctx, team, sandbox)
	if err != nil {
		return sb, nil, err
	}
	if !slices.Contains(in, sb.State) {
		return sb, nil, fmt.Errorf("sandbox %s is %s (%s): %w", sandbox, sb.State, sb.Reason, errs.ErrFailedPrecondition)
	}
	agent, err := c.hosts.Agent(ctx, sb.HostID)
	return sb, agent, err
}

// Ready says whether the database answers and a host is up.
func (c *Control) Ready(ctx context.Context) error {
	if err := c.store.Ping(ctx); err != nil {
		return err
	}
	return c.hosts.Ready(ctx)
}
