package rpc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// listener is a server of the guest, whose connections the test takes.
func listener(t *testing.T) (port int, accept func() net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port, func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// open has the guest's ports open to all: those of this machine.
func (w *world) open() {
	w.Network.Guest = func(ctx context.Context, _ string, port int) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errs.ErrUnavailable, err)
		}
		return c, nil
	}
}

// local has the guest's ports open to itself alone: envd, which is real, reaches them.
func (w *world) local() {
	w.Network.Guest = func(context.Context, string, int) (net.Conn, error) {
		return nil, fmt.Errorf("%w: %w", errs.ErrUnavailable, syscall.ECONNREFUSED)
	}
}

// talk checks that both ends hear each other, and that each learns of the other's end.
func talk(t *testing.T, caller, server net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{caller, server}, {server, caller}} {
		if _, err := io.WriteString(way[0], "hello\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(way[1]).ReadString('\n'); line != "hello\n" || err != nil {
			t.Fatalf("%q %v", line, err)
		}
	}
}

func TestPorts(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	secure := client.TLS(w.address, &tls.Config{RootCAs: w.certs.pool, Certificates: []tls.Certificate{w.certs.caller}})
	defer secure.Close()
	for name, set := range map[string]func(){"open": w.open, "local": w.local} {
		for over, c := range map[string]*client.Client{"unix": w.Client, "TLS": secure} {
			t.Run(name+" over "+over, func(t *testing.T) {
				set()
				id := w.create()
				port, accept := listener(t)
				dial := func() (net.Conn, net.Conn) {
					t.Helper()
					conn, err := c.Dial(t.Context(), id, port)
					if err != nil {
						t.Fatal(err)
					}
					return conn, accept()
				}
				caller, server := dial()
				talk(t, caller, server)
				server.Close()
				if rest, err := io.ReadAll(caller); len(rest) > 0 || err != nil {
					t.Errorf("the server's end is %q %v", rest, err)
				}
				caller.Close()
				caller, server = dial()
				talk(t, caller, server)
				caller.Close()
				if rest, err := io.ReadAll(server); len(rest) > 0 || err != nil {
					t.Errorf("the caller's end is %q %v", rest, err)
				}
				caller, server = dial()
				if _, err := w.Sandboxes.Pause(t.Context(), connect.NewRequest(&pb.PauseRequest{Id: id})); err != nil {
					t.Fatal(err)
				}
				for end, c := range map[string]net.Conn{"caller": caller, "server": server} {
					if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
						t.Errorf("to the %s a pause is %v, want that it broke", end, err)
					}
				}
				caller.Close()
				if _, err := c.Dial(t.Context(), id, port); !errors.Is(err, errs.ErrFailedPrecondition) {
					t.Errorf("a paused one: %v", err)
				}
			})
		}
	}
}

func TestPortsThatAreNot(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	w.local()
	id := w.create()
	port, _ := listener(t)
	closed, accept := listener(t)
	go func() {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", closed)); err == nil {
			c.Close()
		}
	}()
	accept()
	for _, c := range []struct {
		sandbox string
		port    int
		want    error
	}{
		{id, 1, client.ErrPortClosed}, {id, 49983, errs.ErrPermissionDenied}, {id, 0, errs.ErrInvalid}, {id, 65536, errs.ErrInvalid},
		{"cl-00000000000000000000", port, errs.ErrNotFound}, {"..", port, errs.ErrUnavailable},
	} {
		conn, err := w.Dial(t.Context(), c.sandbox, c.port)
		if !errors.Is(err, c.want) {
			t.Errorf("port %d of %s: %v, want %v", c.port, c.sandbox, err, c.want)
		}
		if err == nil {
			conn.Close()
		}
	}
	other := client.Unix(w.socket + ".none")
	if _, err := other.Dial(t.Context(), id, port); !errors.Is(err, errs.ErrUnavailable) || errors.Is(err, client.ErrPortClosed) {
		t.Errorf("an agent that is not there: %v", err)
	}
	raw, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	fmt.Fprintf(raw, "GET /ports/%s/%d HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n", id, port)
	resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "invalid_argument") {
		t.Errorf("without an upgrade: %d %s", resp.StatusCode, body)
	}
}
