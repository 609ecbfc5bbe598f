package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/portname"
)

const (
	// upstreamIdle is how long a connection to a port is kept for another request. It is short, because an open connection is activity of the
	// sandbox, whose time to live begins when it ends.
	upstreamIdle    = 5 * time.Second
	maxIdle         = 4096
	maxIdlePort     = 64
	maxAnswerHeader = 256 << 10 // bytes
	bufferBytes     = 64 << 10
	continueTime    = time.Second
	// flushTime is so short that a short answer goes out in one piece with its header, and a long one as it comes.
	flushTime = time.Millisecond
	// dialTries is how often a port that does not answer is tried, with a longer pause each time: a server that restarts is met again.
	dialTries = 5
	dialPause = 100 * time.Millisecond
)

// transport makes connections to ports. Compressed or not, what comes is passed on as it is.
func (p *Proxy) transport(http2 bool) *http.Transport {
	t := &http.Transport{DialContext: p.dial, DisableCompression: true, MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdlePort,
		IdleConnTimeout: upstreamIdle, MaxResponseHeaderBytes: maxAnswerHeader, ExpectContinueTimeout: continueTime,
		ReadBufferSize: bufferBytes, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(!http2)
	t.Protocols.SetUnencryptedHTTP2(http2)
	return t
}

// reverse forwards over a transport. A piece of an answer of known length waits for the next as long as flushTime; pieces of all others are
// streams, and wait for nothing.
func (p *Proxy) reverse(t http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{Transport: t, Rewrite: p.rewrite, FlushInterval: flushTime, BufferPool: &p.buffers, ErrorHandler: p.failed, ModifyResponse: answered,
		ErrorLog: log.New(io.Discard, "", 0)} // what a guest does wrong is no line in our log
}

var errStatus = errors.New("the answer's status is none")

// address is what dial makes a connection to.
func address(t portname.Target) string { return strconv.Itoa(t.Port) + "-" + t.Sandbox }

// pass forwards a request and its answer, both as streams, in either direction at any time.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, t portname.Target) {
	if r.Method == http.MethodConnect {
		p.refuse(w, r, t, &noTunnels)
		return
	}
	if isPlain(r) {
		p.forwardPlain(w, r, t)
		return
	}
	to := p.other
	if isGRPC(r) {
		to = p.grpc
	}
	f := &forwarded{target: t, body: body{ReadCloser: r.Body}}
	r = r.WithContext(context.WithValue(r.Context(), forwardedKey{}, f))
	if r.ProtoMajor == 1 && r.ContentLength != 0 && http.NewResponseController(w).EnableFullDuplex() == nil {
		f.duplex, r.Body = true, &f.body
	}
	to.ServeHTTP(w, r)
}

// forwardedKey is the key under which the context of a request that ReverseProxy forwards has what is known of it.
type forwardedKey struct{}

type forwarded struct {
	target portname.Target
	duplex bool // the answer may begin while the body comes
	body   body
}

func forwardedOf(ctx context.Context) *forwarded { return ctx.Value(forwardedKey{}).(*forwarded) }

