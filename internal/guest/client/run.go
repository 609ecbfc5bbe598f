package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// Command is what to run in the guest, and where its streams go.
type Command struct {
	// Cmd is a path in the guest, or a name that is looked up in the PATH that the command gets.
	Cmd  string
	Args []string
	// Env is added to the environment that every command of the guest gets.
	Env map[string]string
	// Cwd is the folder to start in; empty is the user's home.
	Cwd string
	// User is a user of the guest; empty is its default one.
	User string
	// PTY gives the command a terminal of this size. What it shows goes to Stdout.
	PTY *Size
	// Timeout ends the command; 0 is never.
	Timeout time.Duration

	// Stdin is the command's input; nil is an empty one. When it ends, the command's does. Run does not wait for a Read that is
	// under way when the command ends, and what that returns is lost.
	Stdin io.Reader
	// Stdout and Stderr get the output as it comes, from one goroutine; nil throws it away. While a Write blocks, the command
	// waits. A Write that fails ends the command.
	Stdout, Stderr io.Writer
	// Resize gives the terminal new sizes, and Signals are passed to the command: SIGTERM to it alone, SIGKILL to all that it
	// started in its session. Run receives from them as long as the command runs.
	Resize  <-chan Size
	Signals <-chan syscall.Signal
	// Started is called with the command's pid before any of its output is written, and must not block. nil is not called.
	Started func(pid uint32)
}

// check refuses what the protocol can't carry as it is: its texts are UTF-8, and of a user's name it cuts off what follows a colon.
func (c Command) check() error {
	if strings.Contains(c.User, ":") {
		return errUserName(c.User)
	}
	texts := []struct{ what, text string }{{"command", c.Cmd}, {"folder", c.Cwd}}
	for _, arg := range c.Args {
		texts = append(texts, struct{ what, text string }{"argument", arg})
	}
	for name, value := range c.Env {
		texts = append(texts, struct{ what, text string }{"variable", name}, struct{ what, text string }{"value", value})
	}
	for _, t := range texts {
		if !utf8.ValidString(t.text) {
			return fmt.Errorf("the %s %.100q is not UTF-8: %w", t.what, t.text, errs.ErrInvalid)
		}
	}
	return nil
}

// Size is that of a terminal, in characters.
type Size struct{ Cols, Rows uint32 }

const (
	// keepalive is how long envd may be silent; after silence nobody is believed to be there.
	keepalive = 30 * time.Second
	silence   = 5 * time.Minute
	// lateness is how much later than its timeout, or than its kill, a command's end may become known.
	lateness = 30 * time.Second
	// maxTimeout is what the protocol's header can hold.
	maxTimeout = 9_999_999_999 * time.Millisecond
)

// Run runs a command and returns when it has ended and its output has been written. A command that fails, or that a signal ends, is a
// Result, not an error.
//
// When ctx ends the command is killed, and the error is ctx's cause. If that is an ErrUnavailable, the guest is gone: nobody is told,
// and Run returns at once. Other errors: context.DeadlineExceeded for a Timeout,
// ErrInvalid for a command that can't be run (no such file, folder) or can't be sent (what is not UTF-8), ErrUnauthenticated for a user that the guest
// doesn't have, the error of a writer, ErrUnavailable when the guest is gone or answers with what envd never would.
func (c *Client) Run(ctx context.Context, cmd Command) (Result, error) {
	if err := cmd.check(); err != nil {
		return Result{}, err
	}
	return c.newRun(cmd, 0).do(ctx)
}

// newRun is a command that is to be started, or the running one with the pid attach if that is not 0.
func (c *Client) newRun(cmd Command, attach uint32) *run {
	return &run{client: c, cmd: cmd, attach: attach, started: make(chan struct{}), ended: make(chan struct{})}
}

// do follows the command to its end.
func (r *run) do(ctx context.Context) (Result, error) {
	rctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	r.cancel = cancel
	defer cancel(nil)
	defer close(r.ended)
	go r.obey(ctx)
	res, err := r.follow(rctx)
	fault := r.fault.Load()
	switch {
	case err == nil && fault == nil && (r.attach != 0 || ctx.Err() == nil || res.Signal != syscall.SIGKILL):
		return res, nil
	case ctx.Err() != nil && r.attach != 0:
		return res, letGo(ctx)
	case ctx.Err() != nil:
		return res, fmt.Errorf("the command was killed: %w", context.Cause(ctx))
	case fault != nil:
		return res, *fault
	case context.Cause(rctx) != nil:
		return res, context.Cause(rctx)
	}
	return res, err
}

// run is one command under way.
type run struct {
	client  *Client
	cmd     Command
	attach  uint32                  // the pid to join; 0 starts the command
	cancel  context.CancelCauseFunc // ends the stream, and says why
	started chan struct{}           // closed when pid is known
	pid     uint32
	ended   chan struct{} // closed when the command is over
	fault   atomic.Pointer[error]
}

