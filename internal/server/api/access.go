package api

import (
	"context"
	"net/http"
	"net/netip"
	"strings"

	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/contract"
)

type identityKey struct{}

// team is the caller's. Every operation that asks for it has a scope in the document, and so a caller.
func team(ctx context.Context) string {
	return ctx.Value(identityKey{}).(auth.Identity).Team
}

// authenticated lets a request pass whose key is good for the operation.
func (s *server) authenticated(op *contract.Operation, next http.Handler) http.Handler {
	if op.Scope == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.Auth.Check(r.Context(), remote(r), bearer(r))
		if err == nil {
			err = who.May(op.Scope)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
	})
}

// bearer is the key that a request carries, or nothing.
func bearer(r *http.Request) string {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}

// remote is where a request comes from. Headers that say otherwise are not believed: anybody can send them.
func remote(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero address is one caller as well
	return a.Addr()
}
