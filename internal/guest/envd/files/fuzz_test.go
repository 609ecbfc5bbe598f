package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// home makes a handler whose one user runs the test.
func home(t testing.TB) (h *Handler, dir string) {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(root, "home")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	db := user.DB{Passwd: filepath.Join(root, "passwd"), Group: filepath.Join(root, "group")}
	line := fmt.Sprintf("user:x:%d:%d::%s:/bin/sh\n", os.Geteuid(), os.Getegid(), dir)
	if err := os.WriteFile(db.Passwd, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	return New(db, DefaultLimits()), dir
}

// ask sends a request past the gate.
func ask(h *Handler, method, query, body string, header map[string]string, signed bool) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/files", strings.NewReader(body))
	r.URL.RawQuery = query
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	q, err := ParseQuery(r.URL)
	if err != nil {
		WriteError(w, err)
		return w
	}
	h.Serve(w, r, q, signed)
	return w
}

// TestTheVector is the signature that E2B's SDKs make.
func TestTheVector(t *testing.T) {
	// sha256("/home/user/a.txt:read::tok"), in base64 without its end.
	exp := int64(1_700_000_000)
	for _, c := range []struct{ got, want string }{
		{Sign("tok", Read, "/home/user/a.txt", "", nil), "v1_" + sum("/home/user/a.txt:read::tok")},
		{Sign("tok", Write, "a.txt", "root", &exp), "v1_" + sum("a.txt:write:root:tok:1700000000")},
	} {
		if c.got != c.want || strings.Contains(c.got, "=") {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// FuzzQuery reads any query, and takes no signature but the right one.
func FuzzQuery(f *testing.F) {
	f.Add("path=%2Fa&username=u&mode=644&signature=v1_x&signature_expiration=1", "token")
	f.Add("path=a&path=b;c&mode=0o7", "")
	f.Add("signature=v1_+/&signature_expiration=-9223372036854775809", "x")
	f.Fuzz(func(t *testing.T, raw, token string) {
		q, err := ParseQuery(&url.URL{RawQuery: raw})
		if err != nil {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if q.Mode != nil && *q.Mode > 0o777 {
			t.Errorf("mode %o", *q.Mode)
		}
		now := time.Unix(1_800_000_000, 0)
		if q.Verify(token, Read, now) == nil && q.Signature != Sign(token, Read, q.Path, q.User, q.Expires) {
			t.Errorf("%q is taken", raw)
		}
		q.Signature = Sign(token, Read, q.Path, q.User, q.Expires)
		late := q.Expires != nil && *q.Expires < now.Unix()
		if err := q.Verify(token, Read, now); (err == nil) == (late || token == "" || strings.Contains(q.User, ":")) {
			t.Errorf("%q: %v", raw, err)
		}
		if q.Verify(token, Write, now) == nil || q.Verify(token+"x", Read, now) == nil {
			t.Errorf("%q opens more than it says", raw)
		}
	})
}

// FuzzRange: whatever range is asked for, what comes is that part of the file, or all of it, or nothing.
func FuzzRange(f *testing.F) {
	h, dir := home(f)
	text := "0123456789abcdef"
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(text), 0o644); err != nil {
		f.Fatal(err)
	}
	for _, header := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=9-3", "bytes=0-1,4-5", "bytes=99-", "lines=1", "bytes=0-18446744073709551616"} {
		f.Add(header, "", "gzip")
	}
	f.Fuzz(func(t *testing.T, header, etag, encoding string) {
		w := ask(h, http.MethodGet, "path=f", "", map[string]string{"Range": header, "If-Range": etag, "Accept-Encoding": encoding}, false)
		switch w.Code {
		case http.StatusOK:
			if w.Header().Get("Content-Encoding") == "" && w.Body.String() != text {
				t.Errorf("%q gives %q", header, w.Body)
			}
		case http.StatusPartialContent:
			if strings.HasPrefix(w.Header().Get("Content-Type"), "multipart/") {
				return
			}
			var first, last, size int
			if n, err := fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &size); n != 3 || err != nil || size != len(text) {
				t.Fatalf("%q: range %q", header, w.Header().Get("Content-Range"))
			}
			if w.Body.String() != text[first:last+1] || w.Header().Get("Content-Length") != strconv.Itoa(last-first+1) {
				t.Errorf("%q gives %q", header, w.Body)
			}
		case http.StatusRequestedRangeNotSatisfiable, http.StatusNotAcceptable, http.StatusNotModified:
		default:
			t.Errorf("%q: status %d %s", header, w.Code, w.Body)
		}
	})
}

// FuzzUpload stores what any body makes of itself: never outside of the home when no path is signed, never half a file, and nothing
// hidden stays.
func FuzzUpload(f *testing.F) {
	h, dir := home(f)
	part := "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\n\r\ntext\r\n"
	for _, name := range []string{"a", "../a", "/tmp/a", "~/a", ".", "a\\b", "%2e%2e/a"} {
		f.Add("multipart/form-data; boundary=X", "", fmt.Sprintf(part, name)+"--X--")
		f.Add("multipart/mixed; boundary=X", "", fmt.Sprintf(part, name))
	}
	f.Add("multipart/form-data; boundary=X", "", "--X\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''%2e%2e%2fa\r\n\r\ntext\r\n--X--")
	f.Add("multipart/form-data; boundary=\"", "gzip", "")
	f.Fuzz(func(t *testing.T, contentType, encoding, body string) {
		w := ask(h, http.MethodPost, "", body, map[string]string{"Content-Type": contentType, "Content-Encoding": encoding}, true)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("status %d %s", w.Code, w.Body)
		}
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if strings.HasPrefix(e.Name(), ".wrenn-upload-") && e.Name() != ".wrenn-upload-" {
				t.Errorf("%q left %q", body, e.Name())
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
		outside, err := os.ReadDir(filepath.Dir(dir))
		if err != nil || len(outside) != 2 {
			t.Errorf("%q left %v outside, %v", body, outside, err)
		}
	})
}

// cutOff fails after some bytes.
type cutOff struct{ left int }

func (b *cutOff) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := min(len(p), b.left)
	b.left -= n
	return n, nil
}

