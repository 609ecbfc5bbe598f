package control

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// inputTime is how long a command may leave its input untaken.
const inputTime = time.Minute

// inputPiece is how much input is sent at once: what the agent takes.
const inputPiece = 256 << 10

// Running is a sandbox that ran when it was looked up, and its host: for what is done in it, its commands and its files. Should it run no more,
// its host says so.
type Running struct {
	host *client.Client
	id   string
	c    *Control
}

// Running looks a team's sandbox up. ErrFailedPrecondition when it does not run.
func (c *Control) Running(ctx context.Context, team, sandbox string) (*Running, error) {
	_, agent, err := c.usable(ctx, team, sandbox, store.Running)
	if err != nil {
		return nil, err
	}
	return &Running{agent, sandbox, c}, nil
}

// Start starts a command that goes on by itself and returns its pid. It is started although the caller leaves meanwhile.
func (r *Running) Start(ctx context.Context, req *pb.ExecRequest) (uint32, error) {
	return perform(ctx, r.c, shortTime, func(ctx context.Context) (uint32, error) {
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		var pid uint32
		req.Id, req.KillOnHangup = r.id, false
		_, err := r.host.Exec(ctx, req, client.Streams{Started: func(p uint32) {
			pid = p
			leave()
		}})
		if pid != 0 {
			return pid, nil // leaving it is what the error is about
		}
		return 0, err
	})
}

// Exec runs a command as client.Client.Exec does. What becomes of it when the caller leaves is the request's to say.
func (r *Running) Exec(ctx context.Context, req *pb.ExecRequest, s client.Streams) (client.Result, error) {
	req.Id = r.id
	return r.host.Exec(ctx, req, s)
}

// Attach joins a command that runs, as client.Client.Attach does.
func (r *Running) Attach(ctx context.Context, pid uint32, s client.Streams) (client.Result, error) {
	return r.host.Attach(ctx, &pb.AttachRequest{Id: r.id, Pid: pid}, s)
}

// List are the commands that run.
func (r *Running) List(ctx context.Context) ([]*pb.Process, error) {
	resp, err := r.host.Processes.ListProcesses(ctx, connect.NewRequest(&pb.ListProcessesRequest{Id: r.id}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetProcesses(), nil
}

// Input is what a command is given.
type Input struct {
	PID  uint32
	Data []byte
	End  bool          // there is no more after it
	Time time.Duration // how long the command may leave it untaken; 0 is a minute
}

// Input gives a command input and returns when it has taken all of it. After an error a part may have been taken.
func (r *Running) Input(ctx context.Context, in Input) error {
	limit := cmp.Or(in.Time, inputTime)
	late := fmt.Errorf("the command did not take its input within %v: %w", limit, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	for data := in.Data; ; {
		some := data[:min(len(data), inputPiece)]
		data = data[len(some):]
		req := &pb.SendInputRequest{Id: r.id, Pid: in.PID, Data: some, End: in.End && len(data) == 0}
		if _, err := r.host.Processes.SendInput(ctx, connect.NewRequest(req)); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		if len(data) == 0 {
			return nil
		}
	}
}

// Signal sends a command SIGTERM (15), or SIGKILL (9) to it and all that it started.
func (r *Running) Signal(ctx context.Context, pid, signal uint32) error {
	_, err := r.host.Processes.Signal(ctx, connect.NewRequest(&pb.SignalRequest{Id: r.id, Pid: pid, Signal: signal}))
	return err
}

// Resize changes the size of a command's terminal.
func (r *Running) Resize(ctx context.Context, pid uint32, size *pb.TerminalSize) error {
	_, err := r.host.Processes.Resize(ctx, connect.NewRequest(&pb.ResizeRequest{Id: r.id, Pid: pid, Size: size}))
	return err
}
