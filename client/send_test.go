package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wrenn.dev/wrenn/client"
)

// script answers requests in turn, without a network; the last answer goes on.
type script struct {
	answers []func(*http.Request) (*http.Response, error)
	seen    []*http.Request
	bodies  []string
	at      []time.Time
}

// RoundTrip implements http.RoundTripper.
func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(raw)
	}
	s.seen, s.bodies, s.at = append(s.seen, r), append(s.bodies, body), append(s.at, time.Now())
	return s.answers[min(len(s.seen), len(s.answers))-1](r)
}

func answer(status int, body string, header ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

func fails(err error) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) { return nil, err }
}

func refusal(code string) string {
	return fmt.Sprintf(`{"code":%q,"message":"it can't","field":"vcpus","fix":"give fewer","request_id":"rq-1"}`, code)
}

var errCut = errors.New("connection reset")

func scripted(t *testing.T, s *script, options ...client.Option) *client.Client {
	t.Helper()
	options = append([]client.Option{client.WithAPIKey("wrenn_k"), client.WithHTTPClient(&http.Client{Transport: s})}, options...)
	c, err := client.New("http://wrenn.test/below", options...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	gone    = `{"id":"cl-0123456789abcdefghij","state":"stopped"}`
	someone = "cl-0123456789abcdefghij"
)

// TestWhatIsAskedAgain: what can't happen twice is, as often as it may; nothing else is.
func TestWhatIsAskedAgain(t *testing.T) {
	get := func(c *client.Client) error { _, err := c.Sandboxes.Get(context.Background(), someone); return err }
	create := func(c *client.Client) error {
		_, err := c.Sandboxes.Create(context.Background(), client.CreateOptions{Template: "base"})
		return err
	}
	exec := func(c *client.Client) error {
		_, err := c.Sandboxes.Of(someone).Exec(context.Background(), client.Command{Cmd: "x"})
		return err
	}
	start := func(c *client.Client) error {
		_, err := c.Sandboxes.Of(someone).Start(context.Background(), client.Command{Cmd: "x"})
		return err
	}
	key := func(c *client.Client) error {
		_, _, err := c.Keys.Create(context.Background(), client.CreateKeyOptions{Name: "x"})
		return err
	}
	destroy := func(c *client.Client) error { return c.Sandboxes.Of(someone).Destroy(context.Background()) }
	remove := func(c *client.Client) error { return c.Snapshots.Delete(context.Background(), "one") }
	cut, busy := fails(errCut), answer(503, refusal("unavailable"))
	proxy, full := answer(502, "<html>"), answer(429, refusal("resource_exhausted"), "Retry-After", "2")
	dial := fails(&net.OpError{Op: "dial", Err: errCut})
	for _, c := range []struct {
		name   string
		do     func(*client.Client) error
		answer func(*http.Request) (*http.Response, error)
		asked  int
		kind   error
	}{
		{"get cut", get, cut, 4, client.ErrUnavailable}, {"get busy", get, busy, 4, client.ErrUnavailable}, {"get proxy", get, proxy, 4, client.ErrUnavailable},
		{"get full", get, full, 4, client.ErrResourceExhausted}, {"get full for good", get, answer(429, refusal("resource_exhausted")), 1, client.ErrResourceExhausted},
		{"get missing", get, answer(404, refusal("not_found")), 1, client.ErrNotFound}, {"get broken", get, answer(500, refusal("internal")), 1, client.ErrInternal},
		{"get wait too long", get, answer(503, refusal("unavailable"), "Retry-After", "9000"), 1, client.ErrUnavailable},
		{"create cut", create, cut, 4, errCut}, {"create busy", create, busy, 4, client.ErrUnavailable}, {"create bad", create, answer(400, refusal("invalid_argument")), 1, client.ErrInvalid},
		{"destroy cut", destroy, cut, 4, errCut}, {"snapshot cut", remove, cut, 1, errCut}, {"snapshot unsent", remove, dial, 4, errCut},
		{"exec cut", exec, cut, 4, errCut}, {"exec busy", exec, busy, 1, client.ErrUnavailable}, {"exec full", exec, full, 4, client.ErrResourceExhausted},
		{"exec over", exec, answer(504, refusal("deadline_exceeded")), 1, client.ErrTimeout},
		{"start cut", start, cut, 1, errCut}, {"start busy", start, busy, 1, client.ErrUnavailable}, {"start unsent", start, dial, 4, client.ErrUnavailable},
		{"key cut", key, cut, 1, errCut}, {"key busy", key, busy, 1, client.ErrUnavailable}, {"key unsent", key, dial, 4, errCut},
		{"moved", get, answer(302, "", "Location", "http://elsewhere.test"), 1, client.ErrInternal},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{answers: []func(*http.Request) (*http.Response, error){c.answer}}
			err := c.do(scripted(t, s))
			if !errors.Is(err, c.kind) || len(s.seen) != c.asked {
				t.Errorf("%s: asked %d times, want %d: %v", c.name, len(s.seen), c.asked, err)
			}
			for i, r := range s.seen {
				if r.URL.Host != "wrenn.test" || !strings.HasPrefix(r.URL.Path, "/below/v1/") || r.Header.Get("Authorization") != "Bearer wrenn_k" ||
					s.bodies[i] != s.bodies[0] || r.Header.Get("Idempotency-Key") != s.seen[0].Header.Get("Idempotency-Key") {
					t.Errorf("%s: request %d is %v with %q", c.name, i, r, s.bodies[i])
				}
			}
		})
	}
}