// obey kills the command when ctx ends or when envd did not end it in time, and gives the stream up when its end isn't heard of.
func (r *run) obey(ctx context.Context) {
	var late <-chan time.Time
	if r.cmd.Timeout > 0 {
		late = time.After(r.cmd.Timeout + lateness)
	}
	select {
	case <-r.ended:
		return
	case <-late:
		r.wrong(r.timedOut())
		return
	case <-ctx.Done():
	}
	if r.attach != 0 || errors.Is(context.Cause(ctx), errs.ErrUnavailable) {
		r.cancel(context.Cause(ctx))
		return
	}
	patience, stop := context.WithTimeout(context.Background(), lateness)
	defer stop()
	select {
	case <-r.started:
		r.kill()
	case <-r.ended:
	case <-patience.Done():
	}
	select {
	case <-r.ended:
	case <-patience.Done():
		r.cancel(context.Cause(ctx))
	}
}

// kill tells envd to kill the command, if it has started and is ours.
func (r *run) kill() {
	if r.attach != 0 {
		return
	}
	select {
	case <-r.started:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lateness)
	defer cancel()
	_ = r.client.Signal(ctx, r.pid, syscall.SIGKILL) // if it fails, so will the stream
}

func (r *run) timedOut() error {
	return fmt.Errorf("the command did not end within %v: %w", r.cmd.Timeout, context.DeadlineExceeded)
}

// request is the call that starts the command.
func (r *run) request() *connect.Request[processpb.StartRequest] {
	stdin := r.cmd.Stdin != nil
	msg := &processpb.StartRequest{
		Process: &processpb.ProcessConfig{Cmd: r.cmd.Cmd, Args: r.cmd.Args, Envs: r.cmd.Env}, Stdin: &stdin,
	}
	if r.cmd.Cwd != "" {
		msg.Process.Cwd = &r.cmd.Cwd
	}
	if r.cmd.PTY != nil {
		msg.Pty = r.cmd.PTY.message()
	}
	req := connect.NewRequest(msg)
	req.Header().Set("Keepalive-Ping-Interval", strconv.Itoa(int(keepalive.Seconds())))
	if r.cmd.User != "" {
		req.Header().Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(r.cmd.User+":")))
	}
	if t := r.cmd.Timeout; t > 0 && t <= maxTimeout {
		req.Header().Set("Connect-Timeout-Ms", strconv.FormatInt(max(t.Milliseconds(), 1), 10))
	}
	return req
}

func (s Size) message() *processpb.PTY {
	return &processpb.PTY{Size: &processpb.PTY_Size{Cols: s.Cols, Rows: s.Rows}}
}

// follow reads the stream of events to its end.
func (r *run) follow(ctx context.Context) (Result, error) {
	watchdog := time.AfterFunc(silence, func() { r.cancel(broken(fmt.Errorf("envd was silent for %v", silence))) })
	defer watchdog.Stop()
	stream, err := r.open(ctx)
	if err != nil {
		return Result{}, broken(err)
	}
	defer func() { _ = stream.close() }() // what it says is known by then
	for stream.receive() {
		watchdog.Stop() // a writer may take its time
		end, err := r.event(ctx, stream.event())
		switch {
		case err != nil:
			return Result{}, err
		case end != nil:
			return result(end)
		}
		watchdog.Reset(silence)
	}
	err = stream.err()
	switch {
	case err == nil:
		return Result{}, unsound("the stream ended before the command")
	case connect.CodeOf(err) == connect.CodeDeadlineExceeded && r.cmd.Timeout > 0:
		return Result{}, r.timedOut()
	}
	return Result{}, broken(err)
}

// event acts on one event; the last one it returns.
func (r *run) event(ctx context.Context, e *processpb.ProcessEvent) (*processpb.ProcessEvent_EndEvent, error) {
	if start := e.GetStart(); start != nil {
		return nil, r.begin(ctx, start.GetPid())
	}
	if r.pid == 0 {
		return nil, unsound("an event before the start")
	}
	if end := e.GetEnd(); end != nil {
		return end, nil
	}
	if err := r.output(e.GetData()); err != nil {
		r.kill()
		return nil, err
	}
	return nil, nil
}

// output writes a piece of output; nil has none.
func (r *run) output(d *processpb.ProcessEvent_DataEvent) error {
	for _, o := range []struct {
		data []byte
		w    io.Writer
	}{{d.GetStdout(), r.cmd.Stdout}, {d.GetPty(), r.cmd.Stdout}, {d.GetStderr(), r.cmd.Stderr}} {
		if len(o.data) == 0 || o.w == nil {
			continue
		}
		if _, err := o.w.Write(o.data); err != nil {
			return fmt.Errorf("write the command's output: %w", err)
		}
	}
	return nil
}

// wrong kills the command if it is ours and ends the run, because something beside the stream failed. The first such failure is the
// run's error, also when the stream then tells of the kill.
func (r *run) wrong(err error) {
	r.fault.CompareAndSwap(nil, &err)
	r.kill()
	r.cancel(err)
}
