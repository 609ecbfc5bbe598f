// Package api answers the REST API: openapi/*.yaml says what each call takes and does, and internal/server/control does it.
//
//	handler, err := api.New(api.Config{Store: s, Control: c, Auth: a, Log: log})
//
// A request passes, in this order: a request id and a line in the log; the router; the API key and how often it asks; its record in the audit log,
// which is written when it is answered; the key's scope; the document, which refuses what it does not describe and bounds the body, unless that is
// bytes; the idempotency key; the operation. Whatever goes wrong on the way leaves through writeError.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/extend"
	"wrenn.dev/wrenn/internal/server/hooks"
	"wrenn.dev/wrenn/internal/server/hosts"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/openapi"
)

// Config is what the API works with.
type Config struct {
	Store   *store.Store
	Control *control.Control
	Auth    *auth.Auth
	// Targets says where webhooks' messages may go.
	Targets hooks.Targets
	// Extensions add routes of theirs; nil adds none.
	Extensions *extend.Set
	// Hosts makes the tokens by which machines join.
	Hosts *hosts.Hosts
	// Observe, unless nil, is told of each request that was answered, with the document's id of its operation or "".
	Observe func(operation string, status int, took time.Duration)
	// Domain is where sandboxes' ports are.
	Domain portname.Domain
	// Log gets a line of each request; nil is slog's default.
	Log *slog.Logger
}

// server implements rest.StrictServerInterface.
type server struct {
	Config
	doc *contract.Document
}

var _ rest.StrictServerInterface = (*server)(nil)

// New returns the API's handler.
func New(c Config) (http.Handler, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	doc, err := contract.Load(openapi.JSON)
	if err != nil {
		return nil, fmt.Errorf("the API's document: %w", err)
	}
	s := &server{c, doc}
	strict := rest.NewStrictHandlerWithOptions(s, []rest.StrictMiddlewareFunc{withRequest}, rest.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  func(w http.ResponseWriter, r *http.Request, err error) { writeError(w, r, badRequest(err)) },
		ResponseErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) { writeError(w, r, fromGuest(err)) },
	})
	routes := &router{mux: http.NewServeMux(), wrap: s.guarded, ops: doc.Operations, literal: map[string]bool{}}
	rest.HandlerWithOptions(strict, rest.StdHTTPServerOptions{BaseRouter: routes,
		ErrorHandlerFunc: func(w http.ResponseWriter, r *http.Request, err error) { writeError(w, r, badRequest(err)) }})
	if routes.err != nil {
		return nil, routes.err
	}
	if c.Extensions != nil {
		if err := c.Extensions.Mount(s.mount(routes.mux)); err != nil {
			return nil, err
		}
	}
	return observed(c, routes), nil
}

type requestKey struct{}

// withRequest has an operation find its request in its context, for what the generated code passes over.
func withRequest(next rest.StrictHandlerFunc, _ string) rest.StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		return next(context.WithValue(ctx, requestKey{}, r), w, r, request)
	}
}

// requestOf is the request that an operation is asked by.
func requestOf(ctx context.Context) *http.Request { return ctx.Value(requestKey{}).(*http.Request) }

// headOnly answers HEAD of what else would go on: with the headers alone.
func headOnly(ctx context.Context, w http.ResponseWriter, contentType string) bool {
	if requestOf(ctx).Method != http.MethodHead {
		return false
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	return true
}

// guarded is an operation behind what every request passes before it.
func (s *server) guarded(op *contract.Operation, h http.Handler) http.Handler {
	h = s.once(op, h)
	h = s.checked(op, h)
	return s.known(op, h)
}

// known is an operation for callers who are known and may ask for it.
func (s *server) known(op *contract.Operation, h http.Handler) http.Handler {
	h = s.permitted(op, h)
	h = s.audited(op, h)
	return named(op, s.authenticated(op, h))
}
