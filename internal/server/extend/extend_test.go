package extend_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/extend"
	"wrenn.dev/wrenn/internal/server/store"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// ext is an extension by its parts.
type ext struct {
	name  string
	parts extension.Parts
	err   error
}

func (e ext) Name() string { return e.name }

func (e ext) Start(context.Context, extension.Host) (extension.Parts, error) {
	if e.err != nil && e.err.Error() == "panic" {
		panic(e.err)
	}
	return e.parts, e.err
}

// world is a database and servers on it.
type world struct {
	*store.Store
	t    *testing.T
	team string
	host string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(t.Context(), postgrestest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	team, err := s.Team(t.Context(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	host, err := s.Host(t.Context(), "unix:///nowhere")
	if err != nil {
		t.Fatal(err)
	}
	return &world{s, t, team.ID, host.ID}
}

// happen makes something happen: a sandbox that starts.
func (w *world) happen() string {
	w.t.Helper()
	sb, err := w.Create(w.t.Context(), store.NewSandbox{ID: id.New(), Team: w.team, Host: w.host, Op: id.NewOf(id.Operation), OpTime: time.Minute,
		Reason: "asked for", OnExpiry: "destroy", Sizes: store.Sizes{Template: "base"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return sb.ID
}

func (w *world) start(e ...extension.Extension) (*extend.Set, error) {
	return extend.Start(w.t.Context(), extend.Config{Store: w.Store, Log: slog.New(slog.DiscardHandler)}, e)
}

// serve runs a server's extensions until the returned function is called.
func (w *world) serve(e ...extension.Extension) (stop func()) {
	w.t.Helper()
	set, err := w.start(e...)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); set.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(stop)
	return stop
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came: %s", what)
		}
	}
}

func TestWhatDoesNotStart(t *testing.T) {
	w := newWorld(t)
	run := func(context.Context) error { return nil }
	for says, list := range map[string][]extension.Extension{
		`extension "Loud"`: {ext{name: "Loud"}},
		`extension "a"`:    {ext{name: "a"}, ext{name: "a"}},
		"no way":           {ext{name: "a", err: errors.New("no way")}},
		"panic":            {ext{name: "a", err: errors.New("panic")}},
		`worker ""`:        {ext{name: "a", parts: extension.Parts{Workers: []extension.Worker{{Run: run}}}}},
		`worker "b"`:       {ext{name: "a", parts: extension.Parts{Workers: []extension.Worker{{Name: "b"}}}}},
	} {
		if _, err := w.start(list...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestRoutes(t *testing.T) {
	w := newWorld(t)
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.PathValue("who")+" at "+r.URL.Path)
	})
	mounted := func(routes ...extension.Route) (*http.ServeMux, []string, error) {
		set, err := w.start(ext{name: "hi", parts: extension.Parts{Routes: routes}})
		if err != nil {
			t.Fatal(err)
		}
		mux, asked := http.NewServeMux(), []string(nil)
		return mux, asked, set.Mount(func(pattern, scope string, h http.Handler) {
			asked = append(asked, scope)
			mux.Handle(pattern, h)
		})
	}
	mux, _, err := mounted(extension.Route{Pattern: "GET /greet/{who}", Scope: extension.Public, Handler: hello})
	if err != nil {
		t.Fatal(err)
	}
	got := httptest.NewRecorder()
	mux.ServeHTTP(got, httptest.NewRequest("GET", "/ext/hi/greet/you", nil))
	if got.Body.String() != "you at /greet/you" {
		t.Errorf("it answers %d %q", got.Code, got.Body)
	}
	for _, bad := range []extension.Route{
		{Pattern: "GET /a", Scope: "all", Handler: hello}, {Pattern: "/a", Scope: "read", Handler: hello}, {Pattern: "GET a", Scope: "read", Handler: hello},
		{Pattern: "GET /a", Scope: "read"}, {Pattern: "GET /{", Scope: "read", Handler: hello},
	} {
		if _, _, err := mounted(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if _, _, err := mounted(extension.Route{Pattern: "GET /a", Scope: "read", Handler: hello}, extension.Route{Pattern: "GET /a", Scope: "read", Handler: hello}); err == nil {
		t.Error("a pattern is taken twice")
	}
}

// TestWorkers: one server at a time runs a worker, a panic has it begun again, and it ends with the server.
func TestWorkers(t *testing.T) {
	w := newWorld(t)
	var running, most, begun atomic.Int32
	work := ext{name: "one", parts: extension.Parts{Workers: []extension.Worker{{Name: "count", Run: func(ctx context.Context) error {
		if begun.Add(1) == 1 {
			panic("the first time")
		}
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		<-ctx.Done()
		return nil
	}}}}}
	stop := w.serve(work)
	w.serve(work)
	until(t, "a worker", func() bool { return running.Load() == 1 })
	stop()
	until(t, "a worker after a server's end", func() bool { return running.Load() == 1 })
	if most.Load() != 1 || begun.Load() < 2 {
		t.Errorf("%d at once, begun %d times", most.Load(), begun.Load())
	}
}

// TestEvents: each is told, in order, although handlers fail and servers end.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.happen() // before the extension is there
	var mu sync.Mutex
	var told []string
	ids := map[string]bool{}
	fails := 0
	e := ext{name: "log", parts: extension.Parts{OnEvent: func(_ context.Context, e extension.Event) error {
		mu.Lock()
		defer mu.Unlock()
		switch fails++; fails {
		case 1:
			return errors.New("not yet")
		case 2:
			panic("not now")
		}
		if !ids[e.ID] {
			told, ids[e.ID] = append(told, e.SandboxID), true
		}
		if e.Team != w.team || e.State != store.Starting || e.Reason == "" || e.At.IsZero() {
			t.Errorf("it is told %+v", e)
		}
		return nil
	}}}
	stop := w.serve(e)
	until(t, "the lease", func() bool {
		var n int
		err := w.Connections().QueryRow(t.Context(), `SELECT count(*) FROM places WHERE name = 'ext/log'`).Scan(&n)
		return err == nil && n == 1
	})
	want := []string{w.happen(), w.happen(), w.happen()}
	all := func() bool { mu.Lock(); defer mu.Unlock(); return len(told) >= len(want) }
	until(t, "three events", all)
	stop()
	want = append(want, w.happen())
	w.serve(e)
	until(t, "what happened while no server was there", all)
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
