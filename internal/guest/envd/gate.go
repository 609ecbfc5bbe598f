package envd

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"sync"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// gate lets through who shows the sandbox's token. Until it knows the token it lets nobody through, and again from the moment
// the sandbox is about to be frozen until it is awake.
//
// The token itself is not kept, but its digest. What is left of a token in memory that is free (the requests that showed it) is
// worth nothing once the gate is closed: it opens for another.
type gate struct {
	errors *connect.ErrorWriter

	mu      sync.Mutex
	opened  bool
	digest  [sha256.Size]byte // zero while the gate is closed
	closed  uint64            // how often it was closed: what was let in before may not start commands after
	pending int               // commands that are being started
	idle    chan struct{}     // closed when none is; nil unless somebody waits for it
}

func newGate() *gate { return &gate{errors: connect.NewErrorWriter()} }

// count says how often the gate was closed.
func (g *gate) count() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// open tells the gate the token to ask for. It is false, and changes nothing, when the gate was closed since count was read: the
// token is from before that.
func (g *gate) open(count uint64, token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != count || token == "" {
		return false
	}
	g.opened, g.digest = true, sha256.Sum256([]byte(token))
	return true
}

// close forgets the token and lets nobody through. It returns the new count, and a channel that is closed when no command is
// being started any more.
func (g *gate) close() (count uint64, idle <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = false
	clear(g.digest[:])
	g.closed++
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle = g.idle
	g.settle()
	return g.closed, idle
}

// settle tells who waits that no command is being started.
// Preconditions: mu is held.
func (g *gate) settle() {
	if g.pending == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// admission is the key under which a request's context has the count of when it was let in.
type admission struct{}

// hold lets a request start a command, until release is called. ErrUnavailable when the gate was closed since the request came in.
func (g *gate) hold(ctx context.Context) (release func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if count, ok := ctx.Value(admission{}).(uint64); !ok || !g.opened || count != g.closed {
		return nil, errFrozen
	}
	g.pending++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.pending--
		g.settle()
	}, nil
}

var errFrozen = fault.New(errs.ErrUnavailable, "the sandbox is frozen or starting")

// check is nil for a request that shows the token, and returns the count.
func (g *gate) check(header http.Header) (uint64, error) {
	g.mu.Lock()
	opened, want, count := g.opened, g.digest, g.closed
	g.mu.Unlock()
	switch {
	case !opened && count == 0:
		return 0, fault.New(errs.ErrUnavailable, "the sandbox is starting: its access token is not known yet")
	case !opened:
		return 0, errFrozen
	}
	// Digests have one length, so that the comparison takes the same time for every wrong token.
	got := sha256.Sum256([]byte(header.Get(headerToken)))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return 0, fault.New(errs.ErrUnauthenticated,
			"unauthorized access, please provide a valid access token or method signing if supported")
	}
	return count, nil
}

// guard puts the gate before a handler. Nothing of a request's body is read before.
func (g *gate) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count, err := g.check(r.Header)
		if err != nil {
			g.refuse(w, r, err)
			return
		}
		normalizeTimeout(r.Header)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), admission{}, count)))
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
