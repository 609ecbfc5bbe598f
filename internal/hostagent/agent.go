// Package hostagent runs the sandboxes of one host: the agent, without its transport.
//
//	a, err := hostagent.Start(ctx, cfg)                   // takes over what runs, says of the rest what became of it
//	info, phases, err := a.Create(ctx, spec)
//	result, err := a.Exec(ctx, info.ID, command, options)
//	phases, err = a.Pause(ctx, info.ID, "idle")
//	err = a.Close(ctx)                                    // and all of them run on
//
// The record of a sandbox on disk is what is true of it; the agent has in memory only what it takes to work on it. It may be killed at
// any line: the next one takes over, see sandbox.Manager.Recover.
//
// Operations on one sandbox are done one after the other, those on several side by side. One that has begun goes on to its end on a
// context of its own although its caller leaves, with a deadline that fits its size; one that still waits in line when its caller
// leaves does not begin. Of every operation there is one line in the log, with its phases, and a count in the metrics.
package hostagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent/events"
	"wrenn.dev/wrenn/internal/hostagent/idempotency"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
)

// Guest runs commands in a guest and has its files; *client.Client says what the methods do.
type Guest interface {
	Run(ctx context.Context, cmd client.Command) (client.Result, error)
	Attach(ctx context.Context, pid uint32, cmd client.Command) (client.Result, error)
	List(ctx context.Context) ([]client.Process, error)
	Input(ctx context.Context, pid uint32, data []byte, end bool) error
	Signal(ctx context.Context, pid uint32, sig syscall.Signal) error
	Resize(ctx context.Context, pid uint32, size client.Size) error
	Files(user string) *client.Files
	Port(ctx context.Context, port int) (net.Conn, error)
	Close()
}

// Config is what an Agent works with.
type Config struct {
	Manager *sandbox.Manager
	// StateDir is the folder of all state; the agent's own part is "agent" in it.
	StateDir string
	// Limits are what all sandboxes may take together; a zero is no limit.
	Limits quota.Amount
	// Retention is how long the record of a sandbox that ended by itself or was lost stays; zero is DefaultRetention.
	Retention time.Duration
	// WarmSlots is how many network slots are kept ready for sandboxes to come.
	WarmSlots int
	// Log gets a line of each operation and of each change of state; nil is slog's default.
	Log *slog.Logger
	// Guest speaks to a guest; nil is client.New.
	Guest func(dial sandbox.DialFunc, token string) Guest
}

// DefaultRetention is how long a record tells why its sandbox is gone.
const DefaultRetention = sandbox.Retention

const (
	// maxEvents is how many events are kept for readers.
	maxEvents = 16384
	// adoptWidth is how many sandboxes are taken over at once.
	adoptWidth = 16
)

// Event is a change of state of a sandbox.
type Event struct {
	Sandbox string
	sandbox.Change
}

// Agent runs the sandboxes of a host. Its methods may be called from several goroutines.
type Agent struct {
	cfg     Config
	m       *sandbox.Manager
	log     *slog.Logger
	lock    *os.File
	started time.Time

	made    map[string]string // the sandboxes of agents before this one, by their idempotency keys
	ledger  *quota.Ledger
	keys    *idempotency.Keys
	events  *events.Log[Event]
	metrics *metrics

	life     context.Context // ends when the agent stops
	stop     context.CancelCauseFunc
	ops      sync.WaitGroup
	running  atomic.Int32 // operations under way
	adopting atomic.Int32

	mu       sync.Mutex
	stopping bool
	boxes    map[string]*box

	maxBuried int // a test has fewer
}

var errStopping = fmt.Errorf("the agent is stopping: %w", errs.ErrUnavailable)

