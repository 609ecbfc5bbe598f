package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestARequestGoesOnAsItIs but for what says where it comes from, and what was meant for the proxy.
func TestARequestGoesOnAsItIs(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	var got *http.Request
	var body []byte
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		rw.Header().Add("Set-Cookie", "a=1")
		rw.Header().Add("Set-Cookie", "b=2")
		rw.Header().Set("Connection", "X-Hop")
		rw.Header().Set("X-Hop", "1")
		rw.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(rw, "tea")
	})
	req := w.request("PUT", id, 8000, "/a%2Fb//c?x=1;y=%zz&z", strings.NewReader("body"),
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "gopher", "X-Forwarded-Host", "evil", "X-Forwarded-Port", "6", "X-Real-Ip", "6.6.6.6", "X_forwarded_for", "6.6.6.6",
		"Forwarded", "for=6.6.6.6", "Wrenn-Access-Token", "secret", "E2b-Traffic-Access-Token", "secret", "Cookie", "x=1; wrenn-access-token=secret; y=2",
		"Connection", "X-Mine", "X-Mine", "1", "Authorization", "Bearer its-own", "E2b-Sandbox-Id", "other", "X-Kept", "yes")
	resp, text := w.do(w.client, req, http.StatusTeapot)
	if text != "tea" || string(body) != "body" || len(resp.Header.Values("Set-Cookie")) != 2 || resp.Header.Get("X-Hop") != "" {
		t.Errorf("%q %q %v", text, body, resp.Header)
	}
	if got.Method != "PUT" || got.RequestURI != "/a%2Fb//c?x=1;y=%zz&z" || got.Host != req.URL.Host || got.ProtoMajor != 1 {
		t.Errorf("%s %s to %s, %s", got.Method, got.RequestURI, got.Host, got.Proto)
	}
	if v := got.Header["X_forwarded_for"]; v != nil {
		t.Errorf("X_forwarded_for is %v", v)
	}
	for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": req.URL.Host,
		"X-Forwarded-Port": "", "X-Real-Ip": "", "Forwarded": "", "Wrenn-Access-Token": "", "E2b-Traffic-Access-Token": "", "Cookie": "x=1; y=2",
		"X-Mine": "", "Authorization": "Bearer its-own", "E2b-Sandbox-Id": "", "X-Kept": "yes"} {
		if v := strings.Join(got.Header.Values(name), "|"); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
}

// TestTheKindsOfHTTP that clients and servers speak, with trailers.
func TestTheKindsOfHTTP(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("Trailer", "Grpc-Status")
		fmt.Fprintf(rw, "%s %s %s %s", r.Proto, r.Host, body, r.Trailer.Get("X-Sum"))
		rw.Header().Set("Grpc-Status", "0")
		rw.Header().Set(http.TrailerPrefix+"Unannounced", "1")
	})
	for _, c := range []struct {
		client      *http.Client
		kind, proto string
	}{{w.client, "text/plain", "HTTP/1.1"}, {w.h2, "text/plain", "HTTP/1.1"}, {w.h2, "application/grpc", "HTTP/2.0"}} {
		req := w.request("POST", id, 8000, "/", io.MultiReader(strings.NewReader("chunked")), "Content-Type", c.kind, "Te", "trailers")
		req.Trailer = http.Header{"X-Sum": {"42"}}
		resp, text := w.do(c.client, req, 200)
		if want := fmt.Sprintf("%s %s chunked 42", c.proto, req.URL.Host); text != want {
			t.Errorf("%s: %q, want %q", c.kind, text, want)
		}
		if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Unannounced") != "1" {
			t.Errorf("%s: trailers %v", c.kind, resp.Trailer)
		}
	}
}

// TestStreams: each piece arrives before the next is sent, both ways at once.
func TestStreams(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(rw)
		_ = c.EnableFullDuplex()
		rw.Header().Set("Content-Type", "text/event-stream")
		_ = c.Flush()
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			fmt.Fprintf(rw, "data: %s\n\n", lines.Text())
			_ = c.Flush()
		}
	})
	for name, client := range map[string]*http.Client{"HTTP/1.1": w.client, "HTTP/2": w.h2} {
		in, out := io.Pipe()
		resp, err := client.Do(w.request("POST", id, 8000, "/", in))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 5 {
			fmt.Fprintln(out, i)
			if line, err := lines.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) || err != nil {
				t.Fatalf("%s: %q %v", name, line, err)
			}
			_, _ = lines.ReadString('\n')
		}
		out.Close()
		if rest, err := io.ReadAll(lines); len(rest) > 0 || err != nil {
			t.Errorf("%s: %q %v", name, rest, err)
		}
		resp.Body.Close()
	}
}

