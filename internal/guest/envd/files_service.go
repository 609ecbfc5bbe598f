package envd

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/guest/envd/filesystem"
	"wrenn.dev/wrenn/internal/guest/envd/user"
	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
)

// filesService is the RPC side of the files. It converts and maps; what it does is done in package filesystem.
type filesService struct {
	files *filesystem.Manager
	users user.DB
}

// maxFilesMessage bounds a request: the longest has two paths.
const maxFilesMessage = 64 << 10

// one makes the answer of a call that ends with an entry.
func one[M any](e filesystem.Entry, err error, answer func(*filesystempb.EntryInfo) *M) (*connect.Response[M], error) {
	if err != nil {
		return nil, toConnect(err)
	}
	return connect.NewResponse(answer(entry(&e))), nil
}

// Stat implements filesystem.Filesystem.
func (s *filesService) Stat(ctx context.Context, req *connect.Request[filesystempb.StatRequest]) (*connect.Response[filesystempb.StatResponse], error) {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return nil, toConnect(err)
	}
	e, err := s.files.Stat(ctx, u, req.Msg.GetPath())
	return one(e, err, func(e *filesystempb.EntryInfo) *filesystempb.StatResponse {
		return &filesystempb.StatResponse{Entry: e}
	})
}

// MakeDir implements filesystem.Filesystem.
func (s *filesService) MakeDir(ctx context.Context, req *connect.Request[filesystempb.MakeDirRequest]) (*connect.Response[filesystempb.MakeDirResponse], error) {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return nil, toConnect(err)
	}
	e, err := s.files.MakeDir(ctx, u, req.Msg.GetPath())
	return one(e, err, func(e *filesystempb.EntryInfo) *filesystempb.MakeDirResponse {
		return &filesystempb.MakeDirResponse{Entry: e}
	})
}

// Move implements filesystem.Filesystem.
func (s *filesService) Move(ctx context.Context, req *connect.Request[filesystempb.MoveRequest]) (*connect.Response[filesystempb.MoveResponse], error) {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return nil, toConnect(err)
	}
	e, err := s.files.Move(ctx, u, req.Msg.GetSource(), req.Msg.GetDestination())
	return one(e, err, func(e *filesystempb.EntryInfo) *filesystempb.MoveResponse {
		return &filesystempb.MoveResponse{Entry: e}
	})
}

// ListDir implements filesystem.Filesystem.
func (s *filesService) ListDir(ctx context.Context, req *connect.Request[filesystempb.ListDirRequest]) (*connect.Response[filesystempb.ListDirResponse], error) {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return nil, toConnect(err)
	}
	list, err := s.files.List(ctx, u, req.Msg.GetPath(), req.Msg.GetDepth())
	if err != nil {
		return nil, toConnect(err)
	}
	resp := &filesystempb.ListDirResponse{}
	for i := range list {
		resp.Entries = append(resp.Entries, entry(&list[i]))
	}
	return connect.NewResponse(resp), nil
}

// Remove implements filesystem.Filesystem.
func (s *filesService) Remove(ctx context.Context, req *connect.Request[filesystempb.RemoveRequest]) (*connect.Response[filesystempb.RemoveResponse], error) {
	u, err := requestUser(req.Header(), s.users)
	if err == nil {
		err = s.files.Remove(ctx, u, req.Msg.GetPath())
	}
	return connect.NewResponse(&filesystempb.RemoveResponse{}), toConnect(err)
}

// watching is what the two requests that begin to watch have.
type watching interface {
	GetPath() string
	GetRecursive() bool
	GetIncludeEntry() bool
	GetAllowNetworkMounts() bool
}

func watchOptions(m watching) filesystem.WatchOptions {
	return filesystem.WatchOptions{Path: m.GetPath(), Recursive: m.GetRecursive(), Entries: m.GetIncludeEntry(), Network: m.GetAllowNetworkMounts()}
}

// WatchDir implements filesystem.Filesystem.
func (s *filesService) WatchDir(ctx context.Context, req *connect.Request[filesystempb.WatchDirRequest],
	out *connect.ServerStream[filesystempb.WatchDirResponse]) error {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return toConnect(err)
	}
	w, err := s.files.Watch(ctx, u, watchOptions(req.Msg))
	if err != nil {
		return toConnect(err)
	}
	defer w.Close()
	return toConnect(follow(ctx, w, keepalive(req.Header()), out.Send))
}

// follow sends the start, what happens, and a keepalive after each silence, until the watch or ctx ends.
func follow(ctx context.Context, w *filesystem.Watch, silence time.Duration, send func(*filesystempb.WatchDirResponse) error) error {
	start := &filesystempb.WatchDirResponse_Start{Start: &filesystempb.WatchDirResponse_StartEvent{}}
	if err := send(&filesystempb.WatchDirResponse{Event: start}); err != nil {
		return err
	}
	silent := time.NewTicker(silence)
	defer silent.Stop()
	for {
		select {
		case <-w.Ready():
			events, err := w.Take()
			if err != nil {
				return err
			}
			for i := range events {
				if err := send(&filesystempb.WatchDirResponse{Event: &filesystempb.WatchDirResponse_Filesystem{Filesystem: change(&events[i])}}); err != nil {
					return err
				}
			}
			silent.Reset(silence)
		case <-silent.C:
			alive := &filesystempb.WatchDirResponse_Keepalive{Keepalive: &filesystempb.WatchDirResponse_KeepAlive{}}
			if err := send(&filesystempb.WatchDirResponse{Event: alive}); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// CreateWatcher implements filesystem.Filesystem.
func (s *filesService) CreateWatcher(ctx context.Context, req *connect.Request[filesystempb.CreateWatcherRequest]) (*connect.Response[filesystempb.CreateWatcherResponse], error) {
	u, err := requestUser(req.Header(), s.users)
	if err != nil {
		return nil, toConnect(err)
	}
	id, err := s.files.CreateWatcher(ctx, u, watchOptions(req.Msg))
	return connect.NewResponse(&filesystempb.CreateWatcherResponse{WatcherId: id}), toConnect(err)
}

// GetWatcherEvents implements filesystem.Filesystem.
func (s *filesService) GetWatcherEvents(_ context.Context, req *connect.Request[filesystempb.GetWatcherEventsRequest]) (*connect.Response[filesystempb.GetWatcherEventsResponse], error) {
	events, err := s.files.WatcherEvents(req.Msg.GetWatcherId())
	resp := &filesystempb.GetWatcherEventsResponse{}
	for i := range events {
		resp.Events = append(resp.Events, change(&events[i]))
	}
	return connect.NewResponse(resp), toConnect(err)
}

// RemoveWatcher implements filesystem.Filesystem.
func (s *filesService) RemoveWatcher(_ context.Context, req *connect.Request[filesystempb.RemoveWatcherRequest]) (*connect.Response[filesystempb.RemoveWatcherResponse], error) {
	err := s.files.RemoveWatcher(req.Msg.GetWatcherId())
	return connect.NewResponse(&filesystempb.RemoveWatcherResponse{}), toConnect(err)
}
