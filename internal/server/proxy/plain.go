package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"wrenn.dev/wrenn/internal/server/portname"
)

// Plain requests are those that are asked most: GET and HEAD without a body. They are forwarded on the goroutine that serves them. ReverseProxy and
// Transport have two more for each connection, so that a body may be sent while its answer comes; where there is none, what they hand to each
// other and copy costs more than the rest. It is the same otherwise, but that it is known here when an answer has nothing more to read just
// now: then what there is goes out to the client, and not before.

// isPlain says whether a request is one.
func isPlain(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength == 0 && len(r.Header["Upgrade"]) == 0
}

// maxInformed is how many answers may come before the answer.
const maxInformed = 5

// errNothing is a connection that ended before the answer began. One that was used before may have been ended while nobody used it.
var errNothing = errors.New("the connection ended before there was an answer")

// forwardPlain forwards a plain request.
func (p *Proxy) forwardPlain(w http.ResponseWriter, r *http.Request, t portname.Target) {
	dropHops(r.Header)
	p.dress(r.Header, r)
	uri := *r.URL
	uri.RawQuery = withoutToken(uri.RawQuery)
	line := r.Method + " " + uri.RequestURI() + " HTTP/1.1\r\nHost: " + r.Host + "\r\n"
	if strings.Count(line, " ") != 3 { // HTTP/2 has paths with spaces
		p.broke(w, r, t, errors.New("a path with spaces is none"), false)
		return
	}
	to := address(t)
	for {
		conn, used := p.pool.take(to), true
		if conn == nil {
			var err error
			if conn, err = p.pool.connect(r.Context(), to); err != nil {
				p.broke(w, r, t, err, false)
				return
			}
			used = false
		}
		err := p.exchange(w, r, conn, line)
		if err == nil {
			return
		}
		if !used || !errors.Is(err, errNothing) || r.Context().Err() != nil {
			p.broke(w, r, t, err, false)
			return
		}
	}
}

// exchange sends a request on a connection and passes the answer on. An error is one before the answer began.
func (p *Proxy) exchange(w http.ResponseWriter, r *http.Request, conn *conn, line string) error {
	again := false
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer func() {
		// What comes unasked would be the next request's answer.
		if stop() && again && conn.r.Buffered() == 0 {
			p.pool.keep(conn)
			return
		}
		_ = conn.Close() // also of an answer of which there is more to come: it is not waited for
	}()
	if err := conn.send(line, r.Header); err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	conn.limit.N = maxAnswerHeader
	if _, err := conn.r.Peek(1); err != nil {
		return fmt.Errorf("%w: %w", errNothing, err)
	}
	resp, err := conn.answer(w, r)
	if err != nil {
		return err
	}
	conn.limit.N = math.MaxInt64
	known := resp.ContentLength >= 0 || resp.Body == http.NoBody
	p.answer(w, conn, resp, known)
	again = !resp.Close && (known || len(resp.TransferEncoding) > 0)
	return nil
}

// send writes a request.
func (c *conn) send(line string, header http.Header) error {
	_, _ = c.w.WriteString(line) // an error stays, and Flush tells it
	for name, values := range header {
		for _, v := range values {
			_, _ = c.w.WriteString(name)
			_, _ = c.w.WriteString(": ")
			_, _ = c.w.WriteString(v)
			_, _ = c.w.WriteString("\r\n")
		}
	}
	_, _ = c.w.WriteString("\r\n")
	return c.w.Flush()
}

// answer reads an answer's header, and passes on those that only inform.
func (c *conn) answer(w http.ResponseWriter, r *http.Request) (*http.Response, error) {
	for range maxInformed {
		resp, err := http.ReadResponse(c.r, r)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode >= http.StatusOK:
			return resp, nil
		case resp.StatusCode < http.StatusContinue:
			return nil, errStatus
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the server switches protocols, which was not asked for")
		}
		dropHops(resp.Header)
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		clear(w.Header())
	}
	return nil, fmt.Errorf("more than %d answers came before the answer", maxInformed)
}

// answer passes an answer on. What breaks in its midst breaks to the client as well.
func (p *Proxy) answer(w http.ResponseWriter, conn *conn, resp *http.Response, known bool) {
	h := w.Header()
	dropHops(resp.Header)
	maps.Copy(h, resp.Header)
	announced := len(resp.Trailer)
	if announced > 0 {
		h["Trailer"] = []string{strings.Join(slices.Sorted(maps.Keys(resp.Trailer)), ", ")}
	}
	w.WriteHeader(resp.StatusCode)
	if !known {
		flush(w)
	}
	p.body(w, conn, resp, known)
	prefix := ""
	if len(resp.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range resp.Trailer {
		h[prefix+name] = values
	}
}

// body passes an answer's body on, each piece at once: of one whose length is known, what is there to be read.
func (p *Proxy) body(w http.ResponseWriter, conn *conn, resp *http.Response, known bool) {
	if resp.Body == http.NoBody {
		return
	}
	buf := p.buffers.Get()
	defer p.buffers.Put(buf)
	for left := resp.ContentLength; left != 0; {
		if known && conn.r.Buffered() == 0 {
			flush(w)
		}
		n, err := resp.Body.Read(buf)
		if n > 0 {
			left -= int64(n)
			if _, err := w.Write(buf[:n]); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		switch {
		case err == io.EOF:
			return
		case err != nil:
			panic(http.ErrAbortHandler)
		case !known:
			flush(w)
		}
	}
}

// flush sends what there is. A client that has left is found out by what is written next.
func flush(w http.ResponseWriter) {
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// hops are the headers that are for one connection.
var hops = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// dropHops takes from a header what is for one connection, also as the header itself says.
func dropHops(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hops {
		delete(h, name)
	}
}
