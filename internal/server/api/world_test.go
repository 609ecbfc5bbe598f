package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/hostagent/rpc"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
	"wrenn.dev/wrenn/internal/server/api"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
	"wrenn.dev/wrenn/openapi"
)

// TestMain fails when an operation of the document was never answered as it describes, by the tests together.
func TestMain(m *testing.M) {
	code := postgrestest.Main(m)
	if missed := contract.missed(); code == 0 && len(missed) > 0 && len(os.Args) > 0 && !chosen() {
		fmt.Fprintln(os.Stderr, "no test had a success of:", missed)
		code = 1
	}
	os.Exit(code)
}

// chosen says whether only some of the tests run.
func chosen() bool {
	return slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.run=") || strings.HasPrefix(a, "-test.fuzz") })
}

// document holds answers against openapi/*.yaml.
type document struct {
	mux    *http.ServeMux
	routes map[string]*routers.Route // by their patterns
	spec   *openapi3.T

	mu   sync.Mutex
	good map[string]bool // operations that were answered well
}

var contract = loadContract()

func loadContract() *document {
	spec, err := openapi3.NewLoader().LoadFromData(openapi.JSON)
	if err != nil {
		panic(err)
	}
	d := &document{mux: http.NewServeMux(), routes: map[string]*routers.Route{}, spec: spec, good: map[string]bool{}}
	for path, item := range spec.Paths.Map() {
		for method, op := range item.Operations() {
			pattern := method + " " + path
			d.mux.Handle(pattern, http.NotFoundHandler())
			d.routes[pattern] = &routers.Route{Spec: spec, Path: path, PathItem: item, Method: method, Operation: op}
		}
	}
	return d
}

func (d *document) missed() []string {
	var list []string
	for _, item := range d.spec.Paths.Map() {
		for _, op := range item.Operations() {
			if !d.good[op.OperationID] {
				list = append(list, op.OperationID)
			}
		}
	}
	slices.Sort(list)
	return list
}

// check holds an answer against the document. What has no operation must be an error all the same.
func (d *document) check(t *testing.T, req *http.Request, resp *http.Response, body []byte) {
	t.Helper()
	if resp.StatusCode >= 400 {
		var e rest.Error
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil || e.Code == "" || e.Message == "" || e.RequestID == "" || e.RequestID != resp.Header.Get("X-Request-Id") {
			t.Errorf("%s %s: %d with %.500q is no error of ours: %v", req.Method, req.URL, resp.StatusCode, body, err)
		}
	}
	_, pattern := d.mux.Handler(req)
	route := d.routes[pattern]
	if route == nil {
		if resp.StatusCode < 400 {
			t.Errorf("%s %s is not in the document", req.Method, req.URL)
		}
		return
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: route},
		Status:                 resp.StatusCode, Header: resp.Header, Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	in.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		t.Errorf("%s %s: %d %.500q: %v", req.Method, req.URL, resp.StatusCode, body, err)
		return
	}
	if resp.StatusCode < 300 {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.good[route.Operation.OperationID] = true
	}
}