// TestAskingAgainWaits: longer each time, and as long as the server says.
func TestAskingAgainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){
			fails(errCut), fails(errCut), answer(503, refusal("unavailable"), "Retry-After", "7"), answer(200, gone)}}
		sb, err := scripted(t, s).Sandboxes.Get(t.Context(), someone)
		if err != nil || sb.State != client.Stopped {
			t.Fatal(sb, err)
		}
		for i, least := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 7 * time.Second} {
			if took := s.at[i+1].Sub(s.at[i]); took < least || took > 2*least {
				t.Errorf("it waited %v before try %d, and at least %v is right", took, i+2, least)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){fails(errCut)}}
		if _, err := scripted(t, s, client.WithRetries(0)).Sandboxes.Get(t.Context(), someone); !errors.Is(err, errCut) || len(s.seen) != 1 {
			t.Error(err, len(s.seen))
		}
	})
}

// TestContextsAreObeyed: also while it waits to ask again, for which nobody waits whose time will be over.
func TestContextsAreObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){answer(503, refusal("unavailable"), "Retry-After", "30")}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := scripted(t, s).Sandboxes.Get(ctx, someone); !errors.Is(err, client.ErrUnavailable) || time.Since(began) > 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { stop(errCut) })
		_, err := scripted(t, s).Sandboxes.Get(ctx, someone)
		if !errors.Is(err, client.ErrUnavailable) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		s.answers = []func(*http.Request) (*http.Response, error){func(r *http.Request) (*http.Response, error) { return nil, r.Context().Err() }}
		if _, err := scripted(t, s).Sandboxes.Get(ctx, someone); !errors.Is(err, errCut) || errors.Is(err, client.ErrUnavailable) {
			t.Error(err)
		}
	})
}

func TestErrorsTellAll(t *testing.T) {
	s := &script{answers: []func(*http.Request) (*http.Response, error){answer(429, refusal("resource_exhausted"), "Retry-After", "3")}}
	_, err := scripted(t, s, client.WithRetries(0)).Sandboxes.Get(t.Context(), someone)
	var e *client.Error
	want := client.Error{Status: 429, Code: "resource_exhausted", Message: "it can't", Field: "vcpus", Fix: "give fewer", RequestID: "rq-1", RetryAfter: 3 * time.Second}
	if !errors.As(err, &e) || *e != want || err.Error() != "vcpus: it can't; give fewer" {
		t.Errorf("%v is %+v", err, e)
	}
	for status, kind := range map[int]error{401: client.ErrUnauthenticated, 403: client.ErrPermissionDenied, 404: client.ErrNotFound, 413: client.ErrTooLarge,
		418: client.ErrInternal, 429: client.ErrResourceExhausted, 504: client.ErrUnavailable} {
		s := &script{answers: []func(*http.Request) (*http.Response, error){answer(status, "<html>a proxy's page")}}
		if _, err := scripted(t, s, client.WithRetries(0)).Sandboxes.Get(t.Context(), someone); !errors.Is(err, kind) || !strings.Contains(err.Error(), "a proxy's page") {
			t.Errorf("%d is %v", status, err)
		}
	}
}