// Start takes over a host's sandboxes and returns; the taking over itself goes on, and what is asked of a sandbox waits for its. There
// is one agent of a state folder: a second one is an ErrUnavailable.
func Start(ctx context.Context, cfg Config) (_ *Agent, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Guest == nil {
		cfg.Guest = func(dial sandbox.DialFunc, token string) Guest { return client.New(client.DialFunc(dial), token) }
	}
	if cfg.Retention == 0 {
		cfg.Retention = DefaultRetention
	}
	dir := filepath.Join(cfg.StateDir, "agent")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, m: cfg.Manager, log: cfg.Log, started: time.Now(), made: map[string]string{}, ledger: quota.New(cfg.Limits),
		events: events.New[Event](maxEvents), boxes: map[string]*box{}, maxBuried: maxBuried}
	if a.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if a.keys, err = idempotency.Open(filepath.Join(dir, "keys")); err != nil {
		return nil, errors.Join(err, a.lock.Close())
	}
	a.metrics = newMetrics(a)
	a.life, a.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	a.m.Watch(a.changed)
	a.m.WatchWrites(a.metrics.recordWritten)
	report := func(err error) { a.log.Error("network", "error", err) }
	if err := a.m.KeepReady(ctx, cfg.WarmSlots, report); err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	if err := a.takeOver(ctx); err != nil {
		return nil, errors.Join(err, a.Close(ctx))
	}
	return a, nil
}

// lockFile takes a lock that the kernel gives back when the process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another agent works on %s: %w: %w", filepath.Dir(filepath.Dir(path)), err, errs.ErrUnavailable)
	}
	return f, nil
}

// changed tells of a change of state. Sandboxes call it in the midst of their operations: it never waits.
func (a *Agent) changed(id string, c sandbox.Change) {
	a.events.Add(Event{Sandbox: id, Change: c})
	a.metrics.changes.WithLabelValues(string(c.State)).Inc()
	level := slog.LevelDebug // an operation's line tells of it as well
	if c.State == sandbox.Failed || c.State == sandbox.Lost {
		level = slog.LevelWarn
	}
	a.log.Log(context.Background(), level, "state", "sandbox", id, "to", c.State, "reason", c.Reason)
}

// Close stops the agent and leaves all sandboxes as they are: those that run do so without it. It waits for operations under way until ctx
// ends; what is cut off then is brought to an end by the next agent.
func (a *Agent) Close(ctx context.Context) error {
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	a.stop(errStopping)
	done := make(chan struct{})
	go func() { a.ops.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("%d operations are cut off: %w", a.running.Load(), context.Cause(ctx))
	}
	a.mu.Lock()
	boxes := a.boxes
	a.boxes = map[string]*box{}
	a.mu.Unlock()
	for _, b := range boxes {
		if sb := b.drop(errStopping); sb != nil && err == nil {
			sb.Leave()
		}
	}
	return errors.Join(err, cleanup.Do(ctx, a.m.StopReady), a.lock.Close())
}

// DestroyAll destroys every sandbox that runs in the agent's hands, for an operator who wants none to outlive it. Paused ones stay.
func (a *Agent) DestroyAll(ctx context.Context, reason string) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for _, b := range a.all() {
		if b.held() == nil {
			continue
		}
		wg.Go(func() {
			if _, err := a.Destroy(ctx, b.id, reason); err != nil && !errors.Is(err, errs.ErrNotFound) {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

// all are the boxes as they are now.
func (a *Agent) all() []*box {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*box, 0, len(a.boxes))
	for _, b := range a.boxes {
		list = append(list, b)
	}
	return list
}

// Keys are the idempotency keys of this host.
func (a *Agent) Keys() *idempotency.Keys { return a.keys }

// Next is the next event after one, see events.Log.
func (a *Agent) Next(ctx context.Context, after uint64) (events.Event[Event], error) {
	return a.events.Next(ctx, after)
}

// LastEvent is the id of the newest event.
func (a *Agent) LastEvent() uint64 { return a.events.Last() }

// Stopping ends when the agent stops, with the reason as its cause.
func (a *Agent) Stopping() context.Context { return a.life }
