// Package rpc serves an agent over Connect: proto/hostagent/v1 says what each call does.
//
//	handler := rpc.Handler(agent)
//	err := rpc.Serve(ctx, handler, rpc.Unix(path), …)
//
// Every request is checked against the bounds in the proto before its handler sees it, and every error leaves through wire.Encode.
package rpc

import (
	"context"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/idempotency"
	"wrenn.dev/wrenn/internal/hostagent/wire"
	"wrenn.dev/wrenn/proto/hostagent/v1/hostagentpbconnect"
)

// maxMessage bounds one request.
const maxMessage = 2 << 20

// Handler is the agent's calls, its metrics on /metrics, and the ports of guests.
func Handler(a *hostagent.Agent) http.Handler {
	// Nothing is compressed: it would take CPU time from sandboxes, and let the output of a command that nobody reads grow in buffers.
	options := []connect.HandlerOption{connect.WithInterceptors(wire.Checked{}), connect.WithReadMaxBytes(maxMessage),
		connect.WithCompression("gzip", nil, nil)}
	mux := http.NewServeMux()
	mux.Handle(hostagentpbconnect.NewSandboxesServiceHandler(&sandboxes{a}, options...))
	mux.Handle(hostagentpbconnect.NewSnapshotsServiceHandler(&snapshots{a}, options...))
	mux.Handle(hostagentpbconnect.NewProcessesServiceHandler(&processes{a}, options...))
	files, filesHandler := hostagentpbconnect.NewFilesServiceHandler(&files{a}, options...)
	mux.Handle(files, interruptible(filesHandler))
	mux.Handle(hostagentpbconnect.NewHostServiceHandler(&host{a}, options...))
	mux.Handle("GET /metrics", Metrics(a))
	mux.Handle("GET /ports/{sandbox}/{port}", ports(a))
	return mux
}

// keyed is a request that may have an idempotency key.
type keyed interface {
	proto.Message
	GetIdempotencyKey() string
}

// message is a pointer to a message of the type T.
type message[T any] interface {
	*T
	proto.Message
}

// once calls fn, with the name of the request's idempotency key or "". To a request whose key was seen before it answers as then.
func once[T any, R message[T]](ctx context.Context, a *hostagent.Agent, req keyed, fn func(ctx context.Context, key string) (R, error)) (*connect.Response[T], error) {
	if req.GetIdempotencyKey() == "" {
		resp, err := fn(ctx, "")
		if err != nil {
			return nil, err
		}
		return connect.NewResponse((*T)(resp)), nil
	}
	// Two kinds of requests may be given the same key.
	key := string(req.ProtoReflect().Descriptor().FullName()) + "\x00" + req.GetIdempotencyKey()
	asked, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	answer, err := a.Keys().Do(ctx, key, asked, func(ctx context.Context) ([]byte, error) {
		resp, err := fn(ctx, idempotency.Name(key))
		if err != nil {
			return nil, err
		}
		return proto.Marshal(resp)
	})
	if err != nil {
		return nil, err
	}
	resp := R(new(T))
	if err := proto.Unmarshal(answer, resp); err != nil {
		return nil, fmt.Errorf("the answer that was kept for the idempotency key: %w: %w", err, errs.ErrCorrupt)
	}
	return connect.NewResponse((*T)(resp)), nil
}
