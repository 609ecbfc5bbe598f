package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
	"unicode/utf8"

	"wrenn.dev/wrenn/client/internal/rest"
)

// maxLine bounds one line of a stream, in bytes: what a command has written at once, as JSON.
const maxLine = 4 << 20

// maxInput is how much input a request may give a command, in bytes.
const maxInput = 1 << 20

// Command is a program to run in a guest.
type Command struct {
	Cmd  string // a path in the guest, or a name that is looked up in the PATH
	Args []string
	Env  map[string]string
	Cwd  string // the folder to start in; empty is the user's home
	User string // a user of the guest; empty is its default one
	// Timeout ends the command with ErrTimeout; 0 is none.
	Timeout time.Duration
	// Stdin is the command's input; nil is none. Exec reads it to its end first, of at most 1 MiB; Start passes it on as it comes, and does not
	// wait for a Read that is under way when the command ends.
	Stdin io.Reader
	// Stdout and Stderr are for Start: they get what the command writes, as it does; nil throws it away. While they take nothing, the command waits.
	Stdout, Stderr io.Writer
}

func (c Command) rest() rest.Command {
	r := rest.Command{Cmd: c.Cmd, Cwd: given(c.Cwd), User: given(c.User), TimeoutMs: given(milliseconds(c.Timeout))}
	if c.Args != nil {
		r.Args = &c.Args
	}
	if c.Env != nil {
		r.Env = &c.Env
	}
	return r
}

// whole is the command with all of its input.
func (c Command) whole() (rest.Command, error) {
	r := c.rest()
	if c.Stdin == nil {
		return r, nil
	}
	in, err := io.ReadAll(io.LimitReader(c.Stdin, maxInput+1))
	switch {
	case err != nil:
		return r, fmt.Errorf("read the command's input: %w", err)
	case len(in) > maxInput:
		return r, invalid("Stdin", fmt.Sprintf("it has more than %d bytes", maxInput), "store it as a file first")
	}
	r.Stdin = new(textOf(in))
	return r, nil
}

// milliseconds are a command's time, of which a part of a millisecond is one.
func milliseconds(d time.Duration) int64 {
	if d > 0 && d < time.Millisecond {
		return 1
	}
	return d.Milliseconds()
}

// textOf says bytes in JSON without losing any.
func textOf(b []byte) rest.Text {
	if utf8.Valid(b) {
		return rest.Text{Encoding: rest.EncodingUTF8, Data: string(b)}
	}
	return rest.Text{Encoding: rest.EncodingBase64, Data: base64.StdEncoding.EncodeToString(b)}
}

// bytesOf are the bytes that a text says.
func bytesOf(t rest.Text) ([]byte, error) {
	if t.Encoding != rest.EncodingBase64 {
		return []byte(t.Data), nil
	}
	b, err := base64.StdEncoding.DecodeString(t.Data)
	if err != nil {
		return nil, fmt.Errorf("the server sent what is not base64: %w: %w", err, ErrInternal)
	}
	return b, nil
}

// Exit is how a command ended.
type Exit struct {
	Code   int            // -1 when a signal ended it
	Signal syscall.Signal // the signal that ended it; 0 when none did
	Status string         // the same in words
}

// Result is how a command ended, with what it wrote.
type Result struct {
	Exit
	// Of each output the first MiB is kept.
	Stdout, Stderr                   []byte
	StdoutTruncated, StderrTruncated bool
	Took                             time.Duration
}

// Exec runs a command and returns when it has ended. A command that fails is a Result and no error. When the connection breaks, the command
// goes on, and the client asks again for its result.
func (s *Sandbox) Exec(ctx context.Context, c Command) (Result, error) {
	if err := named("id", s.ID); err != nil {
		return Result{}, err
	}
	body, err := c.whole()
	if err != nil {
		return Result{}, err
	}
	resp, err := s.c.rest.ExecCommand(sent(ctx, manner{safe: unanswered}), s.ID, &rest.ExecCommandParams{IdempotencyKey: once(ctx)}, body)
	r, err := decode[rest.CommandResult](resp, err)
	if err != nil {
		return Result{}, err
	}
	out, err := bytesOf(r.Stdout)
	if err != nil {
		return Result{}, err
	}
	stderr, err := bytesOf(r.Stderr)
	return Result{Exit: Exit{int(r.ExitCode), syscall.Signal(or(r.Signal, 0)), r.Status}, Stdout: out, Stderr: stderr,
		StdoutTruncated: r.StdoutTruncated, StderrTruncated: r.StderrTruncated, Took: time.Duration(r.TookMs) * time.Millisecond}, err
}

