package client

import (
	"context"
	"fmt"
	"strconv"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// maxListed bounds the processes, and maxArgs the arguments of each, that a list of a guest's gives.
const (
	maxListed = 4096
	maxArgs   = 64
)

// Process is a command that runs in the guest. Its texts are the guest's, made fit to be shown.
type Process struct {
	PID  uint32
	Cmd  string
	Args []string
	// Tag is empty for a process that has none.
	Tag string
}

// List returns the commands that run, in the order of their start. At most 4096 of them, with 64 arguments each.
func (c *Client) List(ctx context.Context) ([]Process, error) {
	resp, err := c.rpc.List(ctx, connect.NewRequest(&processpb.ListRequest{}))
	if err != nil {
		return nil, broken(err)
	}
	var list []Process
	for _, p := range resp.Msg.GetProcesses() {
		if len(list) == maxListed {
			break
		}
		one := Process{PID: p.GetPid(), Cmd: clean(p.GetConfig().GetCmd()), Tag: clean(p.GetTag())}
		args := p.GetConfig().GetArgs()
		for _, arg := range args[:min(len(args), maxArgs)] {
			one.Args = append(one.Args, clean(arg))
		}
		list = append(list, one)
	}
	return list, nil
}

// Attach joins a command that runs, or that ended some seconds ago, and returns when it has ended and what it wrote meanwhile has been
// written. Output from before is not repeated; what nobody followed is lost. Of cmd, what is about its streams counts: Stdin, Stdout,
// Stderr, PTY if the command has a terminal (its size is left as it is), Resize, Signals and Started.
//
// What Attach did not start it does not end: when ctx ends, a writer fails or the input can't be given, it lets go of the command, which
// goes on. Errors are those of Run, and ErrNotFound when there is no such process.
func (c *Client) Attach(ctx context.Context, pid uint32, cmd Command) (Result, error) {
	if pid == 0 {
		return Result{}, fmt.Errorf("process 0: %w", errs.ErrNotFound)
	}
	cmd.Timeout = 0
	return c.newRun(cmd, pid).do(ctx)
}

// events is a stream of a process's events, of a start or of a join.
type events struct {
	receive func() bool
	event   func() *processpb.ProcessEvent
	err     func() error
	close   func() error
}

// open begins the stream.
func (r *run) open(ctx context.Context) (events, error) {
	if r.attach != 0 {
		req := connect.NewRequest(&processpb.ConnectRequest{Process: &processpb.ProcessSelector{
			Selector: &processpb.ProcessSelector_Pid{Pid: r.attach}}})
		req.Header().Set("Keepalive-Ping-Interval", strconv.Itoa(int(keepalive.Seconds())))
		s, err := r.client.rpc.Connect(ctx, req)
		if err != nil {
			return events{}, err
		}
		return events{s.Receive, func() *processpb.ProcessEvent { return s.Msg().GetEvent() }, s.Err, s.Close}, nil
	}
	s, err := r.client.rpc.Start(ctx, r.request())
	if err != nil {
		return events{}, err
	}
	return events{s.Receive, func() *processpb.ProcessEvent { return s.Msg().GetEvent() }, s.Err, s.Close}, nil
}

// begin acts on the first event.
func (r *run) begin(ctx context.Context, pid uint32) error {
	if r.pid != 0 || pid == 0 || r.attach != 0 && r.attach != pid {
		return unsound("a start with pid %d", pid)
	}
	r.pid = pid
	close(r.started)
	if r.cmd.Started != nil {
		r.cmd.Started(pid)
	}
	go r.feed(ctx)
	go r.steer(ctx)
	return nil
}

// letGo is how an attached command is left when ctx ends.
func letGo(ctx context.Context) error {
	return fmt.Errorf("no longer attached to the command: %w", context.Cause(ctx))
}
