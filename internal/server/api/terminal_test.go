package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/server/rest"
)

// term is a terminal's other side.
type term struct {
	t     *testing.T
	conn  *websocket.Conn
	pid   int64
	shown string
}

// dial opens a WebSocket.
func (w *world) dial(path string, header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if header == nil {
		header = http.Header{"Authorization": {"Bearer " + w.Key}}
	}
	return websocket.Dial(ctx, w.URL+path, &websocket.DialOptions{HTTPHeader: header, Subprotocols: protocols})
}

// terminal opens one, with the command's arguments and parameters.
func (w *world) terminal(at string, params url.Values) *term {
	w.t.Helper()
	conn, resp, err := w.dial(at+"/pty?"+params.Encode(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	contract.check(w.t, resp.Request, resp, nil)
	return w.term(conn)
}

func (w *world) term(conn *websocket.Conn) *term {
	w.t.Helper()
	w.t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	x := &term{t: w.t, conn: conn}
	if e := x.next(); e == nil || e.Type != rest.TerminalStarted {
		w.t.Fatalf("%+v comes first", e)
	} else {
		x.pid = *e.Pid
	}
	return x
}

// next reads a message: an event, or what is shown.
func (x *term) next() *rest.TerminalEvent {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 20*time.Second)
	defer cancel()
	kind, data, err := x.conn.Read(ctx)
	if err != nil {
		x.t.Fatalf("after %.2000q: %v", x.shown, err)
	}
	if kind == websocket.MessageBinary {
		x.shown += string(data)
		return nil
	}
	var e rest.TerminalEvent
	if err := json.Unmarshal(data, &e); err != nil {
		x.t.Fatal(err)
	}
	return &e
}

// until reads until something is shown.
func (x *term) until(text string) {
	x.t.Helper()
	for !strings.Contains(x.shown, text) {
		if e := x.next(); e != nil {
			x.t.Fatalf("%+v %+v after %q", e, e.Error, x.shown)
		}
	}
	_, x.shown, _ = strings.Cut(x.shown, text)
}

// last reads to the last event, and checks that the connection is closed after it.
func (x *term) last(closed websocket.StatusCode) rest.TerminalEvent {
	x.t.Helper()
	for {
		e := x.next()
		if e == nil {
			continue
		}
		if _, _, err := x.conn.Read(x.t.Context()); websocket.CloseStatus(err) != closed {
			x.t.Errorf("it is closed with %v", err)
		}
		return *e
	}
}

func (x *term) write(kind websocket.MessageType, text string) {
	x.t.Helper()
	if err := x.conn.Write(x.t.Context(), kind, []byte(text)); err != nil {
		x.t.Fatal(err)
	}
}

func (x *term) types(text string) { x.t.Helper(); x.write(websocket.MessageBinary, text) }

// sh is a shell that says nothing by itself.
func sh(more ...string) url.Values {
	v := url.Values{"cmd": {"sh"}, "args": {"-c", "stty -echo; echo ready; exec sh"}}
	for i := 0; i < len(more); i += 2 {
		v.Add(more[i], more[i+1])
	}
	return v
}

func TestATerminal(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	x := w.terminal(at, sh())
	x.until("ready")
	x.types("stty size\n")
	x.until("24 80")
	x.write(websocket.MessageText, `{"type":"resize","cols":132,"rows":43}`)
	x.types("stty size; printf '\\377\\001\\n'\n")
	x.until("43 132")
	x.until("\xff\x01")
	x.types("exit 5\n")
	if e := x.last(websocket.StatusNormalClosure); e.Type != rest.TerminalEnded || *e.ExitCode != 5 || or(e.Status) != "exit status 5" {
		t.Errorf("%+v", e)
	}
	x = w.terminal(at, url.Values{"cols": {"100"}, "rows": {"50"}}) // the shell that one gets
	x.types("stty size; exit\n")
	x.until("50 100")
}

// TestWhoMayOpenATerminal, and how a browser shows its key.
func TestWhoMayOpenATerminal(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	path := at + "/pty?" + sh().Encode()
	conn, _, err := w.dial(path, http.Header{"Origin": {w.URL}}, "wrenn.v1", "key."+w.Key)
	if err != nil {
		t.Fatal(err)
	}
	if conn.Subprotocol() != "wrenn.v1" {
		t.Errorf("the subprotocol is %q", conn.Subprotocol())
	}
	w.term(conn).until("ready")
	_, theirs := w.NewTeam("theirs")
	for _, c := range []struct {
		what      string
		header    http.Header
		protocols []string
		path      string
		status    int
		code      rest.ErrorCode
	}{
		{"no key", http.Header{"X": {"y"}}, nil, path, 401, rest.Unauthenticated},
		{"a bad key", http.Header{"X": {"y"}}, []string{"wrenn.v1", "key.wrenn_x"}, path, 401, rest.Unauthenticated},
		{"a key that only reads", http.Header{"Authorization": {"Bearer " + w.NewKey(w.Team, "read")}}, nil, path, 403, rest.PermissionDenied},
		{"another team's", http.Header{"Authorization": {"Bearer " + theirs}}, nil, path, 404, rest.NotFound},
		{"another site", http.Header{"Origin": {"https://elsewhere.example"}}, []string{"key." + w.Key}, path, 403, rest.PermissionDenied},
		{"no site", http.Header{"Origin": {"null"}}, []string{"key." + w.Key}, path, 403, rest.PermissionDenied},
		{"two wishes", nil, nil, path + "&pid=7", 400, rest.InvalidArgument},
		{"arguments of nothing", nil, nil, at + "/pty?args=x", 400, rest.InvalidArgument},
		{"no size", nil, nil, at + "/pty?cols=0", 400, rest.InvalidArgument},
	} {
		conn, resp, err := w.dial(c.path, c.header, c.protocols...)
		if err == nil {
			_ = conn.CloseNow()
			t.Errorf("%s: it was opened", c.what)
			continue
		}
		var e rest.Error
		if derr := json.NewDecoder(resp.Body).Decode(&e); derr != nil || resp.StatusCode != c.status || e.Code != c.code {
			t.Errorf("%s: %d %+v %v (%v)", c.what, resp.StatusCode, e, derr, err)
		}
	}
	if e := fails(t, w.do(call{method: "GET", path: path}), 400, rest.InvalidArgument); or(e.Field) != "Upgrade" {
		t.Errorf("%+v", e)
	}
	// What a WebSocket may show its key by, nothing else may.
	fails(t, w.do(call{method: "GET", path: at, key: "none", header: map[string]string{"Sec-WebSocket-Protocol": "key." + w.Key}}), 401, rest.Unauthenticated)
	as[rest.Sandbox](t, w.do(call{method: "POST", path: at + "/pause"}), 200)
	if _, resp, err := w.dial(path, nil); err == nil || resp.StatusCode != 409 {
		t.Errorf("of a paused sandbox: %v %v", resp, err)
	}
}

// TestWhoLeavesATerminal ends what it started, unless it is to be kept, and leaves alone what it joined.
func TestWhoLeavesATerminal(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	gone := w.terminal(at, sh())
	gone.until("ready")
	_ = gone.conn.CloseNow()
	w.ends(at, gone.pid)
	polite := w.terminal(at, sh())
	polite.until("ready")
	if err := polite.conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	w.ends(at, polite.pid)
	kept := w.terminal(at, sh("keep", "true"))
	kept.until("ready")
	_ = kept.conn.CloseNow()
	for range 2 {
		again := w.terminal(at, url.Values{"pid": {fmt.Sprint(kept.pid)}, "cols": {"101"}, "rows": {"51"}})
		if again.pid != kept.pid {
			t.Errorf("joined %d", again.pid)
		}
		again.types("stty size\n")
		again.until("51 101")
		_ = again.conn.CloseNow()
	}
	both := []*term{w.terminal(at, url.Values{"pid": {fmt.Sprint(kept.pid)}}), w.terminal(at, url.Values{"pid": {fmt.Sprint(kept.pid)}})}
	both[0].types("echo for both; exit 3\n")
	for _, x := range both {
		x.until("for both")
		if e := x.last(websocket.StatusNormalClosure); *e.ExitCode != 3 {
			t.Errorf("%+v", e)
		}
	}
	conn, _, err := w.dial(at+"/pty?pid=1073741824", nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &term{t: t, conn: conn}
	if e := x.last(websocket.StatusInternalError); e.Error == nil || e.Error.Code != rest.NotFound {
		t.Errorf("%+v", e)
	}
}

// TestWhatEndsATerminal, each with a word that says why.
func TestWhatEndsATerminal(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	sb := w.create(`{"template":"base"}`)
	at := "/v1/sandboxes/" + sb.ID
	for _, text := range []string{``, `{}`, `{"type":"resize","cols":0,"rows":1}`, `{"type":"resize","cols":1,"rows":1,"x":1}`, `[`, "\xff", `{"type":"close"}`} {
		x := w.terminal(at, sh())
		x.write(websocket.MessageText, text)
		if e := x.last(websocket.StatusPolicyViolation); e.Type != rest.TerminalBroken || e.Error == nil || e.Error.Code != rest.InvalidArgument {
			t.Errorf("%q: %+v", text, e)
		}
		w.ends(at, x.pid)
	}
	x := w.terminal(at, sh())
	x.types(strings.Repeat("x", 64<<10+1))
	var closed websocket.CloseError
	for err := error(nil); !errors.As(err, &closed); {
		if _, _, err = x.conn.Read(t.Context()); err != nil && !errors.As(err, &closed) {
			t.Fatal(err)
		}
	}
	if closed.Code != websocket.StatusMessageTooBig {
		t.Errorf("%+v", closed)
	}
	w.ends(at, x.pid)
	conn, _, err := w.dial(at+"/pty?cmd=no-such-program", nil)
	if err != nil {
		t.Fatal(err)
	}
	none := &term{t: t, conn: conn}
	if e := none.last(websocket.StatusPolicyViolation); e.Error == nil || e.Error.Code != rest.InvalidArgument {
		t.Errorf("%+v", e)
	}
	x = w.terminal(at, sh())
	as[struct{}](t, w.do(call{method: "DELETE", path: at}), 204)
	if e := x.last(websocket.StatusInternalError); e.Error == nil || e.Error.Code != rest.Unavailable && e.Error.Code != rest.FailedPrecondition {
		t.Errorf("%+v", e)
	}
}

// TestAFlood has a command show more than anybody takes: it waits, and nothing grows.
func TestAFlood(t *testing.T) {
	const most = 32 << 20
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	x := w.terminal(at, url.Values{"cmd": {"sh"}, "args": {"-c", "yes"}})
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		if runtime.ReadMemStats(&now); now.HeapAlloc > before.HeapAlloc+most {
			t.Fatalf("%d bytes more are in use", now.HeapAlloc-before.HeapAlloc)
		}
	}
	for len(x.shown) < 1<<20 { // it goes on where it was
		if e := x.next(); e != nil {
			t.Fatalf("%+v", e)
		}
	}
	if strings.Trim(x.shown, "y\r\n") != "" {
		t.Error("something else was shown")
	}
	_ = x.conn.CloseNow()
	w.ends(at, x.pid)
}