// body is a request's body that knows whether all of it was read.
type body struct {
	io.ReadCloser
	ended atomic.Bool
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// last says whether the client's connection ends with this request: when its answer begins before all of its body has come. net/http's server would
// go on to read the body when the answer ended, and the next request at the same time.
func (f *forwarded) last() bool { return f.duplex && !f.body.ended.Load() }

// answered closes the connection after an answer that came early, and refuses one that HTTP does not have.
func answered(resp *http.Response) error {
	if resp.StatusCode < 100 {
		return errStatus
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && forwardedOf(resp.Request.Context()).last() {
		resp.Header.Set("Connection", "close")
	}
	return nil
}

// isGRPC says whether a request goes on as HTTP/2. All others go on as HTTP/1.1, which every server speaks.
func isGRPC(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return r.ProtoMajor == 2 && (kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+"))
}

// failed is broke for a ReverseProxy.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	f := forwardedOf(r.Context())
	p.broke(w, r, f.target, err, f.last())
}

// rewrite is what of a request changes on its way: its host, path and query are as they were, and what says where it comes from is ours.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.URL.Scheme, out.URL.Host = "http", address(forwardedOf(pr.In.Context()).target)
	out.URL.RawQuery = withoutToken(pr.In.URL.RawQuery) // otherwise as it came, whatever it is
	out.Host = pr.In.Host
	out.Trailer = pr.In.Trailer // the map itself: it has values only when the body was read
	p.dress(out.Header, pr.In)
}

// dress is rewrite of a request's header.
func (p *Proxy) dress(h http.Header, in *http.Request) {
	for name := range h {
		if tellsOrigin(name) {
			delete(h, name)
		}
	}
	for _, names := range targetHeaders {
		delete(h, names[0])
		delete(h, names[1])
	}
	hideTokens(h)
	if from, _, err := net.SplitHostPort(in.RemoteAddr); err == nil {
		h["X-Forwarded-For"] = []string{from}
	}
	h["X-Forwarded-Host"] = []string{in.Host}
	h["X-Forwarded-Proto"] = []string{p.Domain.Scheme}
}

// tellsOrigin says whether a header is of those that say where a request comes from. Many servers take a name with underscores for the same.
func tellsOrigin(name string) bool {
	if strings.Contains(name, "_") {
		name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	}
	return strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" || name == "Forwarded"
}

// dial connects to the port that rewrite named. Who comes when the sandbox has just been paused wakes it.
func (p *Proxy) dial(ctx context.Context, _, address string) (net.Conn, error) {
	name, _, _ := strings.Cut(address, ":")
	port, sandbox, _ := strings.Cut(name, "-")
	t, err := portname.Read(port, sandbox)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		route, err := p.routes.get(ctx, t.Sandbox)
		if err != nil {
			return nil, err
		}
		conn, err := p.Sandboxes.Dial(ctx, route, t.Port)
		if err == nil || try == dialTries {
			return conn, err
		}
		switch {
		case errors.Is(err, errs.ErrFailedPrecondition), errors.Is(err, errs.ErrResourceExhausted): // it may not run any more, and many come
			if no := p.ready(ctx, t.Sandbox); no != nil {
				return nil, no
			}
		case !errors.Is(err, errs.ErrUnavailable):
			return nil, err
		}
		select {
		case <-time.After(time.Duration(try) * dialPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ready is awake of what is so now.
func (p *Proxy) ready(ctx context.Context, sandbox string) error {
	route, err := p.routes.fresh(ctx, sandbox)
	if err != nil {
		return err
	}
	if no := p.awake(ctx, route); no != nil {
		return no
	}
	return nil
}

// broke answers a request that a port did not. The last one of a connection closes it.
func (p *Proxy) broke(w http.ResponseWriter, r *http.Request, t portname.Target, err error, last bool) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody is there to read it
	}
	var no *refusal
	switch {
	case errors.As(err, &no):
	case errors.Is(err, client.ErrPortClosed):
		no = portClosed(t.Port)
	case errors.Is(err, errs.ErrPermissionDenied):
		no = internalRoute(r.URL.Path)
	case errors.Is(err, errs.ErrNotFound), errors.Is(err, errs.ErrFailedPrecondition):
		no = &notFound
	case errors.Is(err, errs.ErrResourceExhausted):
		no = &tooMany
	case errors.Is(err, errs.ErrUnavailable):
		no = &silent
	default:
		no = &brokeOff
	}
	clear(w.Header())
	if last {
		w.Header().Set("Connection", "close")
	}
	p.refuse(w, r, t, no)
}

// buffers are shared by the copies of bodies.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferBytes]byte); ok {
		return buf[:]
	}
	return new([bufferBytes]byte)[:]
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferBytes]byte)(buf)) }
