package envd

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// gate lets through who shows the sandbox's token. Until it knows the token it lets nobody through.
type gate struct {
	identity atomic.Pointer[Identity]
	errors   *connect.ErrorWriter
}

func newGate() *gate { return &gate{errors: connect.NewErrorWriter()} }

// open tells the gate the token to ask for.
func (g *gate) open(id Identity) { g.identity.Store(&id) }

// check is nil for a request that shows the token.
func (g *gate) check(header http.Header) error {
	id := g.identity.Load()
	if id == nil || id.Token == "" {
		return fault.New(errs.ErrUnavailable, "the sandbox is starting: its access token is not known yet")
	}
	// Digests have one length, so that the comparison takes the same time for every wrong token.
	want, got := sha256.Sum256([]byte(id.Token)), sha256.Sum256([]byte(header.Get(headerToken)))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return fault.New(errs.ErrUnauthenticated,
			"unauthorized access, please provide a valid access token or method signing if supported")
	}
	return nil
}

// guard puts the gate before a handler. Nothing of a request's body is read before.
func (g *gate) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := g.check(r.Header); err != nil {
			g.refuse(w, r, err)
			return
		}
		normalizeTimeout(r.Header)
		next.ServeHTTP(w, r)
	})
}

// refuse writes an error in the protocol that the request speaks, or as plain JSON when it speaks none.
func (g *gate) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if g.errors.IsSupported(r) {
		_ = g.errors.Write(w, r, toConnect(err)) // fails when the client is gone
		return
	}
	status := http.StatusUnauthorized
	if errors.Is(err, errs.ErrUnavailable) {
		status = http.StatusServiceUnavailable
	}
	writeError(w, status, err.Error())
}

// writeError is the form of an error outside the RPCs.
func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": status, "message": message}) // fails when the client is gone
}
