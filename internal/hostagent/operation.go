package hostagent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/errs/rpccode"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/vmm"
)

// job is what an operation is.
type job struct {
	name  string
	limit time.Duration
}

// What operations may take. The parts below have limits of their own, which come first and know better what was late.
const (
	startTime = 15 * time.Minute // a boot for a warm build, its freeze, and the start itself
	shortTime = 5 * time.Minute
)

// The steps at which a test can stop the process.
var (
	pointBegun = failpoint.New("agent.begun") // an operation has its turn, and has done nothing
	pointDone  = failpoint.New("agent.done")  // it is done, and nobody was told
)

// maxWaiting bounds how many operations wait for one sandbox.
const maxWaiting = 32

// operation is one under way.
type operation struct {
	job
	sandbox string
	began   time.Time
	waited  time.Duration

	mu     sync.Mutex
	phases []vmm.Step
}

// step notes a phase that has ended.
func (o *operation) step(s vmm.Step) { o.add(s) }

func (o *operation) add(steps ...vmm.Step) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.phases = append(o.phases, steps...)
}

// all are the phases that have ended so far.
func (o *operation) all() []vmm.Step {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]vmm.Step(nil), o.phases...)
}

// perform does an operation as the package's comment says: in the sandbox's line, if b is not nil, and to its end.
func perform[T any](ctx context.Context, a *Agent, b *box, j job, fn func(context.Context, *operation) (T, error)) (T, error) {
	var none T
	if err := a.enter(); err != nil {
		return none, err
	}
	o := &operation{job: j, began: time.Now()}
	if b != nil {
		o.sandbox = b.id
		if err := b.enter(ctx, a.life); err != nil {
			a.leave()
			return none, fmt.Errorf("%s %s: %w", j.name, b.id, err)
		}
	}
	o.waited = time.Since(o.began)
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		defer a.leave()
		octx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), j.limit,
			fmt.Errorf("%s took over %v: %w", j.name, j.limit, errs.ErrUnavailable))
		defer cancel()
		value, err := none, failpoint.Here(octx, pointBegun)
		if err == nil {
			value, err = fn(octx, o)
		}
		if at := failpoint.Here(octx, pointDone); err == nil {
			err = at
		}
		a.report(o, err)
		if b != nil {
			b.leave()
		}
		done <- outcome{value, err}
	}()
	select {
	case out := <-done:
		return out.value, out.err
	case <-ctx.Done():
		return none, fmt.Errorf("the caller has left, and %s goes on: %w", j.name, context.Cause(ctx))
	}
}

// enter counts an operation, unless the agent stops.
func (a *Agent) enter() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return errStopping
	}
	a.ops.Add(1)
	a.running.Add(1)
	return nil
}

func (a *Agent) leave() {
	a.running.Add(-1)
	a.ops.Done()
}

// report writes the operation's line and counts it.
func (a *Agent) report(o *operation, err error) {
	took, phases := time.Since(o.began), o.all()
	attrs := []slog.Attr{slog.String("operation", o.name), slog.String("sandbox", o.sandbox), slog.Duration("took", took),
		slog.Duration("waited", o.waited)}
	var parts []any
	for _, p := range phases {
		parts = append(parts, slog.Duration(p.Name, p.Took))
	}
	attrs = append(attrs, slog.Group("phases", parts...))
	level, outcome := slog.LevelInfo, "ok"
	if err != nil {
		code := rpccode.Of(err)
		if outcome = code.String(); code == connect.CodeInternal || code == connect.CodeDataLoss || code == connect.CodeUnavailable {
			level = slog.LevelError // the others are the caller's to mend
		}
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	attrs = append(attrs, slog.String("outcome", outcome))
	a.log.LogAttrs(context.Background(), level, "operation", attrs...)
	a.metrics.operation(o.name, outcome, took, phases)
}
