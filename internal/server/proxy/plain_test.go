package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// raw is a server that answers the requests of each connection with these bytes, in turn, and then ends it.
type raw struct {
	answers []string
	conns   atomic.Int64
	gone    chan struct{} // told for each connection that the other side ended
}

func (s *raw) start(t *testing.T) func() (net.Conn, error) {
	t.Helper()
	s.gone = make(chan struct{}, 100)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			go s.serve(c)
		}
	}()
	return func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }
}

func (s *raw) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for _, answer := range s.answers {
		req, err := http.ReadRequest(r)
		if err != nil {
			s.gone <- struct{}{}
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		if _, err := io.WriteString(c, strings.TrimSuffix(answer, "…")); err != nil {
			return
		}
		if strings.HasSuffix(answer, "…") { // there would be more
			_, _ = r.ReadByte()
			s.gone <- struct{}{}
			return
		}
	}
}

// front is a proxy on a real address before a raw server.
func front(t *testing.T, s *raw) string {
	t.Helper()
	p, _ := proxied(t, &fakes{route: running, dial: s.start(t)})
	f := httptest.NewServer(p.Handler(http.NotFoundHandler()))
	t.Cleanup(f.Close)
	return f.URL
}

// request asks the front for the port, by the name that it has.
func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		req.Body, req.ContentLength = nil, 0
	}
	req.Host = "80-" + sandbox[3:] + ".localhost"
	return req
}

// TestAnswersThatComeAsBytes whatever they are: with a body and without, which take different ways.
func TestAnswersThatComeAsBytes(t *testing.T) {
	const bad = "502 gave no answer that can be read"
	for name, c := range map[string]struct{ answer, want string }{
		"a length":         {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200 hello"},
		"nothing":          {"HTTP/1.1 204 No Content\r\n\r\n", "204 "},
		"pieces":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "200 hello"},
		"until the end":    {"HTTP/1.0 200 OK\r\n\r\nhello", "200 hello"},
		"information":      {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "103 200 ok"},
		"too much of it":   {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 7) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "103 103 103 103 103 " + bad},
		"no status":        {"HTTP/1.1 042 What\r\nContent-Length: 0\r\n\r\n", bad},
		"an odd status":    {"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", "999 "},
		"another protocol": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", bad},
		"no HTTP":          {"220 smtp ready\r\n", bad},
		"nothing at all":   {"", bad},
		"a long header":    {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxAnswerHeader) + "\r\n\r\n", bad},
		"a bad length":     {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", bad},
		"a broken length":  {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "broken"},
		"a broken piece":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "broken"},
		"two answers":      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "200 ok"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := front(t, &raw{answers: []string{c.answer}})
			for _, body := range []string{"", "body"} {
				if name == "too much of it" && body != "" {
					continue // Transport counts bytes instead
				}
				got := ""
				req := request(t, map[string]string{"": "GET", "body": "POST"}[body], url, body)
				req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
					Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { got += fmt.Sprint(code, " "); return nil }}))
				resp, err := http.DefaultClient.Do(req)
				if err == nil {
					var all []byte
					if all, err = io.ReadAll(resp.Body); err == nil {
						got += fmt.Sprintf("%d %s", resp.StatusCode, all)
					}
					resp.Body.Close()
				}
				if err != nil {
					got = "broken"
				}
				if !strings.HasPrefix(got, strings.Split(c.want, "gave")[0]) || strings.Contains(c.want, "gave") != strings.Contains(got, "gave no answer") || strings.Contains(got, "evil") {
					t.Errorf("with the body %q: %.300q, want %q", body, got, c.want)
				}
			}
		})
	}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestConnectionsOfPlainRequests are used again as long as they are good.
func TestConnectionsOfPlainRequests(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string
		conns   int64
	}{
		"good":             {[]string{ok, ok, ok, ok, ok}, 1},
		"ended afterwards": {[]string{ok}, 5},
		"closing":          {[]string{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", ok}, 5},
		"with more":        {[]string{ok + "more", ok}, 5},
		"in pieces":        {[]string{strings.Replace(ok, "Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1), ok, ok, ok, ok}, 1},
	} {
		s := &raw{answers: c.answers}
		url := front(t, s)
		for i := range 5 {
			resp, err := http.DefaultClient.Do(request(t, "GET", url, ""))
			if err != nil {
				t.Fatal(err)
			}
			if all, err := io.ReadAll(resp.Body); string(all) != "ok" || err != nil {
				t.Fatalf("%s, request %d: %d %q %v", name, i, resp.StatusCode, all, err)
			}
			resp.Body.Close()
		}
		if n := s.conns.Load(); n != c.conns {
			t.Errorf("%s: %d connections, want %d", name, n, c.conns)
		}
	}
}

// TestAClientThatLeavesEndsIt at the server as well, before the answer and in its midst.
func TestAClientThatLeavesEndsIt(t *testing.T) {
	for name, answer := range map[string]string{"before": "…", "in its midst": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome…"} {
		s := &raw{answers: []string{answer}}
		url := front(t, s)
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if err := request(t, "GET", url, "").Write(c); err != nil {
			t.Fatal(err)
		}
		if name != "before" {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		for s.conns.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		c.Close()
		select {
		case <-s.gone:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the server is not told", name)
		}
	}
}

// TestIdleConnectionsGo after their time.
func TestIdleConnectionsGo(t *testing.T) {
	s := &raw{answers: []string{ok, ok}}
	p, ask := proxied(t, &fakes{route: running, dial: s.start(t)})
	if w := ask(); w.Code != 200 {
		t.Fatal(w.Code, w.Body)
	}
	p.pool.sweep(time.Hour)
	if p.pool.count != 1 || len(p.pool.idle) != 1 {
		t.Errorf("%d are idle", p.pool.count)
	}
	p.pool.sweep(0)
	<-s.gone
	if p.pool.count != 0 || len(p.pool.idle) != 0 {
		t.Errorf("%d are idle", p.pool.count)
	}
}

// TestAnAnswerThatComesEarly while the body is still sent ends the client's connection, and nothing else.
func TestAnAnswerThatComesEarly(t *testing.T) {
	p, _ := proxied(t, &fakes{route: running, dial: upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "early")
	})})
	f := httptest.NewServer(p.Handler(http.NotFoundHandler()))
	defer f.Close()
	for range 20 {
		c, err := net.Dial("tcp", f.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: 80-%s.localhost\r\nContent-Length: 1000\r\n\r\nsome", sandbox[3:])
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(resp.Body); string(all) != "early" || err != nil || !resp.Close {
			t.Fatalf("%q %v, %v", all, err, resp.Header)
		}
		_, _ = c.Write(make([]byte, 996))
		if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		c.Close()
	}
}
