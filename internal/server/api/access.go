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

// caller is who asks. Every operation that asks for it has a scope in the document, and so a caller.
func caller(ctx context.Context) auth.Identity { return ctx.Value(identityKey{}).(auth.Identity) }

// team is the caller's.
func team(ctx context.Context) string { return caller(ctx).Team }

// authenticated lets a request pass that has a good key, and whose team and key have not asked too often.
func (s *server) authenticated(op *contract.Operation, next http.Handler) http.Handler {
	if op.Scope == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret := bearer(r)
		if secret == "" && op.Upgrades {
			secret = offered(r)
		}
		who, err := s.Auth.Check(r.Context(), remote(r), secret)
		if err == nil {
			err = s.Auth.Allow(who)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, who)))
	})
}

// permitted lets a request pass whose key has the operation's scope.
func (s *server) permitted(op *contract.Operation, next http.Handler) http.Handler {
	if op.Scope == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := caller(r.Context()).May(op.Scope); err != nil {
			writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
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

// keyProtocol begins the subprotocol that a WebSocket's key is offered as.
const keyProtocol = "key."

// offered is the key that a request for a WebSocket offers as a subprotocol, or nothing: a browser can set no other header of it. It is never in the
// URL, which proxies and browsers keep.
func offered(r *http.Request) string {
	for _, value := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offer := range strings.SplitSeq(value, ",") {
			if secret, ok := strings.CutPrefix(strings.TrimSpace(offer), keyProtocol); ok {
				return secret
			}
		}
	}
	return ""
}

// remote is where a request comes from. Headers that say otherwise are not believed: anybody can send them.
func remote(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero address is one caller as well
	return a.Addr()
}
