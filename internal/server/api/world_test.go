package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/servertest"
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

// world is a server and what the tests ask of it.
type world struct {
	*servertest.World
	t *testing.T
}

func newWorld(t *testing.T, limits quota.Amount) *world {
	t.Helper()
	return &world{servertest.New(t, servertest.Config{Limits: limits}), t}
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
	resp, err := w.HTTP.Client().Do(req)
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
	req, err := http.NewRequestWithContext(ctx, c.method, w.URL+c.path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch c.key {
	case "":
		req.Header.Set("Authorization", "Bearer "+w.Key)
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
