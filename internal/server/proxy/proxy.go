// Package proxy lets requests through to the ports of sandboxes, by the name that they are sent to.
//
//	p := proxy.New(proxy.Config{Domain: domain, Sandboxes: control, Log: log})
//	server.Handler = p.Handler(api)      // what is no port's goes on to the API
//
// A request passes, in this order: which port it means (target.go); the route to its sandbox, which is kept for a second (routes.go); an access
// token, unless the sandbox is public (access.go); a bound on how many are under way; the sandbox's waking, if it is paused and resumes by itself; and
// then it goes on, streamed both ways (forward.go). What stops it there is told as JSON, or to a person as a page (answer.go).
//
// Both ends are hostile: who asks may be anybody, and so may be what answers. Headers that say where a request comes from are ours alone, our
// tokens do not reach the sandbox, and nothing that a sandbox answers is acted upon here.
package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"

	"golang.org/x/sync/singleflight"

	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/store"
)

// Sandboxes is where requests go; *control.Control is one.
type Sandboxes interface {
	// Route is what lets requests through to a sandbox. ErrNotFound when there is none.
	Route(ctx context.Context, sandbox string) (store.Route, error)
	// Wake returns when the sandbox runs.
	Wake(ctx context.Context, sandbox string) error
	// Dial connects to a port, on the host that the route names, see client.Client.Dial.
	Dial(ctx context.Context, route store.Route, port int) (net.Conn, error)
}

// Config is what a Proxy works with.
type Config struct {
	Domain    portname.Domain
	Sandboxes Sandboxes
	// Log gets what goes wrong here and not in a sandbox; nil is slog's default.
	Log *slog.Logger
}

// Proxy forwards requests. Its methods may be called from several goroutines.
type Proxy struct {
	Config
	routes *routes
	waking singleflight.Group
	limit  *limit
	close  []func()
	// Where a request goes: those of gRPC, plain ones, and all others.
	grpc, other *httputil.ReverseProxy
	pool        *pool
	buffers     buffers
}

// New returns one that forwards nothing yet.
func New(c Config) *Proxy {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	p := &Proxy{Config: c, routes: newRoutes(c.Sandboxes.Route), limit: newLimit(maxUnderWay)}
	one, two := p.transport(false), p.transport(true)
	p.other, p.grpc, p.pool = p.reverse(one), p.reverse(two), newPool(p.dial)
	p.close = []func(){one.CloseIdleConnections, two.CloseIdleConnections, p.pool.close}
	return p
}

// Close gives up the connections that no request uses.
func (p *Proxy) Close() {
	for _, fn := range p.close {
		fn()
	}
}

// Handler forwards what is for a port, and gives the rest to next: a host that is not below the domain, or is below it the server's own. That
// may be any name: a page of somebody else's that has its name lead here reaches nothing by that, because next asks for a key, which no browser
// adds by itself.
func (p *Proxy) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, ours, err := p.target(r)
		switch {
		case err != nil:
			p.refuse(w, r, portname.Target{}, &refusal{status: http.StatusBadRequest, title: "No such address", message: err.Error()})
		case !ours:
			next.ServeHTTP(w, r)
		default:
			p.serve(w, r, t)
		}
	})
}

// serve lets a request through to a port, or says why not.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, t portname.Target) {
	route, no := p.admit(w, r, t)
	if no != nil {
		p.refuse(w, r, t, no)
		return
	}
	if route == nil {
		return // it is answered
	}
	done, ok := p.limit.enter(t.Sandbox)
	if !ok {
		p.refuse(w, r, t, &tooMany)
		return
	}
	defer done()
	if no := p.awake(r.Context(), *route); no != nil {
		p.refuse(w, r, t, no)
		return
	}
	p.pass(w, r, t)
}
