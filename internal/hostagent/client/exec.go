package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Streams are where a command's input comes from and its output goes.
type Streams struct {
	Stdin          io.Reader // nil is none; the request's stdin is set to fit, unless it is set already: then other calls give the input
	Stdout, Stderr io.Writer // nil throws it away
	Signals        <-chan syscall.Signal
	Resize         <-chan *pb.TerminalSize
	Started        func(pid uint32) // nil is not called
}

// Result is how a command ended.
type Result struct {
	ExitCode int
	Signal   syscall.Signal // 0 when none ended it
	Status   string
}

// inputBytes is how much of the input is sent at once.
const inputBytes = 32 << 10

// Exec runs a command and returns when it has ended and its output is written. A command that fails is a Result, not an error.
func (c *Client) Exec(ctx context.Context, req *pb.ExecRequest, s Streams) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req.Stdin = req.GetStdin() || s.Stdin != nil
	stream, err := c.Processes.Exec(ctx, connect.NewRequest(req))
	if err != nil {
		return Result{}, err
	}
	defer stream.Close()
	return c.follow(ctx, cancel, req.GetId(), stream, func() *pb.ProcessEvent { return stream.Msg().GetEvent() }, s)
}

// Attach joins a command that runs, and returns when it has ended and its output from then on is written. When ctx ends before, the command
// goes on.
func (c *Client) Attach(ctx context.Context, req *pb.AttachRequest, s Streams) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req.Stdin = s.Stdin != nil
	stream, err := c.Processes.Attach(ctx, connect.NewRequest(req))
	if err != nil {
		return Result{}, err
	}
	defer stream.Close()
	return c.follow(ctx, cancel, req.GetId(), stream, func() *pb.ProcessEvent { return stream.Msg().GetEvent() }, s)
}

// follow reads a command's events to its end.
func (c *Client) follow(ctx context.Context, cancel context.CancelCauseFunc, id string, stream interface {
	Receive() bool
	Err() error
}, event func() *pb.ProcessEvent, s Streams) (Result, error) {
	for stream.Receive() {
		end, err := c.event(ctx, cancel, id, event(), s)
		if err != nil {
			return Result{}, err
		}
		if end != nil {
			return Result{ExitCode: int(end.GetExitCode()), Signal: syscall.Signal(end.GetSignal()), Status: end.GetStatus()}, nil
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return Result{}, cause
	}
	if err := stream.Err(); err != nil {
		return Result{}, err
	}
	return Result{}, fmt.Errorf("the stream ended before the command: %w", errs.ErrUnavailable)
}

// event acts on one event; the last one it returns.
func (c *Client) event(ctx context.Context, cancel context.CancelCauseFunc, id string, e *pb.ProcessEvent, s Streams) (*pb.ProcessEvent_Ended, error) {
	if started := e.GetStarted(); started != nil {
		if s.Started != nil {
			s.Started(started.GetPid())
		}
		go c.feed(ctx, cancel, id, started.GetPid(), s.Stdin)
		go c.steer(ctx, id, started.GetPid(), s)
	}
	for _, o := range []struct {
		data []byte
		w    io.Writer
	}{{e.GetStdout(), s.Stdout}, {e.GetStderr(), s.Stderr}} {
		if len(o.data) == 0 || o.w == nil {
			continue
		}
		if _, err := o.w.Write(o.data); err != nil {
			return nil, fmt.Errorf("write the command's output: %w", err)
		}
	}
	return e.GetEnded(), nil
}

// feed sends the input. What can't be sent although the command wants some ends the stream: nothing is lost silently.
func (c *Client) feed(ctx context.Context, cancel context.CancelCauseFunc, id string, pid uint32, stdin io.Reader) {
	if stdin == nil {
		return
	}
	buf := make([]byte, inputBytes)
	for ctx.Err() == nil {
		n, err := stdin.Read(buf)
		_, serr := c.Processes.SendInput(ctx, connect.NewRequest(&pb.SendInputRequest{Id: id, Pid: pid, Data: buf[:n], End: err != nil}))
		switch {
		case serr == nil && err == nil:
			continue
		case serr != nil && !errors.Is(serr, errs.ErrNotFound) && !errors.Is(serr, errs.ErrFailedPrecondition):
			cancel(fmt.Errorf("send the command's input: %w", serr))
		}
		return
	}
}

// steer sends signals and sizes. One that can't be sent, because the command just ended, is not missed.
func (c *Client) steer(ctx context.Context, id string, pid uint32, s Streams) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-s.Signals:
			_, _ = c.Processes.Signal(ctx, connect.NewRequest(&pb.SignalRequest{Id: id, Pid: pid, Signal: uint32(sig)}))
		case size := <-s.Resize:
			_, _ = c.Processes.Resize(ctx, connect.NewRequest(&pb.ResizeRequest{Id: id, Pid: pid, Size: size}))
		}
	}
}
