package envd

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

func TestMain(m *testing.M) {
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const (
	token    = "0123456789abcdef0123456789abcdef"
	patience = time.Minute
)

// known is a source that has the identity from the start.
type known Identity

func (k known) Identity(context.Context) (Identity, error) { return Identity(k), nil }

// unknown is a source that never has it.
type unknown struct{}

func (unknown) Identity(ctx context.Context) (Identity, error) {
	<-ctx.Done()
	return Identity{}, ctx.Err()
}

// users has "user", who runs the test, and "root" if that is somebody else.
func users(t testing.TB) user.DB {
	t.Helper()
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	db := user.DB{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	text := fmt.Sprintf("root:x:0:0::/:\nuser:x:%d:%d::%s:/bin/sh\n", os.Geteuid(), os.Getegid(), home)
	if err := os.WriteFile(db.Passwd, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return db
}

// serve starts an envd on a port of this machine and returns its URL.
func serve(t *testing.T, source Source) string {
	t.Helper()
	url, s := serveConfig(t, Config{Source: source})
	empty := source == Source(known{SandboxID: "cl-1"})
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, never := source.(unknown); never || empty || s.waker.wasAwake() {
			return url
		}
		if time.Now().After(end) {
			t.Fatal("the identity does not arrive")
		}
	}
}

// serveConfig does not wait for the identity. What the configuration lacks is a test's.
func serveConfig(t *testing.T, cfg Config) (string, *Server) {
	t.Helper()
	cfg.Users, cfg.Limits, cfg.Log = users(t), process.DefaultLimits(), slog.New(slog.DiscardHandler)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), s
}

func identity() known { return known{Token: token, SandboxID: "cl-1", TemplateID: "base"} }

// call sends a unary request or a stream's, and returns status and body.
func call(t *testing.T, url, method, contentType, body string, header map[string]string) (int, http.Header, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/process.Process/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set(headerToken, token)
	for name, value := range header {
		if req.Header.Set(name, value); value == "" {
			req.Header.Del(name)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

// unary calls a method with JSON.
func unary(t *testing.T, url, method, body string) (int, string) {
	t.Helper()
	status, _, b := call(t, url, method, "application/json", body, nil)
	return status, string(b)
}

const streamJSON = "application/connect+json"

// envelope is one message of a stream in bytes.
func envelope(flags byte, message string) string {
	b := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))
	return string(b) + message
}

// frame is one message of a stream, its JSON without spaces.
type frame struct {
	flags byte
	json  string
}

// frames takes a stream's body apart.
func frames(t *testing.T, body []byte) (list []frame) {
	t.Helper()
	for len(body) > 0 {
		if len(body) < 5 || len(body)-5 < int(binary.BigEndian.Uint32(body[1:])) {
			t.Fatalf("a broken envelope: %q", body)
		}
		n := binary.BigEndian.Uint32(body[1:])
		list = append(list, frame{body[0], compact(t, string(body[5:5+n]))})
		body = body[5+n:]
	}
	return list
}

// compact removes the spaces that the JSON encoder puts at random.
func compact(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return b.String()
}

// begin starts a stream and returns its body, read as it comes, and what ends it.
func begin(t *testing.T, url, method, body string, header map[string]string) (*events, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/process.Process/"+method, strings.NewReader(envelope(0, body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", streamJSON)
	req.Header.Set(headerToken, token)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return &events{t: t, r: resp.Body}, cancel
}

// events reads a stream one message at a time.
type events struct {
	t *testing.T
	r io.Reader
}

func (e *events) next() frame {
	e.t.Helper()
	head := make([]byte, 5)
	if _, err := io.ReadFull(e.r, head); err != nil {
		e.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(e.r, body); err != nil {
		e.t.Fatal(err)
	}
	return frames(e.t, append(head, body...))[0]
}

// pid reads the start event.
func (e *events) pid() int {
	e.t.Helper()
	f := e.next()
	var m struct {
		Event struct{ Start struct{ Pid int } }
	}
	if err := json.Unmarshal([]byte(f.json), &m); err != nil || m.Event.Start.Pid == 0 {
		e.t.Fatalf("the first event is %q, not a start", f.json)
	}
	return m.Event.Start.Pid
}

func selectPID(pid int) string { return fmt.Sprintf(`{"process":{"pid":%d}}`, pid) }

// encoded is a text as the JSON of an event has it.
func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// send gives a process input.
func send(t *testing.T, url, token string, pid int, text string) {
	t.Helper()
	code, _, body := call(t, url, "SendInput", "application/json",
		fmt.Sprintf(`{"process":{"pid":%d},"input":{"stdin":%q}}`, pid, encoded(text)), map[string]string{headerToken: token})
	if code != http.StatusOK {
		t.Fatalf("input: got %d %s", code, body)
	}
}
