package control

import (
	"context"
	"io"

	"connectrpc.com/connect"

	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// StatFile tells of one entry of the sandbox's files, without following a symbolic link at the path's end. So do the other methods on files as
// their namesakes in the agent's FilesService; an empty user is the guest's default one.
func (r *Running) StatFile(ctx context.Context, user, path string) (*pb.File, error) {
	resp, err := r.host.Files.StatFile(ctx, connect.NewRequest(&pb.StatFileRequest{Id: r.id, User: user, Path: path}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetFile(), nil
}

// ListFiles tells of what is in a folder, depth levels of it.
func (r *Running) ListFiles(ctx context.Context, user, path string, depth uint32) ([]*pb.File, error) {
	resp, err := r.host.Files.ListFiles(ctx, connect.NewRequest(&pb.ListFilesRequest{Id: r.id, User: user, Path: path, Depth: depth}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetFiles(), nil
}

// MakeDir makes a folder and those above it.
func (r *Running) MakeDir(ctx context.Context, user, path string) error {
	_, err := r.host.Files.MakeDir(ctx, connect.NewRequest(&pb.MakeDirRequest{Id: r.id, User: user, Path: path}))
	return err
}

// MoveFile gives an entry another name.
func (r *Running) MoveFile(ctx context.Context, user, from, to string) error {
	_, err := r.host.Files.MoveFile(ctx, connect.NewRequest(&pb.MoveFileRequest{Id: r.id, User: user, Source: from, Destination: to}))
	return err
}

// RemoveFile removes an entry with all that is in it.
func (r *Running) RemoveFile(ctx context.Context, user, path string) error {
	_, err := r.host.Files.RemoveFile(ctx, connect.NewRequest(&pb.RemoveFileRequest{Id: r.id, User: user, Path: path}))
	return err
}

// WatchFiles tells of what happens in a folder until ctx ends or tell fails, as client.Client.WatchFiles does.
func (r *Running) WatchFiles(ctx context.Context, req *pb.WatchFilesRequest, begun func(), tell func(*pb.WatchFilesResponse_Changed) error) error {
	req.Id = r.id
	return r.host.WatchFiles(ctx, req, begun, tell)
}

// ReadFile writes a file's content, or a range of it, to w, as client.Client.ReadFile does.
func (r *Running) ReadFile(ctx context.Context, req *pb.ReadFileRequest, w io.Writer) (int64, error) {
	req.Id = r.id
	return r.host.ReadFile(ctx, req, w)
}

// WriteFile stores what content has as a file, whole or not at all, and returns how many bytes that are.
func (r *Running) WriteFile(ctx context.Context, start *pb.WriteFileRequest_Start, content io.Reader) (int64, error) {
	start.Id = r.id
	return r.host.WriteFile(ctx, start, content)
}
