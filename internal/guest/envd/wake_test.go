package envd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/clone"
)

const second = "fedcba9876543210fedcba9876543210" // another machine's token

// changing is a source that the test changes.
type changing struct {
	mu      sync.Mutex
	id      Identity
	fetched int
}

func (m *changing) Identity(ctx context.Context) (Identity, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetched++
	return m.id, context.Cause(ctx)
}

func (m *changing) set(token, start string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id = Identity{Token: token, Start: start, SandboxID: "cl-" + start, Hostname: "host-" + start}
}

func (m *changing) seen() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetched
}

// fakeMachine is a machine that a test looks into. Its funcs may be nil.
type fakeMachine struct {
	mu     sync.Mutex
	froze  int
	made   []clone.Identity
	freeze func() error
	making func() error
}

func (f *fakeMachine) Freeze() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.froze++
	if f.freeze != nil {
		return f.freeze()
	}
	return nil
}

func (f *fakeMachine) Distinguish(_ context.Context, id clone.Identity) (clone.Report, error) {
	f.mu.Lock()
	f.made = append(f.made, id)
	making := f.making
	f.mu.Unlock()
	if making != nil {
		if err := making(); err != nil {
			return clone.Report{}, err
		}
	}
	return clone.Report{Offset: 1500 * time.Microsecond,
		Steps: []clone.Step{{Name: "random", Took: 2 * time.Millisecond}, {Name: "clock", Note: "none"}}}, nil
}

func (f *fakeMachine) distinguished() []clone.Identity {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.made)
}

// guest is an envd on a machine that can be frozen, awake under the start "a".
type guest struct {
	url     string
	server  *Server
	source  *changing
	machine *fakeMachine
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{source: &changing{}, machine: &fakeMachine{}}
	g.source.set(token, "a")
	g.url, g.server = serveConfig(t, Config{Source: g.source, Machine: g.machine, TokenPatience: patience})
	for end := time.Now().Add(patience); !g.server.waker.wasAwake(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not wake by itself")
		}
	}
	g.source.set("", "a") // as the host does
	return g
}

func (g *guest) post(t *testing.T, path, token string) (int, string) {
	t.Helper()
	if path == "/wake" {
		// Connections that nobody uses are cut, and the transport may not have noticed when the next call comes.
		defer http.DefaultClient.CloseIdleConnections()
	}
	return status(t, http.MethodPost, g.url+path, token)
}

// expect checks the status of a call.
func (g *guest) expect(t *testing.T, path, token string, want int, text string) {
	t.Helper()
	if code, body := g.post(t, path, token); code != want || !strings.Contains(body, text) {
		t.Errorf("%s with %q: got %d %s, want %d with %q", path, token, code, body, want, text)
	}
}

const list = "/process.Process/List"

// closed checks that nobody is let through.
func (g *guest) closed(t *testing.T) {
	t.Helper()
	for _, token := range []string{"", "x", token, second} {
		g.expect(t, list, token, http.StatusServiceUnavailable, `"code":"unavailable"`)
		g.expect(t, "/quiesce", token, http.StatusServiceUnavailable, "frozen or starting")
		g.expect(t, "/metrics", token, http.StatusServiceUnavailable, "frozen or starting")
	}
	if code, _ := status(t, http.MethodGet, g.url+"/health", ""); code != http.StatusNoContent {
		t.Errorf("health: got %d", code)
	}
}

// stream starts a shell whose standard output is followed, and gives back the events and the pid.
func (g *guest) stream(t *testing.T) (*events, int) {
	t.Helper()
	e, _ := begin(t, g.url, "Start", `{"process":{"cmd":"sh","args":["-c","while read -r l; do echo \"got $l\"; done"]},"stdin":true}`, nil)
	return e, e.pid()
}

// TestHeldForAMoment freezes and wakes with the same start: a stream goes on, and nothing is made distinct.
func TestHeldForAMoment(t *testing.T) {
	g := newGuest(t)
	e, pid := g.stream(t)
	g.expect(t, "/quiesce", "wrong", http.StatusUnauthorized, "")
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	g.closed(t)
	if g.server.gate.digest != [32]byte{} {
		t.Error("the token's digest is still there")
	}
	g.source.set(second, "a")
	g.expect(t, "/wake", "", http.StatusOK, `{"start":"a","reseeded":false,"clockOffsetMs":0,"steps":[{"name":"metadata"`)
	g.expect(t, list, token, http.StatusUnauthorized, "")
	g.expect(t, list, second, http.StatusOK, "processes")
	send(t, g.url, second, pid, "hello\n")
	if f := e.next(); !strings.Contains(f.json, encoded("got hello\n")) {
		t.Errorf("the stream got %s", f.json)
	}
	if n := g.machine.distinguished(); len(n) != 0 || g.machine.froze != 1 {
		t.Errorf("distinguished %v, froze %d times", n, g.machine.froze)
	}
}

