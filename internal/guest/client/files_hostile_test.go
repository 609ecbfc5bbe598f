package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/errs"
	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
)

// unary is an answer to a call of the RPCs.
func unary(m proto.Message) string {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
}

// TestEntriesThatCantBe are refused, and with them the answer.
func TestEntriesThatCantBe(t *testing.T) {
	fine := func() *filesystempb.EntryInfo {
		return &filesystempb.EntryInfo{Name: "a", Path: "/x/a", Type: filesystempb.FileType_FILE_TYPE_FILE, Size: 5, Mode: 0o644}
	}
	for name, change := range map[string]func(*filesystempb.EntryInfo){
		"no name":    func(e *filesystempb.EntryInfo) { e.Name = "" },
		"here":       func(e *filesystempb.EntryInfo) { e.Name = "." },
		"above":      func(e *filesystempb.EntryInfo) { e.Name = ".." },
		"a path":     func(e *filesystempb.EntryInfo) { e.Name = "../../etc/passwd" },
		"a NUL":      func(e *filesystempb.EntryInfo) { e.Name = "a\x00b" },
		"relative":   func(e *filesystempb.EntryInfo) { e.Path = "a" },
		"no path":    func(e *filesystempb.EntryInfo) { e.Path = "" },
		"negative":   func(e *filesystempb.EntryInfo) { e.Size = -1 },
		"a megabyte": func(e *filesystempb.EntryInfo) { e.Name = strings.Repeat("x", megabyte) },
	} {
		e := fine()
		change(e)
		if got, err := one(e); !errors.Is(err, errs.ErrUnavailable) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		} else {
			printable(t, err)
		}
	}
	if _, err := one(nil); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("no entry: %v", err)
	}
	e := fine()
	e.Name, e.Path, e.Owner, e.Mode, e.SymlinkTarget = "a\x1b[2J", "/x/\u202e", "\x07root", 0o104755, proto.String("/\n")
	e.ModifiedTime = &timestamppb.Timestamp{Seconds: 1 << 62}
	got, err := one(e)
	if err != nil || got.Exact || got.Mode != 0o755 || !got.Modified.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
	printable(t, errors.New(got.Name+got.Path+got.Owner+got.Target))
}

// answering is a guest that says the same to everything.
func answering(texts ...string) *guest {
	return &guest{answer: func(c *call) bool { c.says(texts...); return false }}
}

