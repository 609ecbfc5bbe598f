// Package client speaks to an agent: proto/hostagent/v1 says what each call does.
//
//	c := client.Unix("/run/wrenn/agent.sock")
//	defer c.Close()
//	resp, err := c.Sandboxes.Create(ctx, connect.NewRequest(&hostagentpb.CreateRequest{Template: "base"}))
//	result, err := c.Exec(ctx, request, client.Streams{Stdout: os.Stdout})
//
// Errors have the kinds of internal/errs, as the agent meant them; one that does not answer is ErrUnavailable.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/hostagent/wire"
	"wrenn.dev/wrenn/proto/hostagent/v1/hostagentpbconnect"
)

// Client is a connection to one agent. Its methods may be called from several goroutines.
type Client struct {
	Sandboxes hostagentpbconnect.SandboxesServiceClient
	Snapshots hostagentpbconnect.SnapshotsServiceClient
	Processes hostagentpbconnect.ProcessesServiceClient
	Files     hostagentpbconnect.FilesServiceClient
	Host      hostagentpbconnect.HostServiceClient

	content         hostagentpbconnect.FilesServiceClient // of ReadFile
	transport, bulk *http.Transport
	dial            func(context.Context) (net.Conn, error) // for HTTP/1.1
}

// dialTime bounds one attempt to connect.
const dialTime = 10 * time.Second

// The connections that files are read over.
const (
	bulkBuffer   = 64 << 10
	bulkIdleTime = 10 * time.Second
)

// maxMessage bounds one answer: a page of a thousand sandboxes with their histories is the longest.
const maxMessage = 64 << 20

// Option changes how a client is made.
type Option func(*decoded)

// Call is one of an agent that has ended.
type Call struct {
	// Procedure is its path: "/hostagent.v1.SandboxesService/Create".
	Procedure string
	Took      time.Duration
	// Answer is the message, nil for none. Those of streams are not told.
	Answer any
	Err    error
}

// Observe has a function told of every call but streams, when it has ended.
func Observe(fn func(Call)) Option { return func(d *decoded) { d.observe = fn } }

// Unix returns a client of the agent behind a socket.
func Unix(path string, options ...Option) *Client {
	dialer := &net.Dialer{Timeout: dialTime}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
	t := &http.Transport{DialContext: dial, Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true) // one connection for all streams
	c := create(t, &http.Transport{DialContext: dial}, "http://agent", options)
	c.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, "", "") }
	return c
}

// TLS returns a client of the agent at an address, which must have a certificate for it. The configuration has the client's own.
func TLS(address string, config *tls.Config, options ...Option) *Client {
	dial := (&net.Dialer{Timeout: dialTime}).DialContext
	t := &http.Transport{TLSClientConfig: config, DialContext: dial, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP2(true)
	c := create(t, &http.Transport{TLSClientConfig: config.Clone(), DialContext: dial}, "https://"+address, options)
	plain := config.Clone()
	plain.NextProtos = []string{"http/1.1"}
	secure := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTime}, Config: plain}
	c.dial = func(ctx context.Context) (net.Conn, error) { return secure.DialContext(ctx, "tcp", address) }
	return c
}

// create makes a client with a transport for calls, and one for what is read of files: HTTP/1.1, with a connection for each, because what
// HTTP/2 does for streams that share one costs more than the rest of it. What is written stays with HTTP/2, where an answer that comes
// before the end is never lost to the write that fails.
func create(t, bulk *http.Transport, url string, change []Option) *Client {
	set := decoded{func(Call) {}}
	for _, o := range change {
		o(&set)
	}
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}
	bulk.Protocols = new(http.Protocols)
	bulk.Protocols.SetHTTP1(true)
	bulk.DisableCompression, bulk.ReadBufferSize, bulk.IdleConnTimeout = true, bulkBuffer, bulkIdleTime
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	h, content := &http.Client{Transport: t, CheckRedirect: stay}, &http.Client{Transport: bulk, CheckRedirect: stay}
	options := []connect.ClientOption{connect.WithInterceptors(set), connect.WithReadMaxBytes(maxMessage)}
	return &Client{
		Sandboxes: hostagentpbconnect.NewSandboxesServiceClient(h, url, options...),
		Snapshots: hostagentpbconnect.NewSnapshotsServiceClient(h, url, options...),
		Processes: hostagentpbconnect.NewProcessesServiceClient(h, url, options...),
		Files:     hostagentpbconnect.NewFilesServiceClient(h, url, options...),
		Host:      hostagentpbconnect.NewHostServiceClient(h, url, options...),
		content:   hostagentpbconnect.NewFilesServiceClient(content, url, options...),
		transport: t, bulk: bulk,
	}
}

// Close closes the connections that no call uses.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.bulk.CloseIdleConnections()
}

// decoded has every error pass through wire.Decode, and tells of the calls.
type decoded struct{ observe func(Call) }

// WrapUnary implements connect.Interceptor.
func (d decoded) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		began := time.Now()
		resp, err := next(ctx, req)
		call := Call{Procedure: req.Spec().Procedure, Took: time.Since(began), Err: wire.Decode(err)}
		if err == nil {
			call.Answer = resp.Any()
		}
		d.observe(call)
		return resp, call.Err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (decoded) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &decodedConn{next(ctx, spec)}
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (decoded) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type decodedConn struct{ connect.StreamingClientConn }

// Receive implements connect.StreamingClientConn.
func (c *decodedConn) Receive(msg any) error { return decode(c.StreamingClientConn.Receive(msg)) }

// Send implements connect.StreamingClientConn.
func (c *decodedConn) Send(msg any) error { return decode(c.StreamingClientConn.Send(msg)) }

// decode leaves an EOF what it is: a stream's end, which is no error. One that came too early is another.
func decode(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return wire.Decode(err)
}
