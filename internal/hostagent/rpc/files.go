package rpc

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// files implements FilesService.
type files struct{ a *hostagent.Agent }

var fileTypes = map[client.Type]pb.FileType{
	client.File: pb.FileType_FILE_TYPE_FILE, client.Directory: pb.FileType_FILE_TYPE_DIRECTORY, client.Symlink: pb.FileType_FILE_TYPE_SYMLINK,
}

var fileChanges = map[client.Change]pb.FileChange{
	client.Created: pb.FileChange_FILE_CHANGE_CREATED, client.Written: pb.FileChange_FILE_CHANGE_WRITTEN,
	client.Removed: pb.FileChange_FILE_CHANGE_REMOVED, client.Renamed: pb.FileChange_FILE_CHANGE_RENAMED,
	client.Chmodded: pb.FileChange_FILE_CHANGE_CHMODDED,
}

func toFile(e client.Entry) *pb.File {
	f := &pb.File{Name: e.Name, Path: e.Path, Inexact: !e.Exact, Type: fileTypes[e.Type], Mode: uint32(e.Mode.Perm()), Size: uint64(e.Size),
		Owner: e.Owner, Group: e.Group, SymlinkTarget: e.Target}
	if !e.Modified.IsZero() {
		f.Modified = timestamppb.New(e.Modified)
	}
	return f
}

// StatFile implements FilesService.
func (f *files) StatFile(ctx context.Context, req *connect.Request[pb.StatFileRequest]) (*connect.Response[pb.StatFileResponse], error) {
	e, err := f.a.StatFile(ctx, req.Msg.GetId(), req.Msg.GetUser(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StatFileResponse{File: toFile(e)}), nil
}

// ListFiles implements FilesService.
func (f *files) ListFiles(ctx context.Context, req *connect.Request[pb.ListFilesRequest]) (*connect.Response[pb.ListFilesResponse], error) {
	m := req.Msg
	list, err := f.a.ListFiles(ctx, m.GetId(), m.GetUser(), m.GetPath(), m.GetDepth())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListFilesResponse{Files: make([]*pb.File, 0, len(list))}
	for _, e := range list {
		resp.Files = append(resp.Files, toFile(e))
	}
	return connect.NewResponse(resp), nil
}

// MakeDir implements FilesService.
func (f *files) MakeDir(ctx context.Context, req *connect.Request[pb.MakeDirRequest]) (*connect.Response[pb.MakeDirResponse], error) {
	if err := f.a.MakeDir(ctx, req.Msg.GetId(), req.Msg.GetUser(), req.Msg.GetPath()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.MakeDirResponse{}), nil
}

// MoveFile implements FilesService.
func (f *files) MoveFile(ctx context.Context, req *connect.Request[pb.MoveFileRequest]) (*connect.Response[pb.MoveFileResponse], error) {
	m := req.Msg
	if err := f.a.MoveFile(ctx, m.GetId(), m.GetUser(), m.GetSource(), m.GetDestination()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.MoveFileResponse{}), nil
}

// RemoveFile implements FilesService.
func (f *files) RemoveFile(ctx context.Context, req *connect.Request[pb.RemoveFileRequest]) (*connect.Response[pb.RemoveFileResponse], error) {
	if err := f.a.RemoveFile(ctx, req.Msg.GetId(), req.Msg.GetUser(), req.Msg.GetPath()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveFileResponse{}), nil
}

// WatchFiles implements FilesService.
func (f *files) WatchFiles(ctx context.Context, req *connect.Request[pb.WatchFilesRequest], stream *connect.ServerStream[pb.WatchFilesResponse]) error {
	m := req.Msg
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	send := func(msg *pb.WatchFilesResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return stream.Send(msg)
	}
	alive := func() error {
		return send(&pb.WatchFilesResponse{What: &pb.WatchFilesResponse_KeepAlive_{KeepAlive: &pb.WatchFilesResponse_KeepAlive{}}})
	}
	var asking sync.WaitGroup
	err := f.a.WatchFiles(ctx, m.GetId(), m.GetUser(), m.GetPath(), m.GetRecursive(), func() error {
		asking.Go(func() { repeat(ctx, cancel, alive) })
		return alive()
	}, func(e client.Event) error {
		return send(&pb.WatchFilesResponse{What: &pb.WatchFilesResponse_Changed_{Changed: &pb.WatchFilesResponse_Changed{
			Name: e.Name, Change: fileChanges[e.Change]}}})
	})
	cancel(nil)
	asking.Wait()
	return err
}

// pieceBytes is how much of a file is sent at once: a guest's network delivers less.
const pieceBytes = 128 << 10

// pieces sends what is written to it.
type pieces struct {
	stream *connect.ServerStream[pb.ReadFileResponse]
}

// Write implements io.Writer.
func (p pieces) Write(data []byte) (int, error) {
	if err := p.stream.Send(&pb.ReadFileResponse{Data: data}); err != nil {
		return 0, err
	}
	return len(data), nil
}

// ReadFile implements FilesService.
func (f *files) ReadFile(ctx context.Context, req *connect.Request[pb.ReadFileRequest], stream *connect.ServerStream[pb.ReadFileResponse]) error {
	m := req.Msg
	length := int64(-1)
	if m.GetLength() > 0 {
		length = int64(m.GetLength())
	}
	w := bufio.NewWriterSize(pieces{stream}, pieceBytes)
	if _, err := f.a.ReadFile(ctx, m.GetId(), m.GetUser(), m.GetPath(), int64(m.GetOffset()), length, w); err != nil {
		return err
	}
	return w.Flush()
}

// WriteFile implements FilesService.
func (f *files) WriteFile(ctx context.Context, stream *connect.ClientStream[pb.WriteFileRequest]) (*connect.Response[pb.WriteFileResponse], error) {
	if !stream.Receive() {
		return nil, cmp.Or(stream.Err(), errNoStart)
	}
	start := stream.Msg().GetStart()
	if start == nil {
		return nil, errNoStart
	}
	var mode *fs.FileMode
	if start.Mode != nil {
		m := fs.FileMode(start.GetMode())
		mode = &m
	}
	content := &content{stream: stream}
	if err := f.a.WriteFile(ctx, start.GetId(), start.GetUser(), start.GetPath(), content, mode); err != nil {
		content.stop(ctx)
		return nil, err
	}
	return connect.NewResponse(&pb.WriteFileResponse{Bytes: content.taken}), nil
}

var errNoEnd = errs.Field("end", "the stream ended without it", "send it last")

var errNoStart = errs.Field("start", "the first message has none", "send it first, and its content after it")

// content is the content of a file that comes in a stream.
type content struct {
	stream *connect.ClientStream[pb.WriteFileRequest]

	mu    sync.Mutex // held by a Read
	rest  []byte
	taken uint64
	err   error // of all Reads from now on
}

// Read implements io.Reader. It ends without an error only after the end's message.
func (c *content) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.rest) == 0 {
		c.rest, c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n := copy(p, c.rest)
	c.rest, c.taken = c.rest[n:], c.taken+uint64(n)
	return n, nil
}

