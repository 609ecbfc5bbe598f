package relay

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// pair is both ends of a connection over a kind of network.
func pair(t *testing.T, network string) (near, far net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// joined is a caller and a server with Join between them.
func joined(t *testing.T) (caller, server net.Conn, over <-chan struct{}) {
	t.Helper()
	caller, in := pair(t, "unix")
	out, server := pair(t, "tcp")
	done := make(chan struct{})
	go func() { defer close(done); Join(in, out) }()
	return caller, server, done
}

func read(t *testing.T, c net.Conn) string {
	t.Helper()
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func write(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func TestBothWaysAndTheServersEnd(t *testing.T) {
	caller, server, over := joined(t)
	write(t, caller, "question")
	if got := read(t, server); got != "question" {
		t.Errorf("%q", got)
	}
	write(t, server, "answer")
	if err := server.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(caller); string(all) != "answer" || err != nil {
		t.Errorf("%q %v", all, err)
	}
	write(t, caller, "more") // the server has only said all
	if got := read(t, server); got != "more" {
		t.Errorf("%q", got)
	}
	caller.Close()
	if rest, err := io.ReadAll(server); len(rest) > 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	<-over
}

func TestACallerThatLeavesEndsIt(t *testing.T) {
	caller, server, over := joined(t)
	write(t, caller, "last words")
	caller.Close()
	if all, err := io.ReadAll(server); string(all) != "last words" || err != nil {
		t.Errorf("%q %v", all, err)
	}
	<-over // although the server said nothing and did not end
}

func TestWhatBreaksIsBroken(t *testing.T) {
	caller, server, over := joined(t)
	write(t, server, "half")
	if got := read(t, caller); got != "half" {
		t.Errorf("%q", got)
	}
	Break(server)
	<-over
	if _, err := caller.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the caller may still write: %v", err) // after a server's mere end it could
	}

	near, far := pair(t, "tcp")
	Break(near)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a broken TCP connection is %v", err)
	}
}

func TestMuchOfItArrives(t *testing.T) {
	caller, server, over := joined(t)
	go func() {
		_, _ = io.Copy(server, strings.NewReader(strings.Repeat("0123456789abcdef", 1<<20)))
		server.Close()
	}()
	if n, err := io.Copy(io.Discard, caller); n != 16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	caller.Close()
	<-over
}