// TestFilesAnswersThatCantBe end every method with an ErrUnavailable that is safe to print.
func TestFilesAnswersThatCantBe(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\n"
	for name, answer := range map[string][]string{
		"nothing":              {},
		"half a head":          {"HTTP/1.1 200 OK\r\nContent-"},
		"a long header":        {"HTTP/1.1 200 OK\r\nX: ", strings.Repeat("a", megabyte), "\r\n\r\n"},
		"a redirect":           {"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"},
		"packed":               {head, "Content-Encoding: gzip\r\n\r\n", unpacksTo(megabyte)},
		"a long message":       {head, fmt.Sprintf("Content-Length: %d\r\n\r\n", 2*maxList), strings.Repeat("x", 2*maxList)},
		"no protobuf":          {head, "Content-Length: 4\r\n\r\n\xff\xff\xff\xff"},
		"an unknown status":    {"HTTP/1.1 599 \x1b[2J\r\nContent-Length: 0\r\n\r\n"},
		"a part of all":        {"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\nContent-Range: bytes 0-0/1\r\n\r\nx"},
		"fewer than announced": {head, "Content-Length: 100\r\n\r\nabc"},
		"a long refusal":       {"HTTP/1.1 500 No\r\nContent-Type: application/json\r\n\r\n", `{"message":"`, strings.Repeat("\x1b", megabyte), `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := answering(answer...)
			bubble(t, g, func(t *testing.T, c *Client) {
				f, ctx := c.Files("user"), t.Context()
				_, stat := f.Stat(ctx, "/a")
				_, list := f.List(ctx, "/a", 1)
				_, watch := f.Watch(ctx, "/a", true)
				_, down := f.Download(ctx, "/a", 0, -1, io.Discard)
				up := f.Upload(ctx, "/a", strings.NewReader("x"), nil)
				for what, err := range map[string]error{"Stat": stat, "List": list, "Watch": watch, "Download": down, "Upload": up} {
					plain := what == "Download" && (name == "a long message" || name == "no protobuf") // bytes as any others
					if !errors.Is(err, errs.ErrUnavailable) && !plain {
						t.Errorf("%s = %v", what, err)
					}
					printable(t, err)
				}
			})
		})
	}
}

// TestRangesThatCantBe are refused before anything of them is written.
func TestRangesThatCantBe(t *testing.T) {
	part := func(header string, length int) string {
		return fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nContent-Range: %s\r\nContent-Length: %d\r\n\r\n%s", header, length, strings.Repeat("x", length))
	}
	for name, c := range map[string]struct {
		answer string
		kind   error
	}{
		"right":           {part("bytes 5-14/100", 10), nil},
		"the file ends":   {part("bytes 5-9/10", 5), nil},
		"unknown size":    {part("bytes 5-14/*", 10), nil},
		"another start":   {part("bytes 4-13/100", 10), errs.ErrUnavailable},
		"too long":        {part("bytes 5-15/100", 11), errs.ErrUnavailable},
		"another length":  {part("bytes 5-14/100", 9), errs.ErrUnavailable},
		"backwards":       {part("bytes 5-4/100", 0), errs.ErrUnavailable},
		"beyond its size": {part("bytes 5-14/14", 10), errs.ErrUnavailable},
		"the whole":       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", errs.ErrFailedPrecondition},
		"none":            {"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n", errs.ErrInvalid},
		"many":            {"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 3\r\n\r\nabc", errs.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, answering(c.answer), func(t *testing.T, client *Client) {
				var w strings.Builder
				n, err := client.Files("").Download(t.Context(), "/f", 5, 10, &w)
				is(t, "Download", err, c.kind)
				if n != int64(w.Len()) || n > 10 || c.kind != nil && n != 0 {
					t.Errorf("%d bytes were written", n)
				}
			})
		})
	}
}

// TestASilentGuest is given up, by every method that streams; a caller that takes its time is not.
func TestASilentGuest(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		do   func(ctx context.Context, f *Files) error
	}{
		"download": {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", func(ctx context.Context, f *Files) error {
			_, err := f.Download(ctx, "/f", 0, -1, io.Discard)
			return err
		}},
		"no head": {"", func(ctx context.Context, f *Files) error {
			_, err := f.Download(ctx, "/f", 0, -1, io.Discard)
			return err
		}},
		"upload":        {"", func(ctx context.Context, f *Files) error { return f.Upload(ctx, "/f", strings.NewReader("x"), nil) }},
		"upload answer": {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[", func(ctx context.Context, f *Files) error { return f.Upload(ctx, "/f", strings.NewReader("x"), nil) }},
		"watch":         {streaming, func(ctx context.Context, f *Files) error { _, err := f.Watch(ctx, "/f", false); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			g := &guest{answer: func(cl *call) bool { cl.says(c.says); cl.hangs(); return false }}
			bubble(t, g, func(t *testing.T, client *Client) {
				took := lasts(func() { is(t, name, c.do(t.Context(), client.Files("")), errs.ErrUnavailable) })
				if took < silence || took > silence+time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g := answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
		c := New(g.dial, token)
		defer c.Close()
		if _, err := c.Files("").Download(t.Context(), "/f", 0, -1, slow{}); err != nil {
			t.Errorf("a slow writer: %v", err)
		}
	})
}

// slow takes longer than a guest may.
type slow struct{}

func (slow) Write(p []byte) (int, error) { time.Sleep(2 * silence); return len(p), nil }

// TestListsThatCantBe are refused as a whole.
func TestListsThatCantBe(t *testing.T) {
	list := func(n int, name string) string {
		pb := &filesystempb.ListDirResponse{}
		for range n {
			pb.Entries = append(pb.Entries, &filesystempb.EntryInfo{Name: name, Path: "/" + name})
		}
		return unary(pb)
	}
	for name, c := range map[string]struct {
		answer string
		want   int
		kind   error
	}{
		"none": {list(0, "a"), 0, nil}, "many": {list(maxEntries, "a"), maxEntries, nil},
		"too many": {list(maxEntries+1, "a"), 0, errs.ErrUnavailable}, "a way out": {list(2, ".."), 0, errs.ErrUnavailable},
	} {
		bubble(t, answering(c.answer), func(t *testing.T, client *Client) {
			got, err := client.Files("").List(t.Context(), "/", 1)
			if is(t, name, err, c.kind); len(got) != c.want {
				t.Errorf("%s: got %d entries", name, len(got))
			}
		})
	}
}

// TestWatchesThatCantBe end with an error that is safe to print.
func TestWatchesThatCantBe(t *testing.T) {
	message := func(m *filesystempb.WatchDirResponse) string {
		b, err := proto.Marshal(m)
		if err != nil {
			panic(err)
		}
		return envelope(0, string(b))
	}
	event := func(name string, typ filesystempb.EventType) string {
		return message(&filesystempb.WatchDirResponse{Event: &filesystempb.WatchDirResponse_Filesystem{
			Filesystem: &filesystempb.FilesystemEvent{Name: name, Type: typ}}})
	}
	start := message(&filesystempb.WatchDirResponse{Event: &filesystempb.WatchDirResponse_Start{Start: &filesystempb.WatchDirResponse_StartEvent{}}})
	alive := message(&filesystempb.WatchDirResponse{Event: &filesystempb.WatchDirResponse_Keepalive{Keepalive: &filesystempb.WatchDirResponse_KeepAlive{}}})
	created := filesystempb.EventType_EVENT_TYPE_CREATE
	for name, c := range map[string]struct {
		says string
		want int
		kind error
	}{
		"no start":         {event("a", created), 0, errs.ErrUnavailable},
		"an end at once":   {over, 0, errs.ErrUnavailable},
		"no reason":        {start + alive + event("a", created) + over, 1, errs.ErrUnavailable},
		"cut off":          {start + event("a", created), 1, errs.ErrUnavailable},
		"two starts":       {start + start, 0, errs.ErrUnavailable},
		"no name":          {start + event("", created), 0, errs.ErrUnavailable},
		"an absolute name": {start + event("/etc", created), 0, errs.ErrUnavailable},
		"an unknown event": {start + event("a", 99), 0, errs.ErrUnavailable},
		"gone":             {start + envelope(2, `{"error":{"code":"not_found","message":"\u001b[2J"}}`), 0, errs.ErrNotFound},
		"lost":             {start + envelope(2, `{"error":{"code":"resource_exhausted"}}`), 0, errs.ErrResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, answering(streaming, c.says), func(t *testing.T, client *Client) {
				w, err := client.Files("").Watch(t.Context(), "/", true)
				n := 0
				if err == nil {
					for _, e := range w.Events() {
						if err = e; err == nil {
							n++
						}
					}
				}
				if is(t, name, err, c.kind); n != c.want {
					t.Errorf("%d events", n)
				}
			})
		})
	}
}
