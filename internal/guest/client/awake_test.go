package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/guest/clone"
	"wrenn.dev/wrenn/internal/guest/envd"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

const (
	firstToken  = "0123456789abcdef0123456789abcdef"
	secondToken = "fedcba9876543210fedcba9876543210"
)

// host is the host's side of a real envd that runs in this process: the metadata, and the machine as far as envd asks for it.
type host struct {
	mu     sync.Mutex
	id     envd.Identity
	reason error // why the machine can't be made distinct
	made   int
	addr   string
}

func (h *host) set(token, start string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id = envd.Identity{Token: token, Start: start, SandboxID: "cl-1"}
}

func (h *host) Identity(ctx context.Context) (envd.Identity, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id, context.Cause(ctx)
}

func (h *host) Freeze() error { return nil }

func (h *host) Distinguish(context.Context, clone.Identity) (clone.Report, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.made++
	return clone.Report{Offset: 3 * time.Second, Steps: []clone.Step{{Name: "random", Took: time.Millisecond, Note: "x"}}}, h.reason
}

// client returns a client that shows a token.
func (h *host) client(t *testing.T, token string) *client.Client {
	t.Helper()
	c := client.New(func(ctx context.Context, _ int) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", h.addr)
	}, token)
	t.Cleanup(c.Close)
	return c
}

// newHost starts an envd under the start "a".
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{}
	h.set(firstToken, "a")
	dir := t.TempDir()
	db := user.DB{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	text := fmt.Sprintf("user:x:%d:%d::%s:/bin/sh\n", os.Geteuid(), os.Getegid(), dir)
	if err := os.WriteFile(db.Passwd, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = ln.Addr().String()
	server := envd.New(envd.Config{Source: h, Machine: h, Users: db, Limits: process.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
		TokenPatience: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return h
}

// inTime is a context that ends when a test hangs.
func inTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// ready waits for the envd under its first token.
func (h *host) ready(t *testing.T) *client.Client {
	t.Helper()
	c := h.client(t, firstToken)
	if err := c.WaitReady(inTime(t)); err != nil {
		t.Fatal(err)
	}
	h.set("", "a")
	return c
}

func TestQuiesceAndWakeAsAClone(t *testing.T) {
	h := newHost(t)
	old := h.ready(t)
	if err := old.Quiesce(inTime(t)); err != nil {
		t.Fatal(err)
	}
	if err := old.Quiesce(inTime(t)); !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "frozen or starting") {
		t.Errorf("a second quiesce: got %v", err)
	}
	if _, err := old.List(inTime(t)); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("a list meanwhile: got %v", err)
	}
	h.set(secondToken, "b")
	c := h.client(t, secondToken)
	awake, err := c.WaitAwake(inTime(t))
	if err != nil {
		t.Fatal(err)
	}
	if awake.Start != "b" || !awake.Reseeded || awake.ClockOffset != 3*time.Second || len(awake.Steps) != 3 ||
		awake.Steps[1] != (client.AwakeStep{Name: "random", Took: time.Millisecond, Note: "x"}) {
		t.Errorf("got %+v", awake)
	}
	if err := h.client(t, firstToken).Quiesce(inTime(t)); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("the old token: got %v", err)
	}
	if list, err := c.List(inTime(t)); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

// TestWakeAfterAMoment uses one client throughout, whose connections from before are not used again.
func TestWakeAfterAMoment(t *testing.T) {
	h := newHost(t)
	c := h.ready(t)
	if err := c.Quiesce(inTime(t)); err != nil {
		t.Fatal(err)
	}
	h.set(firstToken, "a")
	if awake, err := c.WaitAwake(inTime(t)); err != nil || awake.Start != "a" || awake.Reseeded || h.made != 0 {
		t.Errorf("got %+v, %v", awake, err)
	}
}

// TestAnotherTokenIsWanted wakes a guest that was given another token than the one that the caller has.
func TestAnotherTokenIsWanted(t *testing.T) {
	h := newHost(t)
	h.ready(t)
	h.set(secondToken, "b")
	if _, err := h.client(t, firstToken).WaitAwake(inTime(t)); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("got %v", err)
	}
}

// TestTheGuestRefusesToWake ends after a few refusals, with the guest's reason.
func TestTheGuestRefusesToWake(t *testing.T) {
	h := newHost(t)
	h.ready(t)
	h.reason = errors.New("no reseed \x1b[31m")
	h.set(secondToken, "b")
	_, err := h.client(t, secondToken).WaitAwake(inTime(t))
	if !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), `no reseed \u001b[31m`) || h.made != 3 {
		t.Errorf("got %v after %d", err, h.made)
	}
}