func init() {
	openapi3filter.RegisterBodyDecoder("application/x-ndjson", openapi3filter.PlainBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/event-stream", openapi3filter.PlainBodyDecoder)
}

// world is a server on a real database, with the real agent on a host in memory behind a real socket.
type world struct {
	*sandboxtest.Host
	t       *testing.T
	store   *store.Store
	auth    *auth.Auth
	control *control.Control
	agent   *hostagent.Agent
	host    control.Host
	http    *httptest.Server
	guest   *shell
	team    string
	key     string // with every scope
}

func newWorld(t *testing.T, limits quota.Amount) *world {
	t.Helper()
	w := &world{Host: sandboxtest.NewHost(t), t: t, guest: &shell{}}
	ctx, stop := context.WithCancel(context.Background())
	log := slog.New(slog.DiscardHandler)
	var err error
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.agent, err = hostagent.Start(ctx, hostagent.Config{Manager: w.Manager(t), StateDir: w.StateDir, Limits: limits, Log: log,
		Guest: func(sandbox.DialFunc, string) hostagent.Guest { return w.guest }})
	must(err)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := rpc.Unix(socket)
	must(err)
	var running sync.WaitGroup
	running.Go(func() { _ = rpc.Serve(ctx, rpc.Handler(w.agent), 10*time.Millisecond, listener) })
	w.store, err = store.Open(ctx, postgrestest.Database(t))
	must(err)
	host, err := w.store.Host(ctx, "unix://"+socket)
	must(err)
	agent := client.Unix(socket)
	w.host = control.Host{ID: host.ID, Client: agent}
	w.control, w.auth = control.New(w.store, w.host, log), auth.New(w.store)
	running.Go(func() { w.control.Watch(ctx) })
	handler, err := api.New(api.Config{Store: w.store, Control: w.control, Auth: w.auth, Log: log})
	must(err)
	w.http = httptest.NewServer(handler)
	w.team, w.key = w.newTeam("ours")
	t.Cleanup(func() {
		w.http.CloseClientConnections()
		w.http.Close()
		w.control.Wait()
		stop()
		running.Wait()
		agent.Close()
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.agent.Close(closing); err != nil {
			t.Error(err)
		}
		w.store.Close()
	})
	return w
}

// newTeam makes a team and a key of it with every scope.
func (w *world) newTeam(name string) (team, key string) {
	w.t.Helper()
	made, err := w.store.Team(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return made.ID, w.newKey(made.ID, auth.Scopes...)
}

func (w *world) newKey(team string, scopes ...string) string {
	w.t.Helper()
	secret, _, err := w.auth.Issue(w.t.Context(), auth.Request{Team: team, Name: "test", Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return secret
}

// call is a request. A body that is no string is sent as JSON.
type call struct {
	method, path string
	body         any
	key          string // "" is the world's; "none" sends none
	header       map[string]string
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request and holds the answer against the document.
func (w *world) do(c call) answer {
	w.t.Helper()
	req := w.request(w.t.Context(), c)
	resp, err := w.http.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	contract.check(w.t, req, resp, body)
	return answer{resp.StatusCode, resp.Header, body}
}

func (w *world) request(ctx context.Context, c call) *http.Request {
	w.t.Helper()
	var body io.Reader
	switch b := c.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, w.http.URL+c.path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch c.key {
	case "":
		req.Header.Set("Authorization", "Bearer "+w.key)
	case "none":
	default:
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	for k, v := range maps.All(c.header) {
		req.Header.Set(k, v)
	}
	return req
}

// as reads an answer that must have the status.
func as[T any](t *testing.T, a answer, status int) T {
	t.Helper()
	var v T
	if a.status != status {
		t.Fatalf("got %d, want %d: %s", a.status, status, a.body)
	}
	if len(a.body) > 0 {
		if err := json.Unmarshal(a.body, &v); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// fails checks that an answer is an error of a kind and returns it.
func fails(t *testing.T, a answer, status int, code rest.ErrorCode) rest.Error {
	t.Helper()
	e := as[rest.Error](t, a, status)
	if e.Code != code {
		t.Errorf("got %s, want %s: %s", e.Code, code, a.body)
	}
	return e
}

func (w *world) create(body string) rest.Sandbox {
	w.t.Helper()
	return as[rest.Sandbox](w.t, w.do(call{method: "POST", path: "/v1/sandboxes", body: body}), 201)
}

func (w *world) get(id string) rest.Sandbox {
	w.t.Helper()
	return as[rest.Sandbox](w.t, w.do(call{method: "GET", path: "/v1/sandboxes/" + id}), 200)
}

// until waits until a sandbox is in a state.
func (w *world) until(id string, state rest.State) rest.Sandbox {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if sb := w.get(id); sb.State == state {
			return sb
		}
	}
	w.t.Fatalf("%s is %s, want %s", id, w.get(id).State, state)
	return rest.Sandbox{}
}

// shell is a guest with a few commands.
type shell struct{}

func (g *shell) Run(ctx context.Context, cmd guest.Command) (guest.Result, error) {
	if cmd.Cmd == "none" {
		return guest.Result{}, errors.New("no such command")
	}
	cmd.Started(7)
	switch cmd.Cmd {
	case "cat":
		if cmd.Stdin != nil {
			if _, err := io.Copy(io.MultiWriter(cmd.Stdout, cmd.Stderr), cmd.Stdin); err != nil {
				return guest.Result{}, err
			}
		}
		return guest.Result{ExitCode: 3, Status: "exit status 3"}, nil
	case "flood":
		for range 3 * 32 {
			if _, err := cmd.Stdout.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
				return guest.Result{}, err
			}
		}
		return guest.Result{Status: "exit status 0"}, nil
	case "break":
		_, err := cmd.Stdout.Write([]byte("so far"))
		return guest.Result{}, errors.Join(err, errors.New("the guest is confused"))
	}
	if cmd.Timeout > 0 { // as the real client: the guest ends it
		return guest.Result{}, fmt.Errorf("it ran for %v: %w", cmd.Timeout, context.DeadlineExceeded)
	}
	<-ctx.Done()
	return guest.Result{}, context.Cause(ctx)
}

func (g *shell) Attach(ctx context.Context, _ uint32, cmd guest.Command) (guest.Result, error) {
	return g.Run(ctx, cmd)
}

func (g *shell) List(context.Context) ([]guest.Process, error) { return nil, nil }

func (g *shell) Files(string) *guest.Files { return nil } // the API asks for none

func (g *shell) Close() {}
