//go:build apifuzz

// Package apifuzz has the REST API fuzzed from its own document, by Schemathesis: whatever is sent, no answer is the server's failure, every answer
// is one that the document describes, what the document refuses is refused, and what it allows is taken.
package apifuzz

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/internal/server/servertest"
	"wrenn.dev/wrenn/openapi"
	"wrenn.dev/wrenn/tools/venv"
)

var (
	examples = flag.Int("examples", 12, "how many requests are made up for each operation, at most")
	seed     = flag.Uint64("seed", 0, "for the same requests again; 0 is one by chance")
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// obedient is a guest that runs anything: it says back what it was given, in bytes that are no text, and ends. Its files are real, in a folder that it
// can't leave.
type obedient struct {
	files func(user string) *guest.Files
}

func (obedient) Run(_ context.Context, cmd guest.Command) (guest.Result, error) {
	cmd.Started(theProcess)
	if cmd.Stdin != nil {
		if _, err := cmd.Stdout.Write(input(cmd.Stdin)); err != nil {
			return guest.Result{}, err
		}
	}
	_, err := fmt.Fprintf(cmd.Stderr, "%s\xff\n", cmd.Cmd)
	return guest.Result{ExitCode: len(cmd.Args), Status: "exit status"}, err
}

// input is what a command is given, or nothing where that does not come to an end: a command that is given more later is not waited for.
func input(from io.Reader) []byte {
	all := make(chan []byte, 1)
	go func() {
		data, _ := io.ReadAll(from)
		all <- data
	}()
	select {
	case data := <-all:
		return data
	case <-time.After(streamTime):
		return nil
	}
}

// theProcess is the one that there always is; hooks.py knows it.
const theProcess = 1

func known(pid uint32) error {
	if pid != theProcess {
		return fmt.Errorf("process %d: %w", pid, errs.ErrNotFound)
	}
	return nil
}

func (g obedient) Attach(ctx context.Context, pid uint32, cmd guest.Command) (guest.Result, error) {
	if err := known(pid); err != nil {
		return guest.Result{}, err
	}
	cmd.Stdin = nil
	return g.Run(ctx, cmd)
}

func (obedient) List(context.Context) ([]guest.Process, error) {
	return []guest.Process{{PID: theProcess, Cmd: "any", Args: []string{"\uFFFD"}}}, nil
}

func (obedient) Input(_ context.Context, pid uint32, _ []byte, _ bool) error { return known(pid) }

func (obedient) Signal(_ context.Context, pid uint32, _ syscall.Signal) error { return known(pid) }

func (obedient) Resize(_ context.Context, pid uint32, _ guest.Size) error { return known(pid) }

func (obedient) Port(context.Context, int) (net.Conn, error) { return nil, errs.ErrUnavailable }

func (g obedient) Files(user string) *guest.Files { return g.files(user) }

func (obedient) Close() {}

// streamTime is how long a stream of events is followed here. They have no end of their own: the caller is made to leave.
const streamTime = 100 * time.Millisecond

// watched is the server's handler with what the test needs around it.
type watched struct {
	next http.Handler
	// operations by their patterns, for which mux is the router.
	operations map[string]string
	mux        *http.ServeMux

	callers atomic.Uint32
	mu      sync.Mutex
	good    map[string]int // successes by operation
	bad     []string       // failures of the server's
}

func watch(t *testing.T, next http.Handler) *watched {
	t.Helper()
	doc, err := contract.Load(openapi.JSON)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{next: next, operations: map[string]string{}, mux: http.NewServeMux(), good: map[string]int{}}
	for pattern, op := range doc.Operations {
		w.operations[pattern] = op.ID
		w.mux.Handle(pattern, http.NotFoundHandler())
	}
	return w
}

// status is the status of an answer that is passed on.
type status struct {
	http.ResponseWriter
	code  int
	begun func()
}

// WriteHeader implements http.ResponseWriter.
func (s *status) WriteHeader(code int) {
	s.code = code
	s.begun()
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// ServeHTTP has callers of streams leave, and each request come from an address of its own: many bad keys from one would be told to wait, and no
// more be heard.
func (w *watched) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s := &status{ResponseWriter: rw, code: http.StatusOK, begun: func() {}}
	if r.URL.Path == "/v1/events" || strings.HasSuffix(r.URL.Path, "/files/watch") {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		r = r.WithContext(ctx)
		s.begun = func() { time.AfterFunc(streamTime, cancel) }
	}
	n := w.callers.Add(1)
	r.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", byte(n>>16), byte(n>>8), byte(n))
	w.next.ServeHTTP(s, r)
	_, pattern := w.mux.Handler(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.code >= 500:
		w.bad = append(w.bad, fmt.Sprintf("%d from %s %s", s.code, r.Method, r.URL))
	case s.code < 300:
		w.good[w.operations[pattern]]++
	}
}

// unreached are operations that never succeed here, and why.
var unreached = map[string]string{
	"openTerminal":   "it needs a WebSocket",
	"deleteTemplate": "there is one template, and all that follows needs it",
}

// others makes hosts that have joined, which nothing runs on and nobody hears of: to be drained and removed.
func others(t *testing.T, w *servertest.World) []string {
	t.Helper()
	list := make([]string, 50)
	for i := range list {
		secret := fmt.Appendf(nil, "%032d", i)
		if _, _, err := w.Store.AddToken(t.Context(), secret, time.Hour); err != nil {
			t.Fatal(err)
		}
		h, err := w.Store.Join(t.Context(), secret, secret, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		list[i] = h.ID
	}
	return list
}

// limits keep what is frozen small: it is copied in full here.
var limits = quota.Amount{Sandboxes: 50, MemoryMiB: 64 << 10, DiskBytes: 64 << 30}

// TestDocument runs Schemathesis against a server on a host in memory.
func TestDocument(t *testing.T) {
	theGuest := obedient{servertest.Files(t)}
	w := servertest.New(t, servertest.Config{Limits: limits, Guest: func(sandbox.DialFunc, string) hostagent.Guest { return theGuest }})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(receiver.Close)
	seen := watch(t, w.HTTP.Config.Handler)
	w.HTTP.Config.Handler = seen
	env, err := venv.Make(t.Context(), "schemathesis", "requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	t.Logf("again: make api-fuzz SEED=%d EXAMPLES=%d", *seed, *examples)
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	cmd := env.Command(t.Context(), "st", "--config-file", filepath.Join(here, "schemathesis.toml"), "run", w.URL+"/v1/openapi.json", "--no-color",
		"--seed", strconv.FormatUint(*seed, 10), "--max-examples", strconv.Itoa(*examples), "--header", "Authorization: Bearer "+w.Key)
	cmd.Dir = t.TempDir() // it keeps notes there
	cmd.Env = append(os.Environ(), "SCHEMATHESIS_HOOKS=hooks", "PYTHONPATH="+here, "PYTHONDONTWRITEBYTECODE=1",
		"WRENN_URL="+w.URL, "WRENN_API_KEY="+w.Key, "WRENN_RECEIVER="+receiver.URL,
		"WRENN_OWN_HOST="+w.AsHost.ID, "WRENN_OTHER_HOSTS="+strings.Join(others(t, w), " "))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	for _, failure := range seen.bad {
		t.Error(failure)
	}
	// A run that reaches nothing finds nothing.
	for _, op := range slices.Sorted(maps.Values(seen.operations)) {
		if t.Logf("%s: %d successes", op, seen.good[op]); seen.good[op] == 0 && unreached[op] == "" {
			t.Errorf("%s never succeeded", op)
		}
	}
}
