// Package client is the host's side of envd: it waits until a guest's envd answers, and runs commands in the guest.
//
//	c := client.New(sandbox.Dial, token)
//	defer c.Close()
//	err := c.WaitReady(ctx)
//	result, err := c.Run(ctx, client.Command{Cmd: "uname", Args: []string{"-a"}, Stdout: os.Stdout})
//
// The guest is hostile. Whatever it sends is bounded in size, and each message in time; a text from it is capped and stripped of
// what a terminal or a log would act on; and only a caller's writer ever gets its bytes as they are.
package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	processpb "wrenn.dev/wrenn/proto/envd/process"
	"wrenn.dev/wrenn/proto/envd/process/processpbconnect"
)

// Port is where envd listens in the guest.
const Port = 49983

const (
	// maxMessage bounds what is read as one message. envd sends at most 32 KiB of output in one; a list of processes is the longest.
	maxMessage     = 4 << 20
	maxHeaderBytes = 16 << 10
	idleTime       = time.Minute
	// bulkIdleTime is short: such a connection holds larger buffers than others.
	bulkIdleTime = 5 * time.Second
)

// DialFunc connects to a TCP port of the guest. It returns soon after its context has ended.
type DialFunc func(ctx context.Context, port int) (net.Conn, error)

// Client talks to one guest's envd. Its methods may be called from several goroutines.
type Client struct {
	dial      DialFunc
	token     string
	spare     chan net.Conn // a connection that WaitReady made and nobody used yet
	transport *http.Transport
	bulk      *http.Transport // of the content of files
	http      *http.Client
	content   *http.Client
	open      *http.Client // shows no token
	rpc       processpbconnect.ProcessClient
}

// New returns a client that reaches the guest by dial and shows envd the token.
func New(dial DialFunc, token string) *Client {
	c := &Client{dial: dial, token: token, spare: make(chan net.Conn, 1)}
	// HTTP/1.1 alone: what it takes to read an answer is small, and a reader that stops makes TCP stop the guest.
	c.transport = &http.Transport{
		DialContext: c.connection, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: idleTime,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &http.Client{Transport: authenticated{next: c.transport, token: token}, CheckRedirect: stay}
	c.bulk = &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, Port) },
		DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes, MaxIdleConnsPerHost: 1, IdleConnTimeout: bulkIdleTime,
		WriteBufferSize: copyBytes, // a piece of content is one write, with what HTTP puts around it
	}
	c.content = &http.Client{Transport: authenticated{next: c.bulk, token: token}, CheckRedirect: stay}
	c.open = &http.Client{Transport: c.transport, CheckRedirect: stay}
	c.rpc = processpbconnect.NewProcessClient(c.http, baseURL, connect.WithReadMaxBytes(maxMessage),
		connect.WithAcceptCompression("gzip", nil, nil))
	return c
}

// baseURL names no host that exists: every connection is made by dial.
const baseURL = "http://envd"

// Close closes the connections that no call uses.
func (c *Client) Close() {
	c.dropSpare()
	c.transport.CloseIdleConnections()
	c.bulk.CloseIdleConnections()
}

func (c *Client) dropSpare() {
	select {
	case conn := <-c.spare:
		_ = conn.Close()
	default:
	}
}

// connection is the spare one, or a new one.
func (c *Client) connection(ctx context.Context, _, _ string) (net.Conn, error) {
	select {
	case conn := <-c.spare:
		return conn, nil
	default:
		return c.dial(ctx, Port)
	}
}

// Health asks whether envd is there. It needs no token, so it says nothing of whose guest answers.
func (c *Client) Health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return broken(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return broken(fmt.Errorf("health: status %d", resp.StatusCode))
	}
	return nil
}

// ping is the cheapest call that needs the token.
func (c *Client) ping(ctx context.Context) error {
	_, err := c.rpc.List(ctx, connect.NewRequest(&processpb.ListRequest{}))
	return broken(err)
}

// authenticated adds the token to every request.
type authenticated struct {
	next  http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (a authenticated) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Access-Token", a.token)
	return a.next.RoundTrip(r)
}
