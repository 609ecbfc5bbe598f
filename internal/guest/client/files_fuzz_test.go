package client

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
)

// FuzzEntry reads any entry.
func FuzzEntry(f *testing.F) {
	f.Add([]byte("\x0a\x01a\x10\x01\x1a\x02/a"))
	f.Add([]byte("\x0a\x02..\x1a\x02/a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var pb filesystempb.EntryInfo
		if proto.Unmarshal(b, &pb) != nil {
			return
		}
		e, err := one(&pb)
		if err != nil {
			printable(t, err)
			return
		}
		if e.Name == "" || e.Name == "." || e.Name == ".." || e.Name != "/" && strings.Contains(e.Name, "/") || e.Size < 0 || e.Mode > 0o777 {
			t.Errorf("%+v", e)
		}
		if e.Exact && (e.Name != pb.GetName() || e.Path != pb.GetPath()) {
			t.Errorf("%+v is not what was sent", e)
		}
		for _, text := range []string{e.Name, e.Owner, e.Group} {
			printable(t, errors.New(text[:min(len(text), maxErrorText)]))
		}
	})
}

// FuzzContentRange reads any header.
func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-9/10")
	f.Add("bytes 9223372036854775806-9223372036854775807/*")
	f.Fuzz(func(t *testing.T, header string) {
		first, last, err := contentRange(header)
		if printable(t, err); err == nil && (first < 0 || last < first || last-first+1 <= 0) {
			t.Errorf("%q is %d to %d", header, first, last)
		}
	})
}

// FuzzDownload has a guest answer with any bytes, from the status line on.
func FuzzDownload(f *testing.F) {
	f.Add([]byte("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-14/100\r\nContent-Length: 10\r\n\r\n0123456789"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 507 Full\r\n\r\n{\"code\":507,\"message\":\"full\"}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		g := answering(string(answer))
		dialed := 0
		c := New(func(ctx context.Context, port int) (net.Conn, error) {
			if dialed++; dialed > 20 {
				t.Errorf("%q makes the host connect for ever", answer)
				return nil, io.EOF
			}
			return g.dial(ctx, port)
		}, token)
		defer c.Close()
		var w strings.Builder
		n, err := c.Files("").Download(context.Background(), "/f", 5, 10, &w)
		if printable(t, err); n != int64(w.Len()) || n > 10 {
			t.Errorf("%q: %d bytes", answer, n)
		}
	})
}
