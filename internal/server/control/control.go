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

// OpTime is what the longest operation may take.
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
func (o Op) sandbox() string { return id.As(id.Prefix, string(o)) }

// Named is the id, with a prefix, of something else that an operation makes: asked again, it finds what it made.
func (o Op) Named(prefix string) string { return id.As(prefix, string(o)) }

// Spec is what a sandbox is made of.
type Spec struct {
	Template, Snapshot string // one of them
	VCPUs, MemoryMiB   int32  // 0 is the template's
	DiskBytes          int64
	Internet           bool
	Metadata           map[string]string
	TTLSeconds         int32
	OnExpiry           string
	Key                string // the id of the API key that it is made with; empty for none
	Public, AutoResume bool
}

func expiry(on string) pb.Expiry {
	if on == "pause" {
		return pb.Expiry_EXPIRY_PAUSE
	}
	return pb.Expiry_EXPIRY_DESTROY
}

// Create starts a sandbox, where there is room for it, and returns it when its guest answers. Errors are store.Create's, and then nothing was made, and
// the agent's, which the row tells as well.
func (c *Control) Create(ctx context.Context, team string, op Op, spec Spec) (store.Sandbox, error) {
	return perform(ctx, c, startTime, func(ctx context.Context) (store.Sandbox, error) {
		sb, err := c.place(ctx, store.NewSandbox{ID: op.sandbox(), Team: team, Key: spec.Key, Op: string(op), OpTime: startTime,
			Snapshot: spec.Snapshot, Internet: spec.Internet, Metadata: spec.Metadata, TTLSeconds: spec.TTLSeconds, OnExpiry: spec.OnExpiry,
			Sizes: store.Sizes{Template: spec.Template, VCPUs: spec.VCPUs, MemoryMiB: spec.MemoryMiB, DiskBytes: spec.DiskBytes}, Reason: "asked for",
			Public: spec.Public, AutoResume: spec.AutoResume})
		if errors.Is(err, errs.ErrAlreadyExists) || errors.Is(err, errs.ErrNotFound) { // begun before, by a server that did not end it?
			was, lost := c.store.Get(ctx, team, op.sandbox())
			switch {
			case lost == nil && was.State != store.Starting:
				return was, alive(was)
			case lost == nil:
				sb, err = was, nil
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

// start has the agent make a sandbox, of the sizes that were counted: the template may have changed since.
func (c *Control) start(ctx context.Context, sb store.Sandbox, op string, spec Spec) (store.Sandbox, error) {
	req := &pb.CreateRequest{Id: sb.ID, IdempotencyKey: op, Template: spec.Template, Vcpus: uint32(sb.Vcpus), MemoryMib: uint32(sb.MemoryMib),
		DiskBytes: uint64(sb.DiskBytes), Internet: spec.Internet, TtlSeconds: uint32(spec.TTLSeconds), OnExpiry: expiry(spec.OnExpiry)}
	if sb.SnapshotID != nil {
		req.Template, req.Snapshot = "", *sb.SnapshotID
		req.Vcpus, req.MemoryMib, req.DiskBytes = 0, 0, 0
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
	return c.started(ctx, sb, op, resp.Msg.GetSandbox())
}

// started writes down that a sandbox runs. One that was destroyed while it was being made goes.
func (c *Control) started(ctx context.Context, sb store.Sandbox, op string, is *pb.Sandbox) (store.Sandbox, error) {
	running, err := c.store.Started(ctx, sb.ID, op, store.Sizes{Template: cmp.Or(is.GetTemplate(), sb.Template), VCPUs: int32(is.GetVcpus()),
		MemoryMiB: int32(is.GetMemoryMib()), DiskBytes: int64(is.GetDiskBytes())}, is.GetReason())
	if !errors.Is(err, store.ErrOvertaken) {
		return running, err
	}
	now, lost := c.store.Get(ctx, sb.TeamID, sb.ID)
	if lost != nil || now.WithHost { // its host was lost: Watch looks after its return
		return now, errors.Join(err, lost)
	}
	if !store.Ended(now.State) && now.State != store.Stopping {
		return now, nil // the same operation, asked again, was faster
	}
	return sb, errors.Join(err, c.remove(ctx, sb, "it was destroyed while it was being made"))
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
		if done, err := c.store.Done(ctx, string(op)); done || err != nil {
			return c.asItIs(ctx, team, sandbox, err)
		}
		sb, err := c.store.Get(ctx, team, sandbox)
		if err != nil {
			return sb, err
		}
		agent, err := c.hosts.Agent(ctx, sb.HostID)
		if err != nil {
			return sb, err
		}
		sb, err = c.store.Begin(ctx, team, sandbox, change, "asked for", string(op), startTime)
		if err != nil {
			return sb, err
		}
		is, err := do(ctx, agent)
		if err != nil {
			return c.settle(ctx, sb, string(op), err)
		}
		now, err := c.store.Changed(ctx, sandbox, string(op), states[is.GetState()], is.GetReason())
		if !errors.Is(err, store.ErrOvertaken) {
			return now, err
		}
		if done, lost := c.store.Done(ctx, string(op)); done || lost != nil { // the same operation, asked again, was faster
			return c.asItIs(ctx, team, sandbox, lost)
		}
		return now, err
	})
}

// asItIs is the answer of a change that was done before, and whose answer was lost: the sandbox as it is now, unless there was an error
// or it has ended.
func (c *Control) asItIs(ctx context.Context, team, sandbox string, err error) (store.Sandbox, error) {
	if err != nil {
		return store.Sandbox{}, err
	}
	sb, err := c.store.Get(ctx, team, sandbox)
	if err != nil {
		return sb, err
	}
	return sb, alive(sb)
}

// settle writes down how a sandbox is after the agent refused a change of it, if the agent can say, and returns why. What an agent refuses because it
// is so already was done before by an agent, or a server, that could not tell.
func (c *Control) settle(ctx context.Context, sb store.Sandbox, op string, why error) (now store.Sandbox, err error) {
	done := false
	err = cleanup.Do(ctx, func(ctx context.Context) error {
		is, err := c.look(ctx, sb)
		if err != nil || is.undecided() {
			return err // Watch asks again when the operation's time is over
		}
		if done = errors.Is(why, errs.ErrFailedPrecondition) && is.state == store.Goal(sb.State); done {
			now, err = c.store.Changed(ctx, sb.ID, op, is.state, is.reason)
			return err
		}
		_, err = c.store.Finish(ctx, sb.ID, op, is.state, is.reason)
		if errors.Is(err, store.ErrOvertaken) {
			return nil
		}
		return err
	})
	if done {
		return now, err
	}
	return sb, errors.Join(why, err)
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
