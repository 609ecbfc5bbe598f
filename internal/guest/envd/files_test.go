package envd

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// homeOf is the folder of the guest's user.
func homeOf(t *testing.T, db user.DB) string {
	t.Helper()
	u, err := db.Lookup("user")
	if err != nil {
		t.Fatal(err)
	}
	return u.Home
}

// serveFiles starts an envd, waits for its token, and returns the home of its user.
func serveFiles(t *testing.T) (base, home string, s *Server) {
	t.Helper()
	base, s = serveConfig(t, Config{Source: identity()})
	for end := time.Now().Add(patience); !s.waker.wasAwake(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the identity does not arrive")
		}
	}
	return base, homeOf(t, s.cfg.Users), s
}

// files asks for /files. A header that is empty is not sent; the token is, unless it is given.
func askFiles(t *testing.T, base, method string, q url.Values, body string, header map[string]string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+"/files?"+q.Encode(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(headerToken, token)
	req.Header.Set("Accept-Encoding", "")
	for name, value := range header {
		if req.Header.Set(name, value); value == "" {
			req.Header.Del(name)
		}
	}
	resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func filesQuery(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return q
}

const octets = "application/octet-stream"

// rpc calls a method of the filesystem service with JSON, as the SDKs do.
func rpc(t *testing.T, base, method, body string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/filesystem.Filesystem/"+method, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connect-Protocol-Version", "1")
	req.Header.Set(headerToken, token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, compact(t, string(b))
}

// TestFilesystemOnTheWire is the JSON that the SDKs send and expect.
func TestFilesystemOnTheWire(t *testing.T) {
	base, home, _ := serveFiles(t)
	file := filepath.Join(home, "dir/f")
	if err := os.Mkdir(filepath.Join(home, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(home, "dir/link")); err != nil {
		t.Fatal(err)
	}
	when := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	if err := os.Chtimes(file, when, when); err != nil {
		t.Fatal(err)
	}
	owner := "user"
	if os.Geteuid() == 0 {
		owner = "root" // the first of two names for one id
	}
	const shown = `"mode":420,"permissions":"-rw-r--r--","owner":"%s","group":"%d","modifiedTime":"2026-01-02T03:04:05.600Z"`
	entry := fmt.Sprintf(`{"name":"f","type":"FILE_TYPE_FILE","path":%q,"size":"5",`+shown+`}`, file, owner, os.Getegid())
	for _, c := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"Stat", `{"path":"dir/f"}`, 200, `{"entry":` + entry + `}`},
		{"Stat", `{"path":"~/dir/../dir/f"}`, 200, `{"entry":` + entry + `}`},
		{"Stat", `{"path":"dir/nope"}`, 404, `{"code":"not_found","message":"path '` + home + `/dir/nope' does not exist"}`},
		{"Stat", `{"path":"~root/x"}`, 400, `{"code":"invalid_argument"`},
		{"ListDir", `{"path":"dir/f"}`, 400, `{"code":"invalid_argument","message":"path is not a directory: ` + file + `"}`},
		{"ListDir", `{"path":"dir"}`, 200, `{"entries":[` + entry + `,{"name":"link","type":"FILE_TYPE_FILE","path":"` + home + `/dir/link","size":"1","mode":420,"permissions":"Lrwxrwxrwx"`},
		{"ListDir", `{"path":"dir","depth":9999}`, 200, `{"entries":[`},
		{"MakeDir", `{"path":"dir"}`, 409, `{"code":"already_exists","message":"directory already exists: ` + home + `/dir"}`},
		{"MakeDir", `{"path":"dir/f"}`, 400, `{"code":"invalid_argument"`},
		{"MakeDir", `{"path":"new/a"}`, 200, `{"entry":{"name":"a","type":"FILE_TYPE_DIRECTORY","path":"` + home + `/new/a"`},
		{"Move", `{"source":"dir/f","destination":"other/g"}`, 200, `{"entry":{"name":"g","type":"FILE_TYPE_FILE","path":"` + home + `/other/g","size":"5"`},
		{"Move", `{"source":"dir/f","destination":"x"}`, 404, `{"code":"not_found"`},
		{"Remove", `{"path":"other"}`, 200, `{}`}, {"Remove", `{"path":"other"}`, 200, `{}`},
		{"GetWatcherEvents", `{"watcherId":"x"}`, 404, `{"code":"not_found","message":"watcher with id 'x' not found"}`},
		{"CreateWatcher", `{"path":"nope"}`, 404, `{"code":"not_found"`},
		{"Stat", `{"path":"` + strings.Repeat("x", maxFilesMessage) + `"}`, 429, `{"code":"resource_exhausted"`},
	} {
		status, got := rpc(t, base, c.method, c.body)
		if status != c.status || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %.100s: got %d %s, want %d %s", c.method, c.body, status, got, c.status, c.want)
		}
	}
}

