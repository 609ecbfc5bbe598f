package wire

import (
	"context"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// Checked is a handler's interceptor that has every request pass through Check before its handler sees it, and every error leave through Encode.
type Checked struct{}

// WrapUnary implements connect.Interceptor.
func (Checked) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if msg, ok := req.Any().(proto.Message); ok {
			if err := Check(msg); err != nil {
				return nil, Encode(err)
			}
		}
		resp, err := next(ctx, req)
		return resp, Encode(err)
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (Checked) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return Encode(next(ctx, &checkedConn{conn}))
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (Checked) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

type checkedConn struct{ connect.StreamingHandlerConn }

// Receive implements connect.StreamingHandlerConn.
func (c *checkedConn) Receive(msg any) error {
	if err := c.StreamingHandlerConn.Receive(msg); err != nil {
		return err
	}
	if m, ok := msg.(proto.Message); ok {
		return Encode(Check(m))
	}
	return nil
}
