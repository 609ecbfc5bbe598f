package servertest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"wrenn.dev/wrenn/internal/guest/envd/envdtest"
	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
)

// fence stands before an envd of a test and lets nothing but its user's home pass: its files are this machine's, and who asks, a fuzzer or a
// test that has a mistake, may ask for everything to be removed. To be looked at, there is also /proc.
type fence struct {
	home  string
	next  http.Handler
	write *connect.ErrorWriter
}

// fenced starts an envd behind a fence, and returns how it is connected to.
func fenced(t testing.TB) (g *envdtest.Guest, dial func(context.Context, int) (net.Conn, error)) {
	t.Helper()
	g = envdtest.Start(t)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return g.Dial(ctx, 0) }, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	front := httptest.NewServer(&fence{home: g.Home, write: connect.NewErrorWriter(), next: &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "envd" },
		Transport: transport, FlushInterval: -1, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}})
	t.Cleanup(front.Close)
	return g, func(ctx context.Context, _ int) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", front.Listener.Addr().String())
	}
}

// messages are the calls that name a path.
var messages = map[string]func() proto.Message{
	"Stat":     func() proto.Message { return &filesystempb.StatRequest{} },
	"ListDir":  func() proto.Message { return &filesystempb.ListDirRequest{} },
	"MakeDir":  func() proto.Message { return &filesystempb.MakeDirRequest{} },
	"Move":     func() proto.Message { return &filesystempb.MoveRequest{} },
	"Remove":   func() proto.Message { return &filesystempb.RemoveRequest{} },
	"WatchDir": func() proto.Message { return &filesystempb.WatchDirRequest{} },
}

// ServeHTTP implements http.Handler.
func (f *fence) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method, isCall := strings.CutPrefix(r.URL.Path, "/filesystem.Filesystem/")
	var err error
	switch {
	case isCall:
		err = f.call(method, r)
	case r.URL.Path == "/files":
		err = f.allow(r.URL.Query().Get("path"), r.Method == http.MethodGet)
	}
	switch {
	case err != nil && isCall:
		_ = f.write.Write(w, r, connect.NewError(connect.CodePermissionDenied, err))
	case err != nil:
		http.Error(w, err.Error(), http.StatusForbidden)
	default:
		if strings.HasPrefix(r.URL.Path, "/process.Process/") {
			_ = http.NewResponseController(w).EnableFullDuplex() // it answers before it has read to the end, which must not end the reading
		}
		f.next.ServeHTTP(w, r)
	}
}

// envelope is what is before a message of a stream, in bytes.
const envelope = 5

// call checks the paths of a call, and puts its message back.
func (f *fence) call(method string, r *http.Request) error {
	message := messages[method]
	if message == nil {
		return fmt.Errorf("the fence knows no call %q", method)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.Header.Get("Content-Type") == "application/connect+proto" {
		if len(body) < envelope || int(binary.BigEndian.Uint32(body[1:])) != len(body)-envelope {
			return errors.New("the stream has more than one message")
		}
		body = body[envelope:]
	}
	msg := message()
	if err := proto.Unmarshal(body, msg); err != nil {
		return err
	}
	looks := method == "Stat" || method == "ListDir" || method == "WatchDir"
	msg.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() == protoreflect.StringKind {
			err = f.allow(v.String(), looks)
		}
		return err == nil
	})
	return err
}

// allow refuses a path outside. The home itself is only to be looked at.
func (f *fence) allow(path string, look bool) error {
	switch {
	case path == "~" || strings.HasPrefix(path, "~/"):
		path = filepath.Join(f.home, path[1:])
	case !filepath.IsAbs(path):
		path = filepath.Join(f.home, path)
	}
	path = filepath.Clean(path)
	if strings.HasPrefix(path, f.home+"/") || look && (path == f.home || strings.HasPrefix(path, "/proc/")) {
		return nil
	}
	return fmt.Errorf("%.200q is outside of the guest that tests have", path)
}
