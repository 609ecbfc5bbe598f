// Package api answers the REST API: openapi/*.yaml says what each call takes and does, and internal/server/control does it.
//
//	handler, err := api.New(api.Config{Store: s, Control: c, Auth: a, Log: log})
//
// A request passes, in this order: a request id and a line in the log; a bound on its body; the router; the API key and its scope; the document, which
// refuses what it does not describe; the idempotency key; the operation. Whatever goes wrong on the way leaves through writeError.
package api

import (
	"fmt"
	"log/slog"
	"net/http"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/extend"
	"wrenn.dev/wrenn/internal/server/hooks"
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
	// Log gets a line of each request; nil is slog's default.
	Log *slog.Logger
}

// server implements rest.StrictServerInterface.
type server struct {
	Config
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
	s := &server{c}
	strict := rest.NewStrictHandlerWithOptions(s, nil, rest.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  func(w http.ResponseWriter, r *http.Request, err error) { writeError(w, r, badRequest(err)) },
		ResponseErrorHandlerFunc: writeError,
	})
	routes := &router{mux: http.NewServeMux(), wrap: s.guarded, ops: doc.Operations}
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
	return observed(c.Log, routes), nil
}

// mount has a mux answer what extensions add, behind what every request passes but for the document, which does not know it.
func (s *server) mount(mux *http.ServeMux) func(pattern, scope string, h http.Handler) {
	return func(pattern, scope string, h http.Handler) {
		mux.Handle(pattern, s.authenticated(&contract.Operation{ID: pattern, Scope: scope}, withCaller(h)))
	}
}

// withCaller tells an extension who calls.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who, ok := r.Context().Value(identityKey{}).(auth.Identity); ok {
			r = r.WithContext(extension.WithCaller(r.Context(), extension.Identity{Team: who.Team, Key: who.Key}))
		}
		next.ServeHTTP(w, r)
	})
}

// guarded is an operation behind what every request passes before it.
func (s *server) guarded(op *contract.Operation, h http.Handler) http.Handler {
	h = s.once(op, h)
	h = s.checked(op, h)
	return s.authenticated(op, h)
}
