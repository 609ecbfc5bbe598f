package envd

import (
	"context"
	"debug/elf"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/guest/envd/process"
)

// TestServeEnds shows that ending envd ends its processes and streams, also one whose reader stopped.
func TestServeEnds(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Source: identity(), Users: users(t), Limits: process.DefaultLimits(), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	for !s.waker.wasAwake() {
		time.Sleep(time.Millisecond)
	}
	e, _ := begin(t, "http://"+ln.Addr().String(), "Start", `{"process":{"cmd":"yes"}}`, nil)
	e.pid()
	time.Sleep(50 * time.Millisecond)
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	if n := len(s.manager.List()); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	_, _ = io.Copy(io.Discard, e.r) // it ends, one way or the other
	http.DefaultClient.CloseIdleConnections()
}

// TestStoppedClient shows over a real connection that a client that reads nothing costs envd little memory.
func TestStoppedClient(t *testing.T) {
	url := serve(t, identity())
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for range 8 {
		e, _ := begin(t, url, "Start", `{"process":{"cmd":"yes"},"stdin":false}`, nil)
		e.pid()
	}
	time.Sleep(time.Second) // long enough for gigabytes
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("8 stopped clients cost %d MiB", grown>>20)
	}
}

// TestListenFails shows that a server whose listener breaks says so.
func TestListenFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Source: unknown{}, Users: users(t), Limits: process.DefaultLimits(), Log: slog.New(slog.DiscardHandler)})
	if err := s.Serve(t.Context(), ln); err == nil {
		t.Error("no error")
	}
}

// maxBinary is what envd may weigh in a guest image, in bytes.
const maxBinary = 10 << 20

// TestBinary builds envd as it goes into images, and checks that it is static and small.
func TestBinary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "envd")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, "wrenn.dev/wrenn/cmd/envd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("envd has %d bytes", st.Size())
	if st.Size() > maxBinary {
		t.Errorf("envd has %d bytes, more than %d", st.Size(), maxBinary)
	}
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("envd is not static: it has a segment %v", p.Type)
		}
	}
}

// FuzzRequest sends what a client with the token may send. No process may be started, so whatever it asks for is harmless.
func FuzzRequest(f *testing.F) {
	limits := process.DefaultLimits()
	limits.Processes = 0
	s := New(Config{Source: identity(), Users: users(f), Limits: limits, Log: slog.New(slog.DiscardHandler)})
	s.waker.tell(Identity(identity()))
	s.gate.open(0, token)
	types := []string{"application/json", streamJSON, "application/proto", "application/connect+proto", "application/grpc", "application/grpc-web"}
	methods := []string{"List", "Start", "Connect", "Update", "StreamInput", "SendInput", "SendSignal", "CloseStdin"}
	f.Add(1, 1, envelope(0, `{"process":{"cmd":"sh","args":["-c","x"],"envs":{"A":"b"}},"pty":{"size":{"cols":1}},"tag":"t"}`), "1000")
	f.Add(0, 5, `{"process":{"pid":1},"input":{"stdin":"aGk="}}`, "")
	f.Add(1, 4, envelope(0, `{"start":{"process":{"pid":1}}}`)+envelope(2, `{}`), "-1")
	f.Add(3, 1, envelope(0, "\x0a\x04\x0a\x02sh"), "x")
	f.Fuzz(func(t *testing.T, typ, method int, body, timeout string) {
		r := httptest.NewRequest(http.MethodPost, "/process.Process/"+methods[uint(method)%uint(len(methods))], strings.NewReader(body))
		r.Header.Set("Content-Type", types[uint(typ)%uint(len(types))])
		r.Header.Set(headerToken, token)
		r.Header.Set(headerTimeout, timeout)
		s.handler.ServeHTTP(httptest.NewRecorder(), r)
		if n := len(s.manager.List()); n != 0 {
			t.Fatalf("%d processes run", n)
		}
	})
}