// TestClone wakes with another start: nothing gets through before all is done, streams end, and processes are joined again.
func TestClone(t *testing.T) {
	g := newGuest(t)
	e, pid := g.stream(t)
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	g.source.set(second, "b")
	g.machine.making = func() error { g.closed(t); return nil }
	var report wakeReport
	code, body := g.post(t, "/wake", "")
	if err := json.Unmarshal([]byte(body), &report); err != nil || code != http.StatusOK {
		t.Fatalf("got %d %s, %v", code, body, err)
	}
	if report.Start != "b" || !report.Reseeded || report.ClockOffsetMs != 1.5 || len(report.Steps) != 4 ||
		report.Steps[0].Name != "metadata" || report.Steps[1] != (wakeStep{Name: "random", Ms: 2}) || report.Steps[2].Note != "none" ||
		report.Steps[3].Name != "connections" {
		t.Errorf("got %+v", report)
	}
	if made := g.machine.distinguished(); len(made) != 1 || made[0] != (clone.Identity{Start: "b", Hostname: "host-b"}) {
		t.Errorf("distinguished %v", made)
	}
	if rest, err := io.ReadAll(e.r); err == nil {
		t.Errorf("the stream of another machine's goes on, or ended well: %q", rest)
	}
	g.expect(t, list, token, http.StatusUnauthorized, "")
	joined, _ := begin(t, g.url, "Connect", selectPID(pid), map[string]string{headerToken: second})
	if got := joined.pid(); got != pid {
		t.Errorf("joined %d instead of %d", got, pid)
	}
	send(t, g.url, second, pid, "again\n")
	if f := joined.next(); !strings.Contains(f.json, encoded("got again\n")) {
		t.Errorf("the joined stream got %s", f.json)
	}
	ids := run(t, g.url, `{"process":{"cmd":"sh","args":["-c","echo $WRENN_SANDBOX_ID"]}}`, map[string]string{headerToken: second})
	if !strings.Contains(strings.Join(ids, " "), encoded("cl-b\n")) {
		t.Errorf("a new process's ids: %q", ids)
	}
}

// TestCloneOfAnOpenOne wakes a clone of a machine that nobody quiesced: the token of the other one is worth nothing.
func TestCloneOfAnOpenOne(t *testing.T) {
	g := newGuest(t)
	g.source.set(second, "b")
	g.machine.making = func() error { g.closed(t); return nil }
	g.expect(t, "/wake", "", http.StatusOK, `"reseeded":true`)
	g.expect(t, list, token, http.StatusUnauthorized, "")
	g.expect(t, list, second, http.StatusOK, "")
}

// TestCloneBeforeTheFirstToken freezes a machine that never had a token. That envd waits for one by itself does not open the gate
// of a clone early.
func TestCloneBeforeTheFirstToken(t *testing.T) {
	source, machine := &changing{}, &fakeMachine{}
	source.set("", "a")
	url, s := serveConfig(t, Config{Source: source, Machine: machine, TokenPatience: patience})
	for source.seen() < 2 {
		time.Sleep(time.Millisecond)
	}
	source.set(second, "b")
	for !s.waker.wasAwake() {
		time.Sleep(time.Millisecond)
	}
	if made := machine.distinguished(); len(made) != 1 || made[0].Start != "b" {
		t.Errorf("distinguished %v", made)
	}
	if code, body := status(t, http.MethodPost, url+list, second); code != http.StatusOK {
		t.Errorf("got %d %s", code, body)
	}
}

// TestCloneFails keeps the gate closed, says why, and lets the host try again.
func TestCloneFails(t *testing.T) {
	g := newGuest(t)
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	g.source.set(second, "b")
	g.machine.making = func() error { return errors.Join(errors.New("no reseed\x1b["), errs.ErrUnavailable) }
	for range 2 {
		g.expect(t, "/wake", "", http.StatusServiceUnavailable, `no reseed\u001b[`)
		g.closed(t)
	}
	g.machine.mu.Lock()
	g.machine.making = nil
	g.machine.mu.Unlock()
	g.expect(t, "/wake", "", http.StatusOK, `"reseeded":true`)
	g.expect(t, list, second, http.StatusOK, "")
	if made := g.machine.distinguished(); len(made) != 3 {
		t.Errorf("distinguished %v", made)
	}
}

// TestWakeAtOnce calls wake many times: it is done once, and all get the same answer and keep their connections.
func TestWakeAtOnce(t *testing.T) {
	g := newGuest(t)
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	const n = 8
	g.machine.making = func() error {
		for end := time.Now().Add(patience); g.waiting() < n && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	g.source.set(second, "b")
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { g.expect(t, "/wake", "", http.StatusOK, `"start":"b","reseeded":true`) })
	}
	wg.Wait()
	if made := g.machine.distinguished(); len(made) != 1 {
		t.Errorf("distinguished %d times", len(made))
	}
}

func (g *guest) waiting() int {
	g.server.waker.mu.Lock()
	defer g.server.waker.mu.Unlock()
	return len(g.server.waker.flight.asking)
}

