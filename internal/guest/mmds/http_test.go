package mmds

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// answering is a service that gives every connection the same bytes, whatever it asks, and closes it.
func answering(t *testing.T, answer string) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}
	}()
	return &Client{BaseURL: "http://" + l.Addr().String()}
}

func TestDo(t *testing.T) {
	for _, tc := range []struct {
		name, answer, want string
		err                error // nil: any, when want is empty
	}{
		{"whole", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", "ok", nil},
		{"lower case, more than the length", "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nServer: x\r\n\r\nok and more", "ok", nil},
		{"refused", "HTTP/1.1 401 \r\nContent-Length: 2\r\n\r\nno", "", errs.ErrUnavailable},
		{"no HTTP", "SSH-2.0 200\r\nContent-Length: 0\r\n\r\n", "", errs.ErrUnavailable},
		{"no length", "HTTP/1.1 200 \r\n\r\nok", "", errs.ErrInvalid},
		{"negative length", "HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\nok", "", errs.ErrInvalid},
		{"too long", "HTTP/1.1 200 \r\nContent-Length: 101\r\n\r\nok", "", errs.ErrInvalid},
		{"cut", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nok", "", io.ErrUnexpectedEOF},
		{"nothing", "", "", io.EOF},
		{"endless head", "HTTP/1.1 200 \r\n" + strings.Repeat("A: b\r\n", maxHeader), "", nil},
		{"endless line", strings.Repeat("A", 4*maxHeader), "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := answering(t, tc.answer).dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.close()
			got, err := conn.do("GET /", "X: y", 100)
			switch {
			case string(got) != tc.want:
				t.Errorf("do = %q, %v; want %q", got, err, tc.want)
			case tc.want == "" && (err == nil || tc.err != nil && !errors.Is(err, tc.err)):
				t.Errorf("do fails with %v, want %v", err, tc.err)
			}
		})
	}
}

// TestContextEndsARead connects to a service that takes the request and says nothing.
func TestContextEndsARead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	c := Client{BaseURL: "http://" + l.Addr().String()}
	if _, err := c.Fetch(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Fetch = %v", err)
	}
}
