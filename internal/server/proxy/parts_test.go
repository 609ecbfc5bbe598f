package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/portname"
	"wrenn.dev/wrenn/internal/server/store"
)

const sandbox = "cl-0123456789abcdefghij"

// fakes are sandboxes as a test says.
type fakes struct {
	route func() (store.Route, error)
	wake  func() error
	dial  func() (net.Conn, error)
}

func (f *fakes) Route(context.Context, string) (store.Route, error)       { return f.route() }
func (f *fakes) Wake(context.Context, string) error                       { return f.wake() }
func (f *fakes) Dial(context.Context, store.Route, int) (net.Conn, error) { return f.dial() }
func running() (store.Route, error) {
	return store.Route{ID: sandbox, State: store.Running, Public: true}, nil
}
func paused1() (store.Route, error) {
	return store.Route{ID: sandbox, State: store.Paused, Public: true, AutoResume: true}, nil
}
func in(state store.State) func() (store.Route, error) {
	return func() (store.Route, error) { return store.Route{ID: sandbox, State: state, Public: true}, nil }
}

// proxied is a proxy before fakes, and how it answers a request.
func proxied(t *testing.T, f *fakes) (p *Proxy, ask func() *httptest.ResponseRecorder) {
	t.Helper()
	p = New(Config{Domain: portname.Domain{Scheme: "http", Name: "localhost"}, Sandboxes: f, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(p.Close)
	h := p.Handler(http.NotFoundHandler())
	return p, func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", p.Domain.URL(sandbox, 80), nil))
		return w
	}
}

// upstream is a server that a dial leads to.
func upstream(t *testing.T, h http.HandlerFunc) func() (net.Conn, error) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return func() (net.Conn, error) { return net.Dial("tcp", s.Listener.Addr().String()) }
}

func TestStatuses(t *testing.T) {
	ok := upstream(t, func(http.ResponseWriter, *http.Request) {})
	fails := func(err error) func() (net.Conn, error) { return func() (net.Conn, error) { return nil, err } }
	for name, c := range map[string]struct {
		f      fakes
		status int
	}{
		"runs":             {fakes{route: running, dial: ok}, 200},
		"starting":         {fakes{route: in(store.Starting)}, 409},
		"pausing":          {fakes{route: in(store.Pausing)}, 409},
		"resuming":         {fakes{route: in(store.Resuming)}, 409},
		"stopping":         {fakes{route: in(store.Stopping)}, 502},
		"lost":             {fakes{route: in(store.Lost)}, 502},
		"wakes":            {fakes{route: paused1, dial: ok, wake: func() error { return nil }}, 200},
		"no room to wake":  {fakes{route: paused1, wake: func() error { return errs.ErrResourceExhausted }}, 429},
		"can't wake":       {fakes{route: paused1, wake: func() error { return errs.ErrUnavailable }}, 502},
		"ended meanwhile":  {fakes{route: paused1, wake: func() error { return errs.ErrFailedPrecondition }}, 502},
		"no database":      {fakes{route: func() (store.Route, error) { return store.Route{}, errs.ErrUnavailable }}, 503},
		"full":             {fakes{route: running, dial: fails(errs.ErrResourceExhausted)}, 429},
		"not the caller's": {fakes{route: running, dial: fails(errs.ErrPermissionDenied)}, 404},
		"a closed port":    {fakes{route: running, dial: fails(client.ErrPortClosed)}, 502},
		"silent":           {fakes{route: running, dial: fails(errs.ErrUnavailable)}, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, ask := proxied(t, &c.f)
			if w := ask(); w.Code != c.status || c.status != 200 && !strings.Contains(w.Body.String(), fmt.Sprintf(`"code":%d`, c.status)) {
				t.Errorf("%d %s, want %d", w.Code, w.Body, c.status)
			}
		})
	}
}

