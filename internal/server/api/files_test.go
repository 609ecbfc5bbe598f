package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/server/rest"
)

// put stores a file by the API.
func (w *world) put(at, query string, content []byte) answer {
	w.t.Helper()
	return w.do(call{method: "PUT", path: at + "/files/content?" + query, body: string(content)})
}

func TestFiles(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	keyed := map[string]string{"Idempotency-Key": "k"}
	for range 2 {
		as[struct{}](t, w.do(call{method: "POST", path: at + "/files/mkdir", body: `{"path":"a/b"}`, header: keyed}), 204)
	}
	fails(t, w.do(call{method: "POST", path: at + "/files/mkdir", body: `{"path":"a/b"}`}), 409, rest.AlreadyExists)
	odd := []byte{0xff, 0, '\n', 'a'}
	if got := as[rest.WrittenFile](t, w.put(at, "path=a/b/c&mode=640", odd), 200); got.Path != "a/b/c" || got.Bytes != 4 {
		t.Errorf("%+v", got)
	}
	f := as[rest.File](t, w.do(call{method: "GET", path: at + "/files/stat?path=a/b/c&user=user"}), 200)
	if f.Name != "c" || f.Path != filepath.Join(w.Home, "a/b/c") || f.Type != rest.FileTypeFile || f.Mode != "0640" || f.Size != 4 || f.Owner != "user" ||
		f.ModifiedAt == nil || f.Inexact != nil || f.SymlinkTarget != nil {
		t.Errorf("%+v", f)
	}
	as[struct{}](t, w.do(call{method: "POST", path: at + "/files/move", body: `{"from":"a/b/c","to":"a/new/d"}`}), 204)
	list := as[rest.FileList](t, w.do(call{method: "GET", path: at + "/files/list?path=a&depth=2"}), 200)
	if len(list.Files) != 3 || list.Files[2].Name != "d" || list.Files[1].Type != rest.FileTypeDirectory {
		t.Errorf("%+v", list)
	}
	if list := as[rest.FileList](t, w.do(call{method: "GET", path: at + "/files/list?path=a"}), 200); len(list.Files) != 2 {
		t.Errorf("one level: %+v", list)
	}
	for range 2 { // what is not there is removed already
		as[struct{}](t, w.do(call{method: "POST", path: at + "/files/remove", body: `{"path":"a"}`}), 204)
	}
	fails(t, w.do(call{method: "GET", path: at + "/files/stat?path=a"}), 404, rest.NotFound)
	for what, c := range map[string]call{
		"no path":     {method: "GET", path: at + "/files/stat"},
		"no text":     {method: "GET", path: at + "/files/stat?path=%ff"},
		"too deep":    {method: "GET", path: at + "/files/list?path=.&depth=1001"},
		"no bits":     {method: "PUT", path: at + "/files/content?path=x&mode=888"},
		"no such":     {method: "GET", path: at + "/files/stat?path=.&user=nobody-here"},
		"a colon":     {method: "GET", path: at + "/files/stat?path=.&user=a:b"},
		"a NUL":       {method: "GET", path: at + "/files/stat?path=a%00b"},
		"to a NUL":    {method: "POST", path: at + "/files/move", body: `{"from":"a","to":"a\u0000"}`},
		"an encoding": {method: "PUT", path: at + "/files/content?path=x", body: "x", header: map[string]string{"Content-Encoding": "gzip"}},
		"a folder":    {method: "GET", path: at + "/files/content?path=."},
		"no boolean":  {method: "GET", path: at + "/files/watch?path=.&recursive=1"},
		"a key":       {method: "PUT", path: at + "/files/content?path=x", body: "x", header: keyed},
	} {
		if e := fails(t, w.do(c), 400, rest.InvalidArgument); e.Field == nil || e.Fix == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
	as[rest.Sandbox](t, w.do(call{method: "POST", path: at + "/pause"}), 200)
	fails(t, w.do(call{method: "GET", path: at + "/files/stat?path=."}), 409, rest.FailedPrecondition)
	fails(t, w.put(at, "path=x", odd), 409, rest.FailedPrecondition)
}

// TestNamesThatAreNoText are shown and said to be so.
func TestNamesThatAreNoText(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	if err := os.WriteFile(filepath.Join(w.Home, "a\xffb"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	list := as[rest.FileList](t, w.do(call{method: "GET", path: at + "/files/list?path=."}), 200)
	if len(list.Files) != 1 || list.Files[0].Inexact == nil || !*list.Files[0].Inexact {
		t.Errorf("%+v", list)
	}
}

func TestContent(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	content := make([]byte, 3<<20) // more than a body of JSON may have
	_, _ = rand.NewChaCha8([32]byte{}).Read(content)
	as[rest.WrittenFile](t, w.put(at, "path=f", content), 200)
	if err := errors.Join(os.Symlink("f", filepath.Join(w.Home, "link")), os.WriteFile(filepath.Join(w.Home, "empty"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	size, none := len(content), map[string]string{}
	part := func(header string) map[string]string { return map[string]string{"Range": header} }
	for _, c := range []struct {
		path        string
		header      map[string]string
		status      int
		first, last int // of what comes; last is not in it
		says        string
	}{
		{"f", none, 200, 0, size, ""},
		{"link", none, 200, 0, size, ""},
		{"f", part("bytes=0-0"), 206, 0, 1, "bytes 0-0/3145728"},
		{"link", part("bytes=10-19"), 206, 10, 20, "bytes 10-19/3145728"},
		{"f", part("bytes=3145720-"), 206, size - 8, size, "bytes 3145720-3145727/3145728"},
		{"f", part("bytes=3145720-9999999999"), 206, size - 8, size, "bytes 3145720-3145727/3145728"},
		{"f", part("bytes=-5"), 206, size - 5, size, "bytes 3145723-3145727/3145728"},
		{"f", part("bytes=-99999999"), 206, 0, size, "bytes 0-3145727/3145728"},
		{"f", part("bytes=0-1,5-6"), 200, 0, size, ""},
		{"f", part("lines=1-2"), 200, 0, size, ""},
		{"f", part("bytes=2-1"), 200, 0, size, ""},
		{"f", map[string]string{"Range": "bytes=0-1", "If-Range": `"x"`}, 200, 0, size, ""},
		{"empty", part("bytes=0-1"), 200, 0, 0, ""},
	} {
		a := w.do(call{method: "GET", path: at + "/files/content?path=" + c.path, header: c.header})
		if a.status != c.status || !bytes.Equal(a.body, content[c.first:c.last]) || a.header.Get("Content-Range") != c.says ||
			a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Accept-Ranges") != "bytes" ||
			a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) {
			t.Errorf("%s %v: %d, %d bytes, %v", c.path, c.header, a.status, len(a.body), a.header)
		}
	}
	for _, beyond := range []string{"bytes=3145728-", "bytes=3145728-3145730", "bytes=-0"} {
		a := w.do(call{method: "GET", path: at + "/files/content?path=f", header: part(beyond)})
		if e := fails(t, a, 416, rest.InvalidArgument); or(e.Field) != "Range" || a.header.Get("Content-Range") != "bytes */3145728" {
			t.Errorf("%+v %v", e, a.header)
		}
	}
	resp, err := w.HTTP.Client().Do(w.request(t.Context(), call{method: "HEAD", path: at + "/files/content?path=link", header: part("bytes=0-1")}))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ContentLength != int64(size) {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	// The size of such a file is 0, and it has a content.
	if a := w.do(call{method: "GET", path: at + "/files/content?path=/proc/version", header: part("bytes=0-1")}); a.status != 200 || !bytes.HasPrefix(a.body, []byte("Linux")) {
		t.Errorf("%d %q", a.status, a.body)
	}
	fails(t, w.do(call{method: "GET", path: at + "/files/content?path=none"}), 404, rest.NotFound)
	fails(t, w.do(call{method: "GET", path: at + "/files/content?path=/etc/passwd"}), 403, rest.PermissionDenied)
}

// TestAnUploadThatBreaksOff leaves what was there before, and nothing else.
func TestAnUploadThatBreaksOff(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	as[rest.WrittenFile](t, w.put(at, "path=f", []byte("before")), 200)
	before := func() {
		t.Helper()
		entries, err := os.ReadDir(w.Home)
		if err != nil || len(entries) != 1 {
			t.Errorf("there are %v, %v", entries, err)
		}
		if a := w.do(call{method: "GET", path: at + "/files/content?path=f"}); string(a.body) != "before" {
			t.Errorf("the file has %q", a.body)
		}
	}
	// The caller leaves.
	ctx, leave := context.WithCancel(t.Context())
	body, feed := io.Pipe()
	req := w.request(ctx, call{method: "PUT", path: at + "/files/content?path=f"})
	req.Body = body
	done := make(chan error, 1)
	go func() {
		resp, err := w.HTTP.Client().Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	if _, err := feed.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	leave()
	_ = feed.CloseWithError(context.Canceled) // never fails
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	before()
	// The connection sends no more, and hears why nothing was stored.
	conn, err := net.Dial("tcp", w.HTTP.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT %s/files/content?path=f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\nten bytes.", at, w.Key)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	var e rest.Error
	if err != nil || json.Unmarshal(raw, &e) != nil || resp.StatusCode != 400 || or(e.Field) != "body" {
		t.Errorf("%d %s, %v", resp.StatusCode, raw, err)
	}
	before()
}

// TestAnUploadWhoseSandboxGoes is told so, and leaves nothing.
func TestAnUploadWhoseSandboxGoes(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	body, feed := io.Pipe()
	req := w.request(t.Context(), call{method: "PUT", path: at + "/files/content?path=f"})
	req.Body = body
	got := make(chan answer, 1)
	go func() {
		resp, err := w.HTTP.Client().Do(req)
		if err != nil {
			t.Error(err)
			close(got)
			return
		}
		defer resp.Body.Close()
		raw, _ := io.ReadAll(resp.Body) // the status is looked at
		got <- answer{resp.StatusCode, resp.Header, raw}
	}()
	if _, err := feed.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	as[struct{}](t, w.do(call{method: "DELETE", path: at}), 204)
	go func() { // the server reads a piece before it sees that nobody takes it
		for err := error(nil); err == nil; {
			_, err = feed.Write(make([]byte, 1<<20))
		}
	}()
	if a := <-got; a.status != 503 && a.status != 409 {
		t.Errorf("%d %s", a.status, a.body)
	}
	feed.Close()
	if entries, err := os.ReadDir(w.Home); err != nil || len(entries) != 0 {
		t.Errorf("there are %v, %v", entries, err)
	}
}

// TestALargeFile passes in little memory, also when its reader takes its time.
func TestALargeFile(t *testing.T) {
	const size, most = 160 << 20, 64 << 20
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	look := func() {
		t.Helper()
		var now runtime.MemStats
		if runtime.ReadMemStats(&now); now.HeapAlloc > before.HeapAlloc+most {
			t.Fatalf("%d bytes more are in use", now.HeapAlloc-before.HeapAlloc)
		}
	}
	req := w.request(t.Context(), call{method: "PUT", path: at + "/files/content?path=f"})
	req.Body = io.NopCloser(io.LimitReader(zeros{look}, size))
	resp, err := w.HTTP.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	resp, err = w.HTTP.Client().Do(w.request(t.Context(), call{method: "GET", path: at + "/files/content?path=f"}))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(100 * time.Millisecond) // what would come meanwhile would have to be kept
	look()
	buf, n := make([]byte, 1<<20), int64(0)
	for {
		some, err := resp.Body.Read(buf)
		n += int64(some)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n%(8<<20) < 1<<16 {
			look()
		}
	}
	if n != size || resp.ContentLength != size {
		t.Errorf("%d bytes came, %d were announced", n, resp.ContentLength)
	}
}

// zeros are without end.
type zeros struct{ look func() }

func (z zeros) Read(p []byte) (int, error) {
	clear(p)
	if rand.IntN(1000) == 0 {
		z.look()
	}
	return len(p), nil
}

// sse reads server-sent events.
type sse struct {
	t    *testing.T
	scan *bufio.Scanner
}

// next is the next event and its data; the end of the stream has none.
func (s sse) next() (kind, data string) {
	s.t.Helper()
	for s.scan.Scan() {
		line := s.scan.Text()
		switch {
		case strings.HasPrefix(line, "event: "):
			kind = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			data = line[len("data: "):]
		case line == "" && kind != "":
			return kind, data
		}
	}
	return "", ""
}

// watchFiles follows a folder.
func (w *world) watchFiles(at, query string) sse {
	w.t.Helper()
	req := w.request(w.t.Context(), call{method: "GET", path: at + "/files/watch?" + query})
	resp, err := w.HTTP.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatal(resp.Status)
	}
	contract.check(w.t, req, resp, nil)
	s := sse{w.t, bufio.NewScanner(resp.Body)}
	if kind, _ := s.next(); kind != "watching" {
		w.t.Fatalf("%s comes first", kind)
	}
	return s
}

func TestWatch(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	as[struct{}](t, w.do(call{method: "POST", path: at + "/files/mkdir", body: `{"path":"a/b"}`}), 204)
	all, folder := w.watchFiles(at, "path=.&recursive=true"), w.watchFiles(at, "path=a")
	as[rest.WrittenFile](t, w.put(at, "path=a/b/c", []byte("x")), 200)
	var change rest.FileChange
	kind, data := all.next()
	if err := json.Unmarshal([]byte(data), &change); err != nil || kind != "change" || change.Type != rest.FileCreated || change.Name != "a/b/c" {
		t.Errorf("%s %s, %v", kind, data, err)
	}
	as[struct{}](t, w.do(call{method: "POST", path: at + "/files/remove", body: `{"path":"a"}`}), 204)
	last := func(s sse) rest.Error {
		t.Helper()
		var e rest.Error
		kind, data := s.next()
		for kind == "change" {
			kind, data = s.next()
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || kind != "error" {
			t.Fatalf("%s %s", kind, data)
		}
		if kind, data := s.next(); kind != "" {
			t.Errorf("after the last one: %s %s", kind, data)
		}
		return e
	}
	if e := last(folder); e.Code != rest.NotFound {
		t.Errorf("of a folder that is gone: %+v", e)
	}
	fails(t, w.do(call{method: "GET", path: at + "/files/watch?path=a"}), 404, rest.NotFound)
	as[struct{}](t, w.do(call{method: "DELETE", path: at}), 204)
	if e := last(all); e.Code != rest.Unavailable && e.Code != rest.FailedPrecondition {
		t.Errorf("of a sandbox that is gone: %+v", e)
	}
}
