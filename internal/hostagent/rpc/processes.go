package rpc

import (
	"context"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// keepalive is how long a stream is silent before the other side is asked whether it is there.
const keepalive = 30 * time.Second

// processes implements ProcessesService.
type processes struct{ a *hostagent.Agent }

// output is the sending side of a command's stream. Several goroutines may send.
type output struct {
	mu    sync.Mutex
	begun bool // the first event is out
	send  func(*pb.ProcessEvent) error
}

func (o *output) event(e *pb.ProcessEvent) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = o.begun || e.GetStarted() != nil
	return o.send(e)
}

// writer sends what is written as events.
type writer struct {
	o    *output
	wrap func([]byte) *pb.ProcessEvent
}

// Write implements io.Writer.
func (w writer) Write(p []byte) (int, error) {
	if err := w.o.event(w.wrap(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// follow connects a command's streams with the RPC's and sends how it ended.
func follow(ctx context.Context, send func(*pb.ProcessEvent) error, cmd client.Command,
	run func(context.Context, client.Command) (client.Result, error)) error {
	o := &output{send: send}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd.Stdout = writer{o, func(p []byte) *pb.ProcessEvent { return &pb.ProcessEvent{Event: &pb.ProcessEvent_Stdout{Stdout: p}} }}
	cmd.Stderr = writer{o, func(p []byte) *pb.ProcessEvent { return &pb.ProcessEvent{Event: &pb.ProcessEvent_Stderr{Stderr: p}} }}
	cmd.Started = func(pid uint32) {
		if err := o.event(&pb.ProcessEvent{Event: &pb.ProcessEvent_Started_{Started: &pb.ProcessEvent_Started{Pid: pid}}}); err != nil {
			cancel(err)
		}
	}
	var alive sync.WaitGroup
	alive.Go(func() { o.keepAlive(ctx, cancel) })
	result, err := run(ctx, cmd)
	cancel(nil)
	alive.Wait()
	if err != nil {
		return err
	}
	return o.event(&pb.ProcessEvent{Event: &pb.ProcessEvent_Ended_{Ended: &pb.ProcessEvent_Ended{
		ExitCode: int32(result.ExitCode), Signal: uint32(result.Signal), Status: result.Status}}})
}

// keepAlive finds out when the caller is gone, also from a command that says nothing.
func (o *output) keepAlive(ctx context.Context, cancel context.CancelCauseFunc) {
	repeat(ctx, cancel, func() error {
		o.mu.Lock()
		begun := o.begun
		o.mu.Unlock()
		if !begun {
			return nil
		}
		return o.event(&pb.ProcessEvent{Event: &pb.ProcessEvent_KeepAlive_{KeepAlive: &pb.ProcessEvent_KeepAlive{}}})
	})
}

// repeat does something from time to time until ctx ends. Its failure, which says that the caller is gone, cancels.
func repeat(ctx context.Context, cancel context.CancelCauseFunc, do func() error) {
	tick := time.NewTicker(keepalive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := do(); err != nil {
			cancel(err)
			return
		}
	}
}

// Exec implements ProcessesService.
func (p *processes) Exec(ctx context.Context, req *connect.Request[pb.ExecRequest], stream *connect.ServerStream[pb.ExecResponse]) error {
	m := req.Msg
	cmd := client.Command{Cmd: m.GetCmd(), Args: m.GetArgs(), Env: m.GetEnv(), Cwd: m.GetCwd(), User: m.GetUser(),
		Timeout: time.Duration(m.GetTimeoutMilliseconds()) * time.Millisecond}
	if t := m.GetTerminal(); t != nil {
		cmd.PTY = &client.Size{Cols: t.GetCols(), Rows: t.GetRows()}
	}
	send := func(e *pb.ProcessEvent) error { return stream.Send(&pb.ExecResponse{Event: e}) }
	return follow(ctx, send, cmd, func(ctx context.Context, cmd client.Command) (client.Result, error) {
		return p.a.Exec(ctx, m.GetId(), cmd, hostagent.ExecOptions{Stdin: m.GetStdin(), KillOnHangup: m.GetKillOnHangup()})
	})
}

// Attach implements ProcessesService.
func (p *processes) Attach(ctx context.Context, req *connect.Request[pb.AttachRequest], stream *connect.ServerStream[pb.AttachResponse]) error {
	m := req.Msg
	var cmd client.Command
	if m.GetTerminal() {
		cmd.PTY = &client.Size{}
	}
	send := func(e *pb.ProcessEvent) error { return stream.Send(&pb.AttachResponse{Event: e}) }
	return follow(ctx, send, cmd, func(ctx context.Context, cmd client.Command) (client.Result, error) {
		return p.a.Attach(ctx, m.GetId(), m.GetPid(), cmd, hostagent.ExecOptions{Stdin: m.GetStdin()})
	})
}

// ListProcesses implements ProcessesService.
func (p *processes) ListProcesses(ctx context.Context, req *connect.Request[pb.ListProcessesRequest]) (*connect.Response[pb.ListProcessesResponse], error) {
	list, err := p.a.Processes(ctx, req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListProcessesResponse{}
	for _, one := range list {
		resp.Processes = append(resp.Processes, &pb.Process{Pid: one.PID, Cmd: one.Cmd, Args: one.Args})
	}
	return connect.NewResponse(resp), nil
}

// SendInput implements ProcessesService.
func (p *processes) SendInput(ctx context.Context, req *connect.Request[pb.SendInputRequest]) (*connect.Response[pb.SendInputResponse], error) {
	m := req.Msg
	if err := p.a.SendInput(ctx, m.GetId(), m.GetPid(), m.GetData(), m.GetEnd()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SendInputResponse{}), nil
}

// Signal implements ProcessesService.
func (p *processes) Signal(ctx context.Context, req *connect.Request[pb.SignalRequest]) (*connect.Response[pb.SignalResponse], error) {
	if err := p.a.Signal(ctx, req.Msg.GetId(), req.Msg.GetPid(), syscall.Signal(req.Msg.GetSignal())); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SignalResponse{}), nil
}

// Resize implements ProcessesService.
func (p *processes) Resize(ctx context.Context, req *connect.Request[pb.ResizeRequest]) (*connect.Response[pb.ResizeResponse], error) {
	size := client.Size{Cols: req.Msg.GetSize().GetCols(), Rows: req.Msg.GetSize().GetRows()}
	if err := p.a.Resize(ctx, req.Msg.GetId(), req.Msg.GetPid(), size); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ResizeResponse{}), nil
}
