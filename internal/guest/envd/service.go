package envd

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// service is the RPC side of the process manager. It converts and maps; what it does is done there.
type service struct {
	manager *process.Manager
	users   user.DB
	base    func() map[string]string // what every process finds in its environment
	// hold lets a request start a command until release is called, or says why it may not.
	hold func(ctx context.Context) (release func(), err error)
}

// List implements process.Process.
func (s *service) List(context.Context, *connect.Request[processpb.ListRequest]) (*connect.Response[processpb.ListResponse], error) {
	resp := &processpb.ListResponse{}
	for _, p := range s.manager.List() {
		resp.Processes = append(resp.Processes, info(p))
	}
	return connect.NewResponse(resp), nil
}

// Start implements process.Process.
func (s *service) Start(ctx context.Context, req *connect.Request[processpb.StartRequest],
	out *connect.ServerStream[processpb.StartResponse]) error {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return toConnect(err)
	}
	spec := spec(req.Msg)
	spec.User = u
	spec.Deadline, _ = ctx.Deadline()
	sub, err := s.start(ctx, spec)
	if err != nil {
		return toConnect(err)
	}
	defer sub.Close()
	gone, stop := abandoned(ctx)
	defer stop()
	send := func(e *processpb.ProcessEvent) error { return out.Send(&processpb.StartResponse{Event: e}) }
	exit, err := (&stream{sub: sub, send: send, silence: keepalive(req.Header())}).run(gone)
	switch {
	case err != nil:
		return toConnect(err)
	case exit.Expired:
		return connect.NewError(connect.CodeDeadlineExceeded, errors.New("the command's deadline came and it was killed"))
	}
	return send(endEvent(exit))
}

// start starts a command, unless the sandbox is about to be frozen: it would run in a clone before that is distinct.
func (s *service) start(ctx context.Context, spec process.Spec) (*process.Subscription, error) {
	release, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	spec.Base = s.base()
	return s.manager.Start(spec)
}

// Connect implements process.Process.
func (s *service) Connect(ctx context.Context, req *connect.Request[processpb.ConnectRequest],
	out *connect.ServerStream[processpb.ConnectResponse]) error {
	sel, err := selector(req.Msg.GetProcess())
	if err != nil {
		return toConnect(err)
	}
	sub, err := s.manager.Join(sel)
	if err != nil {
		return toConnect(err)
	}
	defer sub.Close()
	send := func(e *processpb.ProcessEvent) error { return out.Send(&processpb.ConnectResponse{Event: e}) }
	exit, err := (&stream{sub: sub, send: send, silence: keepalive(req.Header())}).run(ctx.Done())
	switch {
	case ctx.Err() != nil:
		return toConnect(ctx.Err())
	case err != nil:
		return toConnect(err)
	}
	return send(endEvent(exit))
}

// find returns the running process that a request is about.
func (s *service) find(pb *processpb.ProcessSelector) (*process.Process, error) {
	sel, err := selector(pb)
	if err != nil {
		return nil, err
	}
	return s.manager.Get(sel)
}

// Update implements process.Process.
func (s *service) Update(_ context.Context, req *connect.Request[processpb.UpdateRequest]) (*connect.Response[processpb.UpdateResponse], error) {
	p, err := s.find(req.Msg.GetProcess())
	if err == nil && req.Msg.Pty != nil {
		err = p.Resize(size(req.Msg.GetPty()))
	}
	return connect.NewResponse(&processpb.UpdateResponse{}), toConnect(err)
}

// SendInput implements process.Process.
func (s *service) SendInput(ctx context.Context, req *connect.Request[processpb.SendInputRequest]) (*connect.Response[processpb.SendInputResponse], error) {
	p, err := s.find(req.Msg.GetProcess())
	if err == nil {
		err = write(ctx, p, req.Msg.GetInput())
	}
	return connect.NewResponse(&processpb.SendInputResponse{}), toConnect(err)
}

func write(ctx context.Context, p *process.Process, pb *processpb.ProcessInput) error {
	input, terminal, err := data(pb)
	if err != nil {
		return err
	}
	return p.Write(ctx, input, terminal)
}

// StreamInput implements process.Process.
func (s *service) StreamInput(ctx context.Context, in *connect.ClientStream[processpb.StreamInputRequest]) (*connect.Response[processpb.StreamInputResponse], error) {
	var p *process.Process
	for in.Receive() {
		var err error
		switch e := in.Msg().GetEvent().(type) {
		case *processpb.StreamInputRequest_Start:
			p, err = s.find(e.Start.GetProcess())
		case *processpb.StreamInputRequest_Data:
			if p == nil {
				return nil, toConnect(fault.New(errs.ErrInvalid, "the first message must be start, with the process"))
			}
			err = write(ctx, p, e.Data.GetInput())
		case *processpb.StreamInputRequest_Keepalive:
		default:
			err = fault.New(errs.ErrInvalid, "a message is start, data or keepalive; none is there")
		}
		if err != nil {
			return nil, toConnect(err)
		}
	}
	if err := in.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, toConnect(err)
	}
	return connect.NewResponse(&processpb.StreamInputResponse{}), nil
}

// SendSignal implements process.Process.
func (s *service) SendSignal(_ context.Context, req *connect.Request[processpb.SendSignalRequest]) (*connect.Response[processpb.SendSignalResponse], error) {
	p, err := s.find(req.Msg.GetProcess())
	if err != nil {
		return nil, toConnect(err)
	}
	sig, err := signal(req.Msg.GetSignal())
	if err == nil {
		err = p.Signal(sig)
	}
	return connect.NewResponse(&processpb.SendSignalResponse{}), toConnect(err)
}

// CloseStdin implements process.Process.
func (s *service) CloseStdin(ctx context.Context, req *connect.Request[processpb.CloseStdinRequest]) (*connect.Response[processpb.CloseStdinResponse], error) {
	p, err := s.find(req.Msg.GetProcess())
	if err == nil {
		err = p.CloseInput(ctx)
	}
	return connect.NewResponse(&processpb.CloseStdinResponse{}), toConnect(err)
}
