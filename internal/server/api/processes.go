package api

import (
	"context"

	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// signals are those that a command can be sent, by their numbers.
var signals = map[rest.SignalProcessSignal]uint32{rest.Sigterm: 15, rest.Sigkill: 9}

func toTerminalSize(s rest.TerminalSize) *pb.TerminalSize {
	return &pb.TerminalSize{Cols: uint32(s.Cols), Rows: uint32(s.Rows)}
}

// StartProcess implements rest.StrictServerInterface.
func (s *server) StartProcess(ctx context.Context, r rest.StartProcessRequestObject) (rest.StartProcessResponseObject, error) {
	c := r.Body
	req := &pb.ExecRequest{Cmd: c.Cmd, Args: or(c.Args, nil), Env: or(c.Env, nil), Cwd: or(c.Cwd, ""), User: or(c.User, ""),
		TimeoutMilliseconds: uint32(or(c.TimeoutMs, 0)), Stdin: or(c.Stdin, false)}
	if c.Pty != nil {
		req.Terminal = toTerminalSize(*c.Pty)
	}
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	pid, err := sb.Start(ctx, req)
	if err != nil {
		return nil, err
	}
	return rest.StartProcess201JSONResponse{Pid: int64(pid)}, nil
}

// ListProcesses implements rest.StrictServerInterface.
func (s *server) ListProcesses(ctx context.Context, r rest.ListProcessesRequestObject) (rest.ListProcessesResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	list, err := sb.List(ctx)
	if err != nil {
		return nil, err
	}
	answer := rest.ListProcesses200JSONResponse{Processes: make([]rest.Process, len(list))}
	for i, p := range list {
		answer.Processes[i] = rest.Process{Pid: int64(p.GetPid()), Cmd: p.GetCmd(), Args: append([]string{}, p.GetArgs()...)}
	}
	return answer, nil
}

// FollowProcess implements rest.StrictServerInterface.
func (s *server) FollowProcess(ctx context.Context, r rest.FollowProcessRequestObject) (rest.FollowProcessResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return stream{ctx, func(out client.Streams) (client.Result, error) { return sb.Attach(ctx, uint32(r.Pid), out) }}, nil
}

// WriteStdin implements rest.StrictServerInterface.
func (s *server) WriteStdin(ctx context.Context, r rest.WriteStdinRequestObject) (rest.WriteStdinResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	var data []byte
	if r.Body.Input != nil {
		if data, err = fromText("input", *r.Body.Input); err != nil {
			return nil, err
		}
	}
	if err := sb.Input(ctx, control.Input{PID: uint32(r.Pid), Data: data, End: or(r.Body.EOF, false)}); err != nil {
		return nil, err
	}
	return rest.WriteStdin204Response{}, nil
}

// SignalProcess implements rest.StrictServerInterface.
func (s *server) SignalProcess(ctx context.Context, r rest.SignalProcessRequestObject) (rest.SignalProcessResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	if err := sb.Signal(ctx, uint32(r.Pid), signals[r.Body.Signal]); err != nil {
		return nil, err
	}
	return rest.SignalProcess204Response{}, nil
}

// ResizeTerminal implements rest.StrictServerInterface.
func (s *server) ResizeTerminal(ctx context.Context, r rest.ResizeTerminalRequestObject) (rest.ResizeTerminalResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	if err := sb.Resize(ctx, uint32(r.Pid), toTerminalSize(*r.Body)); err != nil {
		return nil, err
	}
	return rest.ResizeTerminal204Response{}, nil
}