// TestABrokenBody leaves what was there.
func TestABrokenBody(t *testing.T) {
	h, dir := home(t)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 1, 1 << 20} {
		r := httptest.NewRequest(http.MethodPost, "/files?path=f", &cutOff{left})
		r.Header.Set("Content-Type", "application/octet-stream")
		w := httptest.NewRecorder()
		h.Serve(w, r, Query{Path: "f", HasPath: true}, false)
		if w.Code != http.StatusBadRequest {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
	list, err := os.ReadDir(dir)
	if b, rerr := os.ReadFile(filepath.Join(dir, "f")); err != nil || rerr != nil || len(list) != 1 || !bytes.Equal(b, []byte("old")) {
		t.Errorf("there are %v, %q, %v %v", list, b, err, rerr)
	}
}

// TestTransfersAreBounded: one too many is told so.
func TestTransfersAreBounded(t *testing.T) {
	h, _ := home(t)
	h = New(h.users, Limits{Transfers: 0, Wait: time.Millisecond, Stall: time.Second, Files: 1})
	if w := ask(h, http.MethodGet, "path=f", "", nil, false); w.Code != http.StatusTooManyRequests {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// TestMetadataHeaders is what a file may be given with it.
func TestMetadataHeaders(t *testing.T) {
	many := http.Header{}
	for i := range maxMetadata + 1 {
		many.Set(fmt.Sprint("X-Metadata-", i), "x")
	}
	for name, c := range map[string]struct {
		header http.Header
		want   map[string]string
		kind   error
	}{
		"none":       {http.Header{"X-Other": {"x"}}, nil, nil},
		"some":       {http.Header{"X-Metadata-Foo-Bar": {"a b"}, "X-Metadata-B": {""}}, map[string]string{"foo-bar": "a b", "b": ""}, nil},
		"no key":     {http.Header{"X-Metadata-": {"x"}}, nil, errs.ErrInvalid},
		"no ASCII":   {http.Header{"X-Metadata-A": {"\u00fc"}}, nil, errs.ErrInvalid},
		"twice":      {http.Header{"X-Metadata-A": {"x", "y"}}, nil, errs.ErrInvalid},
		"too long":   {http.Header{"X-Metadata-A": {strings.Repeat("x", maxMetadataBytes)}}, nil, errs.ErrInvalid},
		"a long key": {http.Header{"X-Metadata-" + strings.Repeat("A", maxMetadataKey+1): {"x"}}, nil, errs.ErrInvalid},
		"too many":   {many, nil, errs.ErrInvalid},
	} {
		got, err := metadata(c.header)
		if !errors.Is(err, c.kind) || (err == nil) != (c.kind == nil) || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

// TestNothingStaysOpen counts this process's files after transfers of all ends.
func TestNothingStaysOpen(t *testing.T) {
	h, dir := home(t)
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	raw := map[string]string{"Content-Type": "application/octet-stream"}
	before := open()
	for range 50 {
		ask(h, http.MethodGet, "path=f", "", nil, false)
		ask(h, http.MethodGet, "path=f", "", map[string]string{"Accept-Encoding": "gzip"}, false)
		ask(h, http.MethodGet, "path=f", "", map[string]string{"Accept-Encoding": "identity;q=0, br"}, false)
		ask(h, http.MethodGet, "path=.", "", nil, false)
		ask(h, http.MethodGet, "path=/proc/version", "", nil, false)
		ask(h, http.MethodPost, "path=g", "text", raw, false)
		ask(h, http.MethodPost, "path=f/g", "text", raw, false)
		ask(h, http.MethodPost, "path=.", "text", raw, false)
	}
	if after := open(); after > before {
		t.Errorf("%d files are open, before %d", after, before)
	}
}
