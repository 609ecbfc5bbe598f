package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
)

// ExecOptions say what of a command is given by other calls, and what becomes of it.
type ExecOptions struct {
	Stdin bool // SendInput gives it input
	// KillOnHangup kills the command when the caller's context ends or a writer fails. Otherwise it goes on, and Attach joins it again.
	KillOnHangup bool
}

// Exec runs a command in a sandbox until it ends, as client.Client.Run does; its Stdin is the agent's to set. When
// the sandbox or the agent ends before it, the error is an ErrUnavailable.
func (a *Agent) Exec(ctx context.Context, id string, cmd client.Command, o ExecOptions) (client.Result, error) {
	return a.follow(ctx, id, cmd, o, func(ctx context.Context, g Guest, cmd client.Command) (client.Result, error) {
		return g.Run(ctx, cmd)
	})
}

// Attach joins a command that runs, as client.Client.Attach does.
func (a *Agent) Attach(ctx context.Context, id string, pid uint32, cmd client.Command, o ExecOptions) (client.Result, error) {
	o.KillOnHangup = false
	return a.follow(ctx, id, cmd, o, func(ctx context.Context, g Guest, cmd client.Command) (client.Result, error) {
		return g.Attach(ctx, pid, cmd)
	})
}

// follow runs a stream of a command.
func (a *Agent) follow(ctx context.Context, id string, cmd client.Command, o ExecOptions,
	run func(context.Context, Guest, client.Command) (client.Result, error)) (client.Result, error) {
	b, u, err := a.use(ctx, id)
	if err != nil {
		return client.Result{}, err
	}
	defer u.done()
	rctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	hangUp := func(why error) { // an ErrUnavailable leaves the command alone
		if !o.KillOnHangup {
			why = fmt.Errorf("the caller has left, and the command goes on: %w (%w)", errs.ErrUnavailable, why)
		}
		cancel(why)
	}
	defer context.AfterFunc(ctx, func() { hangUp(context.Cause(ctx)) })()
	defer context.AfterFunc(u.live, func() { cancel(context.Cause(u.live)) })()
	defer context.AfterFunc(a.life, func() { cancel(context.Cause(a.life)) })()
	if o.Stdin {
		defer b.open(ctx, &cmd)()
	}
	if !o.KillOnHangup {
		cmd.Stdout, cmd.Stderr = &lenient{cmd.Stdout, hangUp}, &lenient{cmd.Stderr, hangUp}
	}
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	result, err := run(rctx, u.guest, cmd)
	if gone := context.Cause(u.live); err != nil && gone != nil {
		return result, gone // a guest that goes breaks the stream at the same moment; why it went is the better word
	}
	return result, err
}

// open has a command take the input that other calls give it, from when its pid is known until the returned function is called.
func (b *box) open(caller context.Context, cmd *client.Command) (closed func()) {
	c := &command{caller: caller, in: newInbox()}
	cmd.Stdin = c.in
	var pid uint32
	started := cmd.Started
	cmd.Started = func(p uint32) {
		b.mu.Lock()
		pid, b.commands[p] = p, append(b.commands[p], c)
		b.mu.Unlock()
		if started != nil {
			started(p)
		}
	}
	return func() {
		c.in.close()
		b.mu.Lock()
		defer b.mu.Unlock()
		rest := slices.DeleteFunc(b.commands[pid], func(other *command) bool { return other == c })
		if b.commands[pid] = rest; len(rest) == 0 {
			delete(b.commands, pid)
		}
	}
}

// lenient is a writer whose failure does not end the command: the caller has left, and that is told to the stream.
type lenient struct {
	w      io.Writer
	hangUp func(error)
}

// Write never fails.
func (l *lenient) Write(p []byte) (int, error) {
	if l.w != nil {
		if _, err := l.w.Write(p); err != nil {
			l.hangUp(err)
		}
	}
	return len(p), nil
}

// use begins an activity on a running sandbox. One that is being started, resumed, frozen or taken over is waited for.
func (a *Agent) use(ctx context.Context, id string) (*box, use, error) {
	return a.useAs(ctx, id, stream)
}

// useAs is use of a kind.
func (a *Agent) useAs(ctx context.Context, id string, k kind) (*box, use, error) {
	b, err := a.box(id)
	if err != nil {
		return nil, use{}, err
	}
	if err := b.heard(ctx); err != nil {
		return nil, use{}, err
	}
	u, err := b.begin(k)
	if err == nil || !errors.Is(err, errs.ErrFailedPrecondition) {
		return b, u, err
	}
	_, err = perform(ctx, a, b, job{"take", startTime}, func(ctx context.Context, _ *operation) (struct{}, error) {
		_, err := a.take(ctx, b)
		return struct{}{}, err
	})
	if err != nil {
		return nil, use{}, err
	}
	u, err = b.begin(k)
	return b, u, err
}

// Processes lists the commands that run in a sandbox.
func (a *Agent) Processes(ctx context.Context, id string) ([]client.Process, error) {
	_, u, err := a.use(ctx, id)
	if err != nil {
		return nil, err
	}
	defer u.done()
	return u.guest.List(ctx)
}
