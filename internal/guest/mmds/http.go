package mmds

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// conn speaks as much HTTP/1.1 as the metadata service does: every answer has a length. net/http would make wrenn-init, which
// each boot reads from the disk before anything else can happen, more than twice as big.
type conn struct {
	net.Conn
	host string
	stop func() bool
}

// maxHeader bounds the head of an answer, in bytes.
const maxHeader = 8 << 10

func (c *Client) dial(ctx context.Context) (*conn, error) {
	host := strings.TrimPrefix(c.BaseURL, "http://")
	if host == "" {
		host = Address + ":80"
	}
	n, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	// A context that ends takes the connection's reads and writes with it.
	stop := context.AfterFunc(ctx, func() { _ = n.SetDeadline(time.Unix(1, 0)) })
	return &conn{Conn: n, host: host, stop: stop}, nil
}

func (c *conn) close() {
	c.stop()
	_ = c.Close()
}

// do sends a request without a body ("GET /", header lines) and returns the body of its 200 answer, at most limit bytes of it.
func (c *conn) do(request, header string, limit int64) ([]byte, error) {
	if _, err := io.WriteString(c, request+" HTTP/1.1\r\nHost: "+c.host+"\r\n"+header+"\r\n\r\n"); err != nil {
		return nil, err
	}
	bounded := &io.LimitedReader{R: c.Conn, N: maxHeader + limit}
	buffered := bufio.NewReader(bounded)
	head := textproto.NewReader(buffered)
	line, err := head.ReadLine()
	if err != nil {
		return nil, err
	}
	fields, err := head.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	length, err := strconv.ParseInt(fields.Get("Content-Length"), 10, 64)
	if err != nil || length < 0 || length > limit {
		return nil, fmt.Errorf("%s: answer %.80q of length %.20q, want at most %d: %w", request, line, fields.Get("Content-Length"), limit,
			errs.ErrInvalid)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(buffered, body); err != nil {
		return nil, err
	}
	if version, rest, _ := strings.Cut(line, " "); !strings.HasPrefix(version, "HTTP/1.") || !strings.HasPrefix(rest, "200") {
		return nil, fmt.Errorf("%s: %.80q: %.200q: %w", request, line, body, errs.ErrUnavailable)
	}
	return body, nil
}