// TestAPortIsTriedAgain: a server that restarts, and a sandbox that was paused between the look and the dial.
func TestAPortIsTriedAgain(t *testing.T) {
	ok := upstream(t, func(http.ResponseWriter, *http.Request) {})
	for name, first := range map[string]error{"closed": client.ErrPortClosed, "paused": errs.ErrFailedPrecondition} {
		var dials, wakes atomic.Int64
		f := &fakes{wake: func() error { wakes.Add(1); return nil }}
		f.route = func() (store.Route, error) {
			if dials.Load() == 0 || wakes.Load() > 0 {
				return running()
			}
			return paused1()
		}
		f.dial = func() (net.Conn, error) {
			if dials.Add(1) == 1 {
				return nil, first
			}
			return ok()
		}
		if _, ask := proxied(t, f); ask().Code != 200 {
			t.Errorf("%s: it was not tried again", name)
		}
		if want := map[string]int64{"closed": 0, "paused": 1}[name]; wakes.Load() != want {
			t.Errorf("%s: %d wakes", name, wakes.Load())
		}
	}
}

func TestRequestsAreBounded(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 2)
	p, ask := proxied(t, &fakes{route: running, dial: upstream(t, func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-hold })})
	p.limit = newLimit(2)
	answers := make(chan int, 2)
	for range 2 {
		go func() { answers <- ask().Code }()
	}
	<-entered
	<-entered
	if w := ask(); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	close(hold)
	if a, b := <-answers, <-answers; a != 200 || b != 200 {
		t.Error(a, b)
	}
	if w := ask(); w.Code != 200 || len(p.limit.count) != 0 {
		t.Errorf("%d, and %v are counted", w.Code, p.limit.count)
	}
}

// TestRoutesAreKept for a moment, and for longer while the database does not answer.
func TestRoutesAreKept(t *testing.T) {
	var looks atomic.Int64
	var failing atomic.Bool
	r := newRoutes(func(context.Context, string) (store.Route, error) {
		looks.Add(1)
		if failing.Load() {
			return store.Route{}, fmt.Errorf("%w: %w", errs.ErrUnavailable, syscall.ECONNREFUSED)
		}
		return running()
	})
	for range 100 {
		if _, err := r.get(t.Context(), sandbox); err != nil {
			t.Fatal(err)
		}
	}
	if looks.Load() != 1 {
		t.Errorf("%d looks", looks.Load())
	}
	failing.Store(true)
	if route, err := r.fresh(t.Context(), sandbox); err != nil || route.ID != sandbox {
		t.Errorf("without the database: %v %v", route, err)
	}
	if _, err := r.get(t.Context(), "another"); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("one that was never seen: %v", err)
	}
	r.mu.Lock()
	r.kept[sandbox] = kept{at: time.Now().Add(-staleTime)}
	r.mu.Unlock()
	if _, err := r.fresh(t.Context(), sandbox); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("one that is too old: %v", err)
	}
	failing.Store(false)
	for i := range maxRoutes + 10 {
		if _, err := r.get(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.kept) > maxRoutes {
		t.Errorf("%d are kept", len(r.kept))
	}
}

// TestOverTLS the cookie is for TLS alone, and the application is told.
func TestOverTLS(t *testing.T) {
	token := "secret"
	route, _ := running()
	route.Public = false
	route.Tokens = [][]byte{hashOf(token)}
	f := &fakes{route: func() (store.Route, error) { return route, nil }, dial: upstream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto"))
	})}
	p, _ := proxied(t, f)
	p.Domain = portname.Domain{Scheme: "https", Name: "example.com"}
	w := httptest.NewRecorder()
	req := httptest.NewRequest("GET", "http://80-"+sandbox[3:]+".example.com/?wrenn_access_token="+token, nil)
	p.Handler(nil).ServeHTTP(w, req)
	if c := w.Result().Cookies(); len(c) != 1 || !c[0].Secure || !strings.HasPrefix(w.Header().Get("Location"), "https://") {
		t.Errorf("%+v %v", c, w.Header())
	}
	w = httptest.NewRecorder()
	req.URL.RawQuery = ""
	req.Header.Set("Wrenn-Access-Token", token)
	if p.Handler(nil).ServeHTTP(w, req); w.Body.String() != "https" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
