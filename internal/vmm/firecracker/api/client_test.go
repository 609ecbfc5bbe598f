package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// serve answers each connection on a unix socket with handle, and returns a client of it.
func serve(t *testing.T, handle func(c net.Conn)) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
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
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return New(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
}

// answer reads a request and writes text as it is.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, text)
	}
}

func refusal(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d \r\nServer: Firecracker API\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)
}

func TestRequestIsWhatFirecrackerReads(t *testing.T) {
	got := make(chan *http.Request, 1)
	var body []byte
	c := serve(t, func(conn net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		body, _ = io.ReadAll(req.Body)
		got <- req
		_, _ = io.WriteString(conn, "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n")
	})
	want := BootSource{KernelImagePath: "/kernel", InitrdPath: "/initramfs", BootArgs: "quiet"}
	if err := c.Put(t.Context(), PathBootSource, want); err != nil {
		t.Fatal(err)
	}
	req := <-got
	if req.Method != "PUT" || req.URL.Path != "/boot-source" || req.ContentLength != int64(len(body)) || len(req.TransferEncoding) != 0 {
		t.Errorf("request %s %s, length %d, encoding %v", req.Method, req.URL, req.ContentLength, req.TransferEncoding)
	}
	var back BootSource
	if err := json.Unmarshal(body, &back); err != nil || back != want {
		t.Errorf("body %s, %v", body, err)
	}
	if err := c.Patch(t.Context(), PathMMDS, map[string]any{"a": nil}); err != nil {
		t.Fatal(err)
	}
	if req := <-got; req.Method != "PATCH" || string(body) != `{"a":null}` {
		t.Errorf("%s %s", req.Method, body)
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		kind  error
		fault string
	}{
		"with a message":  {refusal(400, `{"fault_message":"The kernel file cannot be opened: No such file"}`), errs.ErrFailedPrecondition, "The kernel file cannot be opened: No such file"},
		"hostile message": {refusal(400, `{"fault_message":"a\u001b[2Jb\nc"}`), errs.ErrFailedPrecondition, "a?[2Jb c"},
		"long message":    {refusal(400, `{"fault_message":"`+strings.Repeat("x", 30000)+`"}`), errs.ErrFailedPrecondition, strings.Repeat("x", maxFaultBytes-3) + "…"},
		"over a limit":    {refusal(413, `{"fault_message":"too big"}`), errs.ErrResourceExhausted, "too big"},
		"busy":            {refusal(503, ``), errs.ErrUnavailable, ""},
		"redirect":        {"HTTP/1.1 302 \r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", errs.ErrUnavailable, ""},
		"not JSON":        {refusal(400, `<html>`), errs.ErrFailedPrecondition, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := serve(t, answer(c.text)).Put(t.Context(), PathActions, Action{InstanceStart})
			var refused *Error
			if !errors.As(err, &refused) || !errors.Is(err, c.kind) || refused.Fault != c.fault {
				t.Fatalf("%v, want %v with %.60q", err, c.kind, c.fault)
			}
			if !strings.Contains(err.Error(), "PUT /actions") {
				t.Errorf("%q does not name the request", err)
			}
		})
	}
}

func TestBrokenAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"garbage":          strings.Repeat("\x1b[2J\x00", 1000),
		"endless header":   "HTTP/1.1 204 \r\nX: " + strings.Repeat("y", 1<<20),
		"many headers":     "HTTP/1.1 204 \r\n" + strings.Repeat("X: y\r\n", 1<<16),
		"dies half-way":    "HTTP/1.1 400 \r\nContent-Length: 100\r\n\r\n{\"fault",
		"a negative body":  "HTTP/1.1 400 \r\nContent-Length: -1\r\n\r\n",
		"status of letter": "HTTP/1.1 abc \r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			err := serve(t, answer(text)).Put(t.Context(), PathActions, Action{InstanceStart})
			if !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), "PUT /actions") || len(err.Error()) > 2000 ||
				strings.ContainsAny(err.Error(), "\x1b\x00") {
				t.Errorf("%.300q", err)
			}
		})
	}
}

func TestEndlessBodyIsCutOff(t *testing.T) {
	c := serve(t, func(conn net.Conn) {
		answer("HTTP/1.1 400 \r\n\r\n")(conn)
		for {
			if _, err := conn.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	var refused *Error
	if err := c.Put(t.Context(), PathActions, Action{InstanceStart}); !errors.As(err, &refused) {
		t.Error(err)
	}
}

// TestSlow has the other side take the request and never answer. Time is simulated.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		defer theirs.Close()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		c := New(func(context.Context) (net.Conn, error) { return mine, nil })
		late := errors.New("the start took too long")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, late)
		defer cancel()
		err := c.Put(ctx, PathMachineConfig, MachineConfig{VCPUCount: 1})
		if !errors.Is(err, late) || !errors.Is(err, errs.ErrUnavailable) || !strings.Contains(err.Error(), PathMachineConfig) {
			t.Error(err)
		}
	})
}

func TestNobodyListens(t *testing.T) {
	refused := errors.New("connection refused")
	c := New(func(context.Context) (net.Conn, error) { return nil, refused })
	if err := c.Put(t.Context(), PathMMDS, map[string]any{}); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
	if err := c.Put(t.Context(), PathMMDS, func() {}); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}

// FuzzAnswer gives the client any bytes for an answer.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(refusal(400, `{"fault_message":"no"}`)))
	f.Add([]byte("HTTP/1.1 204 \r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := New(func(context.Context) (net.Conn, error) {
			mine, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				answer(string(data))(theirs)
			}()
			return mine, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := c.Put(ctx, PathActions, Action{InstanceStart})
		if err == nil {
			return
		}
		var refused *Error
		if ok := errors.As(err, &refused); !ok && !errors.Is(err, errs.ErrUnavailable) {
			t.Fatalf("an error of no kind: %v", err)
		}
		if len(err.Error()) > 2*maxFaultBytes || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Fatalf("not a short printable line: %q", err)
		}
	})
}