// TestWakeWithoutToken ends in time, says what was missing, and changes nothing.
func TestWakeWithoutToken(t *testing.T) {
	g := newGuest(t)
	g.server.waker.patience = 300 * time.Millisecond
	for _, start := range []string{"a", "b"} {
		g.source.set("", start)
		g.expect(t, "/wake", "", http.StatusServiceUnavailable, "no token in the metadata within 300ms")
		g.expect(t, list, token, http.StatusOK, "")
	}
	if code, _ := status(t, http.MethodGet, g.url+"/wake", ""); code != http.StatusUnauthorized {
		t.Errorf("GET /wake: got %d", code)
	}
}

// TestWakeOutlivesWhoAsked shows that a wake goes on when its caller leaves.
func TestWakeOutlivesWhoAsked(t *testing.T) {
	g := newGuest(t)
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/wake", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := g.source.seen()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			t.Error("it was answered")
		}
	}()
	for g.source.seen() == before {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-gone
	g.source.set(second, "b")
	// Asked here and not over a connection: one that does not wait for the wake is cut.
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := g.server.gate.check(http.Header{headerToken: {second}}); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nobody woke it")
		}
	}
}

// TestTokenFromBeforeTheFreeze quiesces while a wake is under way: what that has read is not taken any more.
func TestTokenFromBeforeTheFreeze(t *testing.T) {
	g := newGate()
	count := g.count()
	g.close()
	if g.open(count, token) {
		t.Error("a token from before opens the gate")
	}
	if g.open(g.count(), "") {
		t.Error("an empty token opens the gate")
	}
	if !g.open(g.count(), token) {
		t.Error("a token from after does not open the gate")
	}
}

// TestQuiesceFails leaves the gate as it is when the machine can't be frozen.
func TestQuiesceFails(t *testing.T) {
	g := newGuest(t)
	g.machine.freeze = func() error { return errors.New("no log") }
	g.expect(t, "/quiesce", token, http.StatusServiceUnavailable, "no log")
	g.expect(t, list, token, http.StatusOK, "")
	url := serve(t, identity())
	if code, body := status(t, http.MethodPost, url+"/quiesce", token); code != http.StatusServiceUnavailable || !strings.Contains(body, "can't be frozen") {
		t.Errorf("a machine of no kind: got %d %s", code, body)
	}
}

// TestStartAcrossAFreeze lets a request in, closes the gate, and shows that it starts nothing any more; and that the freeze waits for
// one that is starting something.
func TestStartAcrossAFreeze(t *testing.T) {
	g := newGate()
	g.open(0, token)
	count, err := g.check(http.Header{headerToken: {token}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithValue(t.Context(), admission{}, count)
	release, err := g.hold(ctx)
	if err != nil {
		t.Fatal(err)
	}
	now, idle := g.close()
	select {
	case <-idle:
		t.Error("it does not wait for what is being started")
	default:
	}
	release()
	<-idle
	g.open(now, token)
	for name, ctx := range map[string]context.Context{"let in before": ctx, "never let in": t.Context()} {
		if _, err := g.hold(ctx); !errors.Is(err, errs.ErrUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, idle := g.close(); idle != nil {
		<-idle
	}
}

// TestWakeOverHTTP2 shows that a connection of the other protocol is known as the one that asks.
func TestWakeOverHTTP2(t *testing.T) {
	g := newGuest(t)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	g.source.set(second, "b")
	resp, err := (&http.Client{Transport: h2}).Post(g.url+"/wake", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("got %v", resp)
	}
}

// TestAStoppedStreamDoesNotStopAProcess freezes a machine while nobody takes the output of a stream, so that its process waits. In the
// clone there is nobody who ever will: the process goes on, and can be joined.
func TestAStoppedStreamDoesNotStopAProcess(t *testing.T) {
	g := newGuest(t)
	passed := filepath.Join(t.TempDir(), "passed")
	e, _ := begin(t, g.url, "Start", fmt.Sprintf(
		`{"process":{"cmd":"sh","args":["-c","head -c 67108864 /dev/zero; echo x >%s; while read -r l; do echo \"got $l\"; done"]},"stdin":true}`, passed), nil)
	pid := e.pid()
	time.Sleep(200 * time.Millisecond)
	if _, err := os.Stat(passed); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the process does not wait for its stream: %v", err)
	}
	g.expect(t, "/quiesce", token, http.StatusNoContent, "")
	g.source.set(second, "b")
	g.expect(t, "/wake", "", http.StatusOK, `"reseeded":true`)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(passed); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the process does not go on")
		}
	}
	joined, _ := begin(t, g.url, "Connect", selectPID(pid), map[string]string{headerToken: second})
	joined.pid()
	send(t, g.url, second, pid, "hello\n")
	for end := time.Now().Add(patience); !strings.Contains(joined.next().json, encoded("got hello\n")); {
		if time.Now().After(end) {
			t.Fatal("the joined stream lacks what came after")
		}
	}
}