// next is the next piece.
func (c *content) next() ([]byte, error) {
	if !c.stream.Receive() {
		return nil, fmt.Errorf("the content broke off: %w", cmp.Or(c.stream.Err(), errNoEnd))
	}
	msg := c.stream.Msg()
	switch {
	case msg.GetStart() != nil:
		return nil, errs.Field("start", "there is a second one", "send it first and once")
	case msg.GetEnd() == nil:
		return msg.GetData(), nil
	case msg.GetEnd().GetBytes() != c.taken:
		return nil, errs.Field("end.bytes", fmt.Sprintf("it is %d after %d bytes of content", msg.GetEnd().GetBytes(), c.taken), "send all of it")
	}
	return nil, io.EOF
}

// stop ends a Read that is under way and returns when there is none any more: the stream is its handler's alone, and only while that runs.
func (c *content) stop(ctx context.Context) {
	if control, ok := ctx.Value(controlKey{}).(*http.ResponseController); ok {
		_ = control.SetReadDeadline(time.Unix(1, 0)) // what can't be set is not there: a test's recorder
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = errOver
}

var errOver = errors.New("the call is over")

// controlKey is the key of a request's http.ResponseController in its context.
type controlKey struct{}

// interruptible has a handler find the controller of its response.
func interruptible(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, http.NewResponseController(w))))
	})
}