// TestWakeTriesAgain wakes a guest whose metadata gets the token late, and which can't be reached at first.
func TestWakeTriesAgain(t *testing.T) {
	h := newHost(t)
	h.ready(t)
	var dials atomic.Int32
	c := client.New(func(ctx context.Context, _ int) (net.Conn, error) {
		if n := dials.Add(1); n < 5 {
			return nil, errors.New("no route")
		} else if n == 5 {
			h.set(secondToken, "b")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", h.addr)
	}, secondToken)
	defer c.Close()
	if awake, err := c.WaitAwake(inTime(t)); err != nil || awake.Start != "b" {
		t.Errorf("got %+v, %v", awake, err)
	}
}

// TestNobodyAnswers ends with the context.
func TestNobodyAnswers(t *testing.T) {
	c := client.New(func(context.Context, int) (net.Conn, error) { return nil, errors.New("no route") }, secondToken)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.WaitAwake(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// hostile is a guest that gives every request the same bytes as an answer. seen gets the requests.
func hostile(t *testing.T, answer string, seen func(*http.Request)) *client.Client {
	t.Helper()
	var served sync.WaitGroup
	c := client.New(func(context.Context, int) (net.Conn, error) {
		here, there := net.Pipe()
		served.Go(func() {
			defer there.Close()
			r := bufio.NewReader(there)
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if seen != nil {
				seen(req)
			}
			go func() { _, _ = io.Copy(io.Discard, r) }()
			_, _ = io.WriteString(there, answer)
		})
		return here, nil
	}, firstToken)
	t.Cleanup(func() { c.Close(); served.Wait() })
	return c
}

func answering(status, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

func TestHostileAnswers(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		answer string
		kind   error
		text   string
	}{
		"a reason with escapes":     {answering("503 no", "{\"message\":\"a\\u001b]0;b\\u202ec\\n\"}"), errs.ErrUnavailable, `a\u001b]0;b\u202ec\u000a`},
		"a long reason":             {answering("503 no", `{"message":"`+long+`"}`), errs.ErrUnavailable, "status 503"},
		"a reason at the limit":     {answering("500 no", `{"message":"`+long[:10000]+`"}`), errs.ErrUnavailable, "xxx…"},
		"a reason that is none":     {answering("503 no", `{"message":5}`), errs.ErrUnavailable, "status 503"},
		"no JSON":                   {answering("503 no", "\x1b[2J"), errs.ErrUnavailable, "status 503"},
		"a redirect":                {"HTTP/1.1 302 x\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", errs.ErrUnavailable, "status 302"},
		"an old envd":               {answering("401 no", `{}`), errs.ErrFailedPrecondition, "too old"},
		"an endless head":           {"HTTP/1.1 200 x\r\n" + strings.Repeat("A: b\r\n", 1<<18), errs.ErrUnavailable, ""},
		"an endless reason":         {"HTTP/1.1 503 x\r\n\r\n" + long + long, errs.ErrUnavailable, "status 503"},
		"no HTTP":                   {"SSH-2.0-x\r\n", errs.ErrUnavailable, ""},
		"nothing":                   {"", errs.ErrUnavailable, ""},
		"awake, but not JSON":       {answering("200 yes", `[]`), errs.ErrUnavailable, ""},
		"awake, but cut":            {"HTTP/1.1 200 yes\r\nContent-Length: 10\r\n\r\n{", errs.ErrUnavailable, ""},
		"awake, endlessly":          {"HTTP/1.1 200 yes\r\n\r\n" + long, errs.ErrUnavailable, ""},
		"awake, then not envd's at": {answering("200 yes", `{"start":"a"}`), errs.ErrUnavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var tokens []string
			var mu sync.Mutex
			guest := hostile(t, c.answer, func(r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.URL.Path == "/wake" {
					tokens = append(tokens, r.Header.Get("X-Access-Token"))
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			awake, err := guest.WaitAwake(ctx)
			// What is no refusal is tried again until the context ends, and then a try may be cut short.
			if !errors.Is(err, c.kind) && (c.text != "" || !errors.Is(err, context.DeadlineExceeded)) || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("got %+v, %v", awake, err)
			}
			harmless(t, err)
			mu.Lock()
			defer mu.Unlock()
			if slices.ContainsFunc(tokens, func(s string) bool { return s != "" }) {
				t.Errorf("it was shown the token: %q", tokens)
			}
		})
	}
}

func TestHostileQuiesce(t *testing.T) {
	for answer, kind := range map[string]error{
		answering("503 no", `{"message":"because\r\n"}`): errs.ErrUnavailable, answering("401 no", ""): errs.ErrUnauthenticated,
		answering("200 yes", ""): errs.ErrUnavailable, "": errs.ErrUnavailable,
		"HTTP/1.1 503 x\r\n\r\n" + strings.Repeat("y", 1<<20): errs.ErrUnavailable,
	} {
		err := hostile(t, answer, nil).Quiesce(inTime(t))
		if !errors.Is(err, kind) {
			t.Errorf("%.40q: got %v", answer, err)
		}
		harmless(t, err)
	}
}

// harmless checks that an error is one short line.
func harmless(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if len(err.Error()) > 2000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("the error is %q", err)
	}
}