// Process is a command that was started.
type Process struct {
	PID int // in the guest

	cancel context.CancelCauseFunc
	done   chan struct{}
	exit   Exit
	err    error
}

// Start runs a command and returns as soon as it runs; what it writes goes to c's Stdout and Stderr. The command is killed when ctx ends, or the
// connection does. A stream is never asked for again: what was written twice would be worse than an error.
func (s *Sandbox) Start(ctx context.Context, c Command) (*Process, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	body := c.rest()
	if c.Stdin != nil {
		body.MoreStdin = new(true)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := s.c.rest.StreamCommand(sent(ctx, manner{stream: true}), s.ID, body)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	p, err := follow(ctx, cancel, resp, c.Stdout, c.Stderr)
	if err == nil && c.Stdin != nil {
		go s.feed(ctx, cancel, p.PID, c.Stdin)
	}
	return p, err
}

// follow reads a stream of CommandEvents; it returns when the first has come.
func follow(ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response, stdout, stderr io.Writer) (*Process, error) {
	r := &Process{cancel: cancel, done: make(chan struct{})}
	events := &eventLines{ctx: ctx, lines: bufio.NewScanner(resp.Body)}
	events.lines.Buffer(nil, maxLine)
	first, err := events.next()
	if err == nil && first.Type != rest.Started {
		err = events.unexpected(first)
	}
	if err != nil {
		cancel(nil)
		_ = resp.Body.Close()
		return nil, err
	}
	r.PID = int(or(first.Pid, 0))
	go func() {
		defer close(r.done)
		defer cancel(nil)
		defer resp.Body.Close()
		r.exit, r.err = events.copy(stdout, stderr)
	}()
	return r, nil
}

// Wait returns when the command has ended and all that it wrote has been passed on.
func (r *Process) Wait() (Exit, error) {
	<-r.done
	return r.exit, r.err
}

// Done is closed when Wait will not block.
func (r *Process) Done() <-chan struct{} { return r.done }

// Close lets go of the command and returns when nothing is written to its outputs any more. One that Start started is killed if it runs.
func (r *Process) Close() {
	r.cancel(nil)
	<-r.done
}

// eventLines are the lines of a stream.
type eventLines struct {
	ctx   context.Context
	lines *bufio.Scanner
}

// next is the next event. A stream always says how it ends: one that does not has broken off.
func (e *eventLines) next() (rest.CommandEvent, error) {
	var event rest.CommandEvent
	if !e.lines.Scan() {
		err := e.lines.Err()
		if cause := context.Cause(e.ctx); cause != nil {
			return event, cause
		}
		if errors.Is(err, bufio.ErrTooLong) {
			return event, fmt.Errorf("the server sent a line of more than %d bytes: %w", maxLine, ErrInternal)
		}
		return event, fmt.Errorf("%w: the stream broke off before the command ended: %w", ErrUnavailable, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if err := json.Unmarshal(e.lines.Bytes(), &event); err != nil {
		return event, fmt.Errorf("the server sent %.200q: %w: %w", e.lines.Bytes(), err, ErrInternal)
	}
	return event, nil
}

// unexpected is what an event tells that is not the one that comes here.
func (e *eventLines) unexpected(event rest.CommandEvent) error {
	if event.Type == rest.Broken && event.Error != nil {
		return fromRest(*event.Error)
	}
	return fmt.Errorf("the server sent %q out of turn: %w", event.Type, ErrInternal)
}

// copy passes the output on until the command ends.
func (e *eventLines) copy(stdout, stderr io.Writer) (Exit, error) {
	for {
		event, err := e.next()
		if err != nil {
			return Exit{}, err
		}
		to := stdout
		switch event.Type {
		case rest.Ended:
			return Exit{int(or(event.ExitCode, 0)), syscall.Signal(or(event.Signal, 0)), or(event.Status, "")}, nil
		case rest.Stdout:
		case rest.Stderr:
			to = stderr
		default:
			return Exit{}, e.unexpected(event)
		}
		data, err := bytesOf(rest.Text{Encoding: or(event.Encoding, rest.EncodingUTF8), Data: or(event.Data, "")})
		if err != nil {
			return Exit{}, err
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(data); err != nil {
			return Exit{}, fmt.Errorf("write the command's output: %w", err)
		}
	}
}
