package client

import (
	"context"
	"errors"
	"io"
	"syscall"

	"wrenn.dev/wrenn/client/internal/rest"
)

// inputPiece is how much of a command's input is sent at once, in bytes.
const inputPiece = 32 << 10

// TerminalSize is that of a terminal, in characters.
type TerminalSize struct{ Cols, Rows int }

func (s TerminalSize) rest() rest.TerminalSize {
	return rest.TerminalSize{Cols: int32(s.Cols), Rows: int32(s.Rows)}
}

// Background is a command that goes on by itself.
type Background struct {
	Command                // its Stdin, Stdout and Stderr are not used
	Input    bool          // it takes input, which WriteStdin gives
	Terminal *TerminalSize // gives it a terminal; nil is none
}

// StartBackground starts a command that goes on until it ends, is told to, or the sandbox ends, and returns its pid as soon as it runs. What it
// writes while nobody follows it is thrown away.
func (s *Sandbox) StartBackground(ctx context.Context, b Background) (pid int, _ error) {
	if err := named("id", s.ID); err != nil {
		return 0, err
	}
	body := rest.StartProcess{Cmd: b.Cmd, Cwd: given(b.Cwd), User: given(b.User), TimeoutMs: given(milliseconds(b.Timeout)), Stdin: given(b.Input)}
	if b.Args != nil {
		body.Args = &b.Args
	}
	if b.Env != nil {
		body.Env = &b.Env
	}
	if b.Terminal != nil {
		body.Pty = new(b.Terminal.rest())
	}
	resp, err := s.c.rest.StartProcess(sent(ctx, manner{safe: unanswered}), s.ID, &rest.StartProcessParams{IdempotencyKey: once(ctx)}, body)
	started, err := decode[rest.StartedProcess](resp, err)
	return int(started.Pid), err
}

// ProcessInfo is a command that runs in a guest, as the guest tells it.
type ProcessInfo struct {
	PID  int
	Cmd  string
	Args []string
}

// Processes are the commands that run and were started by a client; not what they started themselves.
func (s *Sandbox) Processes(ctx context.Context) ([]ProcessInfo, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.ListProcesses(ctx, s.ID)
	all, err := decode[rest.ProcessList](resp, err)
	if err != nil {
		return nil, err
	}
	list := make([]ProcessInfo, len(all.Processes))
	for i, p := range all.Processes {
		list[i] = ProcessInfo{int(p.Pid), p.Cmd, p.Args}
	}
	return list, nil
}

// Follow passes on what a command writes from now on, and tells how it ends; nil writers throw it away. The command goes on when ctx ends.
func (s *Sandbox) Follow(ctx context.Context, pid int, stdout, stderr io.Writer) (*Process, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := s.c.rest.FollowProcess(sent(ctx, manner{stream: true, safe: always}), s.ID, int64(pid))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return follow(ctx, cancel, resp, stdout, stderr)
}

// WriteStdin gives a command input, of at most 1 MiB, and returns when the command has taken it; end says that there is no more after this.
// What may have been taken in part is not sent again.
func (s *Sandbox) WriteStdin(ctx context.Context, pid int, data []byte, end bool) error {
	if err := named("id", s.ID); err != nil {
		return err
	}
	body := rest.Stdin{EOF: given(end)}
	if len(data) > 0 || !end {
		body.Input = new(textOf(data))
	}
	resp, err := s.c.rest.WriteStdin(sent(ctx, manner{safe: unanswered}), s.ID, int64(pid), &rest.WriteStdinParams{IdempotencyKey: once(ctx)}, body)
	_, err = decode[struct{}](resp, err)
	return err
}

// Signal sends a command a signal: SIGTERM to it alone, or SIGKILL to it and all that it started.
func (s *Sandbox) Signal(ctx context.Context, pid int, sig syscall.Signal) error {
	if err := named("id", s.ID); err != nil {
		return err
	}
	name, ok := map[syscall.Signal]rest.SignalProcessSignal{syscall.SIGTERM: rest.Sigterm, syscall.SIGKILL: rest.Sigkill}[sig]
	if !ok {
		return invalid("signal", sig.String()+" can't be sent", "give SIGTERM or SIGKILL")
	}
	resp, err := s.c.rest.SignalProcess(ctx, s.ID, int64(pid), &rest.SignalProcessParams{IdempotencyKey: once(ctx)}, rest.SignalProcess{Signal: name})
	_, err = decode[struct{}](resp, err)
	return err
}

// Resize changes the size of a command's terminal.
func (s *Sandbox) Resize(ctx context.Context, pid int, size TerminalSize) error {
	if err := named("id", s.ID); err != nil {
		return err
	}
	resp, err := s.c.rest.ResizeTerminal(ctx, s.ID, int64(pid), &rest.ResizeTerminalParams{IdempotencyKey: once(ctx)}, size.rest())
	_, err = decode[struct{}](resp, err)
	return err
}

// feed passes a command's input on. What can't be sent although the command wants some ends it: nothing is lost silently.
func (s *Sandbox) feed(ctx context.Context, cancel context.CancelCauseFunc, pid int, in io.Reader) {
	buf := make([]byte, inputPiece)
	for ctx.Err() == nil {
		n, err := in.Read(buf)
		serr := s.WriteStdin(ctx, pid, buf[:n], err != nil)
		switch {
		case serr == nil && err == nil:
			continue
		case serr != nil && !errors.Is(serr, ErrNotFound) && !errors.Is(serr, ErrFailedPrecondition): // it has ended, or wants no more
			cancel(serr)
		}
		return
	}
}
