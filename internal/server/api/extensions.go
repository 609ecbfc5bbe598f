package api

import (
	"net/http"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/contract"
)

// mount has a mux answer what extensions add, behind what every request passes but for the document, which does not know it.
func (s *server) mount(mux *http.ServeMux) func(pattern, scope string, h http.Handler) {
	return func(pattern, scope string, h http.Handler) {
		op := &contract.Operation{ID: pattern, Scope: scope}
		mux.Handle(pattern, s.known(op, withCaller(h)))
	}
}

// withCaller tells an extension who calls, and bounds the body.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who, ok := r.Context().Value(identityKey{}).(auth.Identity); ok {
			r = r.WithContext(extension.WithCaller(r.Context(), extension.Identity{Team: who.Team, Key: who.Key}))
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}