// TestWatchOnTheWire is a stream, and a watcher that is polled.
func TestWatchOnTheWire(t *testing.T) {
	base, home, _ := serveFiles(t)
	status, answer := rpc(t, base, "CreateWatcher", `{"path":".","recursive":true}`)
	var made struct{ WatcherID string }
	if err := json.Unmarshal([]byte(answer), &made); err != nil || status != 200 || made.WatcherID == "" {
		t.Fatalf("got %d %s", status, answer)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/filesystem.Filesystem/WatchDir", strings.NewReader(envelope(0, `{"path":"~","includeEntry":true}`)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Content-Type": streamJSON, headerToken: token, headerKeepalive: "1", headerTimeout: "3000"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	e := &events{t: t, r: resp.Body}
	if got := e.next(); got.json != `{"start":{}}` {
		t.Fatalf("got %+v", got)
	}
	if code, _, body := askFiles(t, base, http.MethodPost, filesQuery("path", "f"), "hi", map[string]string{"Content-Type": octets}); code != 200 {
		t.Fatalf("got %d %s", code, body)
	}
	for _, want := range []string{
		`{"filesystem":{"name":"f","type":"EVENT_TYPE_CREATE","entry":{"name":"f","type":"FILE_TYPE_FILE","path":"` + home + `/f","size":"2"`,
		`{"filesystem":{"name":"f","type":"EVENT_TYPE_WRITE","entry":`, `{"keepalive":{}}`,
	} {
		if got := e.next(); !strings.HasPrefix(got.json, want) {
			t.Errorf("got %s, want %s", got.json, want)
		}
	}
	for end := e.next(); ; end = e.next() {
		if end.flags == 2 {
			if !strings.Contains(end.json, "deadline_exceeded") {
				t.Errorf("the end is %s", end.json)
			}
			break
		}
	}
	poll := `{"watcherId":"` + made.WatcherID + `"}`
	want := `{"events":[{"name":"f","type":"EVENT_TYPE_CREATE"},{"name":"f","type":"EVENT_TYPE_WRITE"}]}`
	if status, got := rpc(t, base, "GetWatcherEvents", poll); status != 200 || got != want {
		t.Errorf("got %d %s", status, got)
	}
	if status, got := rpc(t, base, "GetWatcherEvents", poll); status != 200 || got != `{}` {
		t.Errorf("got %d %s", status, got)
	}
	if status, got := rpc(t, base, "RemoveWatcher", poll); status != 200 || got != `{}` {
		t.Errorf("got %d %s", status, got)
	}
}

// TestDownloads is what GET /files answers.
func TestDownloads(t *testing.T) {
	base, home, _ := serveFiles(t)
	for name, text := range map[string]string{"f": "0123456789", "empty": ""} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, head, _ := askFiles(t, base, http.MethodGet, filesQuery("path", "f"), "", nil)
	tag := head.Get("ETag")
	for name, c := range map[string]struct {
		query, header map[string]string
		status        int
		body          string
		want          map[string]string
	}{
		"a file":           {nil, nil, 200, "0123456789", map[string]string{"Content-Length": "10", "Content-Type": octets, "Accept-Ranges": "bytes", "Content-Encoding": ""}},
		"as a user":        {map[string]string{"username": "user"}, nil, 200, "0123456789", nil},
		"nobody":           {map[string]string{"username": "nope"}, nil, 401, `{"code":401,"message":"invalid username: 'nope'"}`, map[string]string{"Content-Type": "application/json"}},
		"empty":            {map[string]string{"path": "empty"}, nil, 200, "", map[string]string{"Content-Length": "0"}},
		"empty, packed":    {map[string]string{"path": "empty"}, map[string]string{"Accept-Encoding": "gzip"}, 200, "", map[string]string{"Content-Length": "0", "Content-Encoding": ""}},
		"missing":          {map[string]string{"path": "nope"}, nil, 404, `{"code":404,"message":"path '` + home + `/nope' does not exist"}`, nil},
		"a folder":         {map[string]string{"path": "."}, nil, 400, `{"code":400,"message":"path '` + home + `' is a directory"}`, nil},
		"a device":         {map[string]string{"path": "/dev/zero"}, nil, 400, `{"code":400,`, nil},
		"no size":          {map[string]string{"path": "/proc/version"}, nil, 200, "Linux", nil},
		"a range":          {nil, map[string]string{"Range": "bytes=2-4"}, 206, "234", map[string]string{"Content-Range": "bytes 2-4/10", "Content-Length": "3"}},
		"its end":          {nil, map[string]string{"Range": "bytes=-3"}, 206, "789", nil},
		"open":             {nil, map[string]string{"Range": "bytes=8-"}, 206, "89", nil},
		"beyond":           {nil, map[string]string{"Range": "bytes=10-"}, 416, `{"code":416,"message":"the range lies outside of the file"}`, map[string]string{"Content-Type": "application/json", "Content-Range": "bytes */10"}},
		"a range, packed":  {nil, map[string]string{"Range": "bytes=2-4", "Accept-Encoding": "gzip"}, 206, "234", map[string]string{"Content-Encoding": ""}},
		"not modified":     {nil, map[string]string{"If-None-Match": tag}, 304, "", nil},
		"modified":         {nil, map[string]string{"If-None-Match": `"x"`}, 200, "0123456789", nil},
		"a stale range":    {nil, map[string]string{"Range": "bytes=2-4", "If-Range": `"x"`}, 200, "0123456789", nil},
		"plain at best":    {nil, map[string]string{"Accept-Encoding": "gzip;q=0.5, identity"}, 200, "0123456789", nil},
		"unknown encoding": {nil, map[string]string{"Accept-Encoding": "br"}, 200, "0123456789", nil},
		"none acceptable":  {nil, map[string]string{"Accept-Encoding": "br, identity;q=0"}, 406, `{"code":406,`, nil},
		"nothing at all":   {nil, map[string]string{"Accept-Encoding": "*;q=0"}, 406, `{"code":406,`, nil},
		"no token":         {nil, map[string]string{headerToken: ""}, 401, `{"code":401,`, nil},
		"a wrong token":    {nil, map[string]string{headerToken: "x"}, 401, `{"code":401,`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			q := filesQuery("path", "f")
			for key, value := range c.query {
				q.Set(key, value)
			}
			status, head, body := askFiles(t, base, http.MethodGet, q, "", c.header)
			if status != c.status || !strings.HasPrefix(body, c.body) || c.body == "" && body != "" {
				t.Errorf("got %d %q", status, body)
			}
			for name, want := range c.want {
				if got := head.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
	status, head, body := askFiles(t, base, http.MethodGet, filesQuery("path", "f"), "", map[string]string{"Accept-Encoding": "gzip, deflate"})
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil || status != 200 || head.Get("Content-Encoding") != "gzip" {
		t.Fatalf("got %d %v %v", status, head, err)
	}
	if text, err := io.ReadAll(z); err != nil || string(text) != "0123456789" {
		t.Errorf("got %q, %v", text, err)
	}
	if status, head, _ := askFiles(t, base, http.MethodHead, filesQuery("path", "f"), "", nil); status != 200 || head.Get("Content-Length") != "10" {
		t.Errorf("HEAD: got %d %v", status, head)
	}
	if status, _, _ := askFiles(t, base, http.MethodDelete, filesQuery("path", "f"), "", nil); status != 404 {
		t.Errorf("DELETE: got %d", status)
	}
}