// upgrade begins a WebSocket, and returns the connection.
func (w *world) upgrade(id string, port int) (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.HTTP.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	req := w.request("GET", id, port, "/", nil, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if err := req.Write(c); err != nil {
		w.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, req)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "websocket" {
		w.t.Fatalf("%v %v", resp, err)
	}
	return c, r
}

// echo is a server that sends back what comes once it was upgraded.
func echo(rw http.ResponseWriter, r *http.Request) {
	c, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	_, _ = io.Copy(c, c)
}

func TestWebSockets(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	w.open(8000, echo)
	c, r := w.upgrade(id, 8000)
	for range 3 {
		frame := []byte{0x81, 0x85, 1, 2, 3, 4, 'h' ^ 1, 'e' ^ 2, 'l' ^ 3, 'l' ^ 4, 'o' ^ 1}
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, frame) {
			t.Fatalf("%q %v", got, err)
		}
	}
	w.api("POST", "/v1/sandboxes/"+id+"/pause", "", 200)
	if n, err := r.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("it goes on although the sandbox is paused")
	}
}

// big is how much is sent through as one body.
const big = 1 << 30

// zeros are as many as that.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	z.left -= n
	return n, nil
}

// TestLargeBodies are passed on as they come: this process, with client, server and all, stays small.
func TestLargeBodies(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		rw.Header().Set("X-Got", fmt.Sprint(n))
		_, _ = io.CopyBuffer(struct{ io.Writer }{rw}, &zeros{left: big}, make([]byte, 256<<10))
	})
	var most atomic.Uint64
	done := make(chan struct{})
	go func() {
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most.Store(max(most.Load(), m.HeapInuse))
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	began := time.Now()
	resp, err := w.client.Do(w.request("POST", id, 8000, "/", struct{ io.Reader }{&zeros{left: big}}))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	close(done)
	if n != big || err != nil || resp.Header.Get("X-Got") != fmt.Sprint(big) {
		t.Errorf("%d bytes came, %s went, %v", n, resp.Header.Get("X-Got"), err)
	}
	t.Logf("%d MiB each way in %v; the heap had at most %d MiB", big>>20, time.Since(began), most.Load()>>20)
	if most.Load() > 96<<20 {
		t.Errorf("the heap had %d MiB", most.Load()>>20)
	}
}

// TestABodyThatBreaksDoesNotLookWhole even when only the connection's end would tell.
func TestABodyThatBreaksDoesNotLookWhole(t *testing.T) {
	w := newWorld(t)
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
		_, _ = io.Copy(io.Discard, c)
	})
	for name, end := range map[string]func(id string){
		"paused":    func(id string) { w.api("POST", "/v1/sandboxes/"+id+"/pause", "", 200) },
		"destroyed": func(id string) { w.api("DELETE", "/v1/sandboxes/"+id, "", 204) },
	} {
		id := w.create(`,"public":true`)
		resp, err := w.client.Do(w.request("GET", id, 8000, "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		end(id)
		if rest, err := io.ReadAll(resp.Body); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: it looks whole: %q %v", name, rest, err)
		}
		resp.Body.Close()
	}
}

// TestNothingIsSmuggled: what is one request here is one there.
func TestNothingIsSmuggled(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	var seen atomic.Int64
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(r.URL.Path, "admin") || len(r.TransferEncoding) > 0 && r.Header.Get("Content-Length") != "" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		fmt.Fprintf(rw, "%q", body)
	})
	host := w.request("GET", id, 8000, "/", nil).URL.Host
	const smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, text := range map[string]string{
		"two lengths":  "Content-Length: 4\r\nContent-Length: 40\r\n\r\nbody" + smuggled,
		"both":         "Transfer-Encoding: chunked\r\nContent-Length: 100\r\nConnection: close\r\n\r\n0\r\n\r\n",
		"spaced":       "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"not chunked":  "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
		"twice":        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
		"two hosts":    "Host: " + host + "\r\n\r\n" + smuggled,
		"no length":    "Connection: close\r\n\r\n" + smuggled,
		"signed":       "Content-Length: +4\r\n\r\nbody" + smuggled,
		"hop by hop":   "Connection: close, Content-Length\r\nContent-Length: 4\r\n\r\nbody",
		"huge a chunk": "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nfffffffffffffffff\r\n",
	} {
		before := seen.Load()
		answer := w.raw("POST / HTTP/1.1\r\nHost: " + host + "\r\n" + text)
		if n := seen.Load() - before; n > 1 {
			t.Errorf("%s: %d requests arrived; the answer is %q", name, n, answer)
		}
	}
}

// TestConnectionsAreUsedAgain for the next request to the port.
func TestConnectionsAreUsedAgain(t *testing.T) {
	w := newWorld(t)
	id := w.create(`,"public":true`)
	w.open(8000, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, "ok") })
	before := w.Ports.Dials.Load()
	for range 20 {
		w.get(id, 8000, 200)
	}
	if n := w.Ports.Dials.Load() - before; n != 1 {
		t.Errorf("%d connections for 20 requests", n)
	}
}