// TestAnswersAreNotBelieved: what is no answer of ours, or has no end, is an error and no more is read of it.
func TestAnswersAreNotBelieved(t *testing.T) {
	endless := func(status int, start string) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			resp, err := answer(status, "")(r)
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(start), forever{}))
			return resp, err
		}
	}
	get := func(c *client.Client) error { _, err := c.Sandboxes.Get(t.Context(), someone); return err }
	start := func(c *client.Client) error {
		p, err := c.Sandboxes.Of(someone).Start(t.Context(), client.Command{Cmd: "x"})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}
	events := func(c *client.Client) error {
		for _, err := range c.Events(t.Context(), client.EventOptions{}) {
			return err
		}
		return nil
	}
	for name, c := range map[string]struct {
		do     func(*client.Client) error
		answer func(*http.Request) (*http.Response, error)
		kind   error
	}{
		"html": {get, answer(200, "<html>", "Content-Type", "text/html"), client.ErrInternal}, "no json": {get, answer(200, "{"), client.ErrInternal},
		"endless": {get, endless(200, "{"), client.ErrTooLarge}, "endless error": {get, endless(500, ""), client.ErrInternal},
		"endless line": {start, endless(200, ""), client.ErrInternal}, "no first": {start, answer(200, `{"type":"stdout"}`+"\n"), client.ErrInternal},
		"not base64":    {start, answer(200, `{"type":"started","pid":1}`+"\n"+`{"type":"stdout","encoding":"base64","data":"*"}`+"\n"), client.ErrInternal},
		"cut":           {start, answer(200, `{"type":"started","pid":1}`+"\n"+`{"type":"stdout","encoding":"utf-8","data":"x"}`+"\n"), client.ErrUnavailable},
		"error":         {start, answer(200, `{"type":"started","pid":1}`+"\n"+`{"type":"error","error":`+refusal("failed_precondition")+`}`+"\n"), client.ErrFailedPrecondition},
		"endless event": {events, endless(200, "data: "), client.ErrInternal}, "no event": {events, answer(200, "id: 1.1\ndata: x\n\n"), client.ErrInternal},
	} {
		s := &script{answers: []func(*http.Request) (*http.Response, error){c.answer}}
		if err := c.do(scripted(t, s, client.WithRetries(0))); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type forever struct{}

// Read implements io.Reader.
func (forever) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestEventsGoOn: after a break, and after silence, with the last event's id; until too many breaks come one after the other.
func TestEventsGoOn(t *testing.T) {
	event := func(id string) string {
		return "id: " + id + "\nevent: state\ndata: {\"sandbox_id\":\"" + someone + "\",\"state\":\"running\"}\n\n"
	}
	silent := func(r *http.Request) (*http.Response, error) {
		resp, err := answer(200, "")(r)
		reader, writer := io.Pipe()
		context.AfterFunc(r.Context(), func() { writer.CloseWithError(r.Context().Err()) })
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(event("1.2")), reader), reader}
		return resp, err
	}
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: []func(*http.Request) (*http.Response, error){answer(200, "id: 1.0\n\n: quiet\n\n"+event("1.1")), silent, fails(errCut),
			answer(200, event("1.3")), fails(errCut)}}
		var got []string
		var last error
		for e, err := range scripted(t, s).Events(t.Context(), client.EventOptions{Sandbox: someone}) {
			if last = err; err == nil {
				got = append(got, e.ID)
			}
		}
		var asked []string
		for _, r := range s.seen {
			asked = append(asked, r.Header.Get("Last-Event-ID"))
		}
		if fmt.Sprint(got) != "[1.1 1.2 1.3]" || !errors.Is(last, errCut) || fmt.Sprint(asked[:5]) != "[ 1.1 1.2 1.2 1.3]" || len(asked) != 4+15 {
			t.Errorf("%v, asked after %q: %v", got, asked, last)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for _, address := range []string{"", "wrenn.test", "ftp://x", "http://", "http://u:p@x", "http://x/?a", "http://x/#a", "http://[", "unix:///x"} {
		var e *client.Error
		if _, err := client.New(address); !errors.As(err, &e) || e.Field != "url" || !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := client.New("http://x", client.WithAPIKey("a\nb")); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
	c, err := client.New("http://x")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := client.New("http://x/y", client.WithAPIKey("wrenn_secret")); err != nil || strings.Contains(fmt.Sprintf("%v %+v %#v %s", c, c, c, c), "secret") {
		t.Errorf("%#v, %v", c, err)
	}
	for _, id := range []string{"", ".", ".."} {
		if _, err := c.Sandboxes.Get(t.Context(), id); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := c.Sandboxes.Create(t.Context(), client.CreateOptions{TTL: time.Millisecond}); !errors.Is(err, client.ErrInvalid) {
		t.Error(err)
	}
}
