package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	processpb "wrenn.dev/wrenn/proto/envd/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "0123456789abcdef0123456789abcdef"

// guest is a fake one. Each call that reaches it is answered by a function of the test, which may do with the connection what it
// likes. When that returns false the connection is closed.
type guest struct {
	answer func(c *call) (more bool)

	mu    sync.Mutex
	dials int
	calls []*call // all that came
}

// call is one request to the guest.
type call struct {
	net.Conn

	method string
	header http.Header
	body   []byte
}

// dial is a DialFunc.
func (g *guest) dial(context.Context, int) (net.Conn, error) {
	here, there := net.Pipe()
	g.mu.Lock()
	g.dials++
	g.mu.Unlock()
	go g.serve(there)
	return here, nil
}

func (g *guest) serve(conn net.Conn) {
	defer conn.Close()
	for r, more := bufio.NewReader(conn), true; more; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		c := &call{Conn: conn, method: path.Base(req.URL.Path), header: req.Header, body: body}
		g.mu.Lock()
		g.calls = append(g.calls, c)
		g.mu.Unlock()
		more = g.answer(c)
	}
}

// dialed is how many connections were made.
func (g *guest) dialed() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

// called lists the calls of a method.
func (g *guest) called(method string) (list []*call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.calls {
		if c.method == method {
			list = append(list, c)
		}
	}
	return list
}

// says writes texts, as far as they are taken.
func (c *call) says(texts ...string) {
	for _, text := range texts {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

// hangs does nothing until the host gives the connection up.
func (c *call) hangs() { _, _ = io.Copy(io.Discard, c) }

// fine answers a call that wants nothing back.
func (c *call) fine() bool {
	c.says("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 0\r\n\r\n")
	return true
}

// fails answers a call with an error.
func (c *call) fails(status int, code, message string) bool {
	body, err := json.Marshal(map[string]string{"code": code, "message": message})
	if err != nil {
		panic(err)
	}
	c.says(fmt.Sprintf("HTTP/1.1 %d No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
	return true
}

// request decodes what was sent.
func request[M any, P interface {
	*M
	proto.Message
}](t *testing.T, c *call) *M {
	t.Helper()
	m, body := new(M), c.body
	if strings.HasPrefix(c.header.Get("Content-Type"), "application/connect+") {
		body = body[5:]
	}
	if err := proto.Unmarshal(body, P(m)); err != nil {
		t.Fatal(err)
	}
	return m
}

// streaming is the head of an answer that is a stream. It lasts until the connection is closed.
const streaming = "HTTP/1.1 200 OK\r\nContent-Type: application/connect+proto\r\n\r\n"

// envelope is one message of a stream.
func envelope(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

// over is the message that ends a stream.
var over = envelope(2, "{}")

func event(e *processpb.ProcessEvent) string {
	b, err := proto.Marshal(&processpb.StartResponse{Event: e})
	if err != nil {
		panic(err)
	}
	return envelope(0, string(b))
}

func started(pid uint32) string {
	return event(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_Start{Start: &processpb.ProcessEvent_StartEvent{Pid: pid}}})
}

func stdout(text string) string {
	return event(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_Data{
		Data: &processpb.ProcessEvent_DataEvent{Output: &processpb.ProcessEvent_DataEvent_Stdout{Stdout: []byte(text)}}}})
}

func keptAlive() string {
	return event(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_Keepalive{Keepalive: &processpb.ProcessEvent_KeepAlive{}}})
}

func ended(e *processpb.ProcessEvent_EndEvent) string {
	return event(&processpb.ProcessEvent{Event: &processpb.ProcessEvent_End{End: e}})
}

func exited(code int32) string {
	return ended(&processpb.ProcessEvent_EndEvent{ExitCode: code, Exited: true, Status: "it does not matter"})
}

func signaled(status string) string {
	return ended(&processpb.ProcessEvent_EndEvent{ExitCode: -1, Status: status})
}

// bubble runs a test on a clock that moves only when everything waits. It fails when a goroutine stays.
func bubble(t *testing.T, g *guest, test func(t *testing.T, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := New(g.dial, token)
		test(t, c)
		c.Close()
		time.Sleep(2 * lateness) // a last signal may be under way for so long
	})
}

// starting is a guest that answers Start and nothing else.
func starting(answer func(c *call)) *guest {
	return &guest{answer: func(c *call) bool {
		if c.method != "Start" {
			return c.fine()
		}
		answer(c)
		return false
	}}
}

// maxErrorText is more than any error of the package takes, in bytes.
const maxErrorText = 2000

// printable fails when an error is no bounded line that a terminal shows as it is.
func printable(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	text := err.Error()
	if len(text) > maxErrorText {
		t.Errorf("the error has %d bytes", len(text))
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			t.Errorf("the error %q has %q in it", text[:min(len(text), maxErrorText)], r)
		}
	}
}

// lasts calls f and returns how long that took, by the clock of the bubble.
func lasts(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}
