package client

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// pieceBytes is how much of a file is sent at once.
const pieceBytes = 256 << 10

// ReadFile writes a file's content, or the range of it that the request names, and returns how many bytes it wrote. What was written
// before an error is not the whole. An error of w is returned as it is.
func (c *Client) ReadFile(ctx context.Context, req *pb.ReadFileRequest, w io.Writer) (n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.content.ReadFile(ctx, connect.NewRequest(req))
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	for stream.Receive() {
		data := stream.Msg().GetData()
		if req.GetLength() > 0 && uint64(n)+uint64(len(data)) > req.GetLength() {
			return n, fmt.Errorf("the agent sent more of %s than was asked for: %w", req.GetPath(), errs.ErrUnavailable)
		}
		written, err := w.Write(data)
		n += int64(written)
		if err != nil {
			return n, err
		}
	}
	return n, stream.Err()
}

// WriteFile stores what r has as a file, whole or not at all, and returns how many bytes that are. An error of r is returned as it is.
func (c *Client) WriteFile(ctx context.Context, start *pb.WriteFileRequest_Start, r io.Reader) (n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.Files.WriteFile(ctx)
	err = stream.Send(&pb.WriteFileRequest{Part: &pb.WriteFileRequest_Start_{Start: start}})
	buf := make([]byte, pieceBytes)
	for err == nil {
		some, rerr := fill(r, buf)
		if some > 0 {
			n += int64(some)
			err = stream.Send(&pb.WriteFileRequest{Part: &pb.WriteFileRequest_Data{Data: buf[:some]}})
		}
		switch {
		case rerr == io.EOF:
			return c.endFile(stream, n, err)
		case rerr != nil:
			cancel()
			_, _ = stream.CloseAndReceive() // without the end's message, nothing is stored
			return n, rerr
		}
	}
	return c.endFile(stream, n, err)
}

// fill reads until the buffer is full or the reader has no more. The error is the reader's own, also after some bytes.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var some int
		some, err = r.Read(buf[n:])
		n += some
	}
	return n, err
}

// endFile sends the end, unless the agent has answered already, and returns its answer.
func (c *Client) endFile(stream *connect.ClientStreamForClient[pb.WriteFileRequest, pb.WriteFileResponse], n int64, err error) (int64, error) {
	if err == nil {
		err = stream.Send(&pb.WriteFileRequest{Part: &pb.WriteFileRequest_End_{End: &pb.WriteFileRequest_End{Bytes: uint64(n)}}})
	}
	resp, aerr := stream.CloseAndReceive()
	switch {
	case aerr != nil:
		return n, aerr
	case err != nil:
		return n, err
	case resp.Msg.GetBytes() != uint64(n):
		return n, fmt.Errorf("the agent stored %d of %d bytes: %w", resp.Msg.GetBytes(), n, errs.ErrUnavailable)
	}
	return n, nil
}

// WatchFiles tells of what happens in a folder until ctx ends or tell fails; that is its error then. Begun is called once everything from
// then on is told.
func (c *Client) WatchFiles(ctx context.Context, req *pb.WatchFilesRequest, begun func(), tell func(*pb.WatchFilesResponse_Changed) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Files.WatchFiles(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer stream.Close()
	for first := true; stream.Receive(); first = false {
		if first {
			begun()
		}
		if e := stream.Msg().GetChanged(); e != nil {
			if err := tell(e); err != nil {
				return err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the stream ended without a reason: %w", errs.ErrUnavailable)
}
