package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

// realFiles is the files of the real envd, and a folder of the test's.
func realFiles(t *testing.T) (*Files, string) {
	t.Helper()
	c := real(t, known{token, now()})
	if err := c.WaitReady(patient(t)); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c.Files(""), dir
}

func is(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) || (err == nil) != (kind == nil) {
		t.Errorf("%s: got %v, want %v", what, err, kind)
	}
	printable(t, err)
}

// TestRealTree makes, lists, moves and removes in the real envd.
func TestRealTree(t *testing.T) {
	f, dir := realFiles(t)
	ctx, at := patient(t), func(name string) string { return filepath.Join(dir, name) }
	is(t, "make", f.MakeDir(ctx, at("a/b")), nil)
	is(t, "make again", f.MakeDir(ctx, at("a/b")), errs.ErrAlreadyExists)
	mode := fs.FileMode(0o600)
	is(t, "upload", f.Upload(ctx, at("a/b/f"), strings.NewReader("hello"), &mode), nil)
	is(t, "make over a file", f.MakeDir(ctx, at("a/b/f")), errs.ErrInvalid)
	if err := os.Symlink("f", at("a/b/link\n")); err != nil {
		t.Fatal(err)
	}
	list, err := f.List(ctx, at("a"), 2)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, fmt.Sprintf("%s %d %v %d %v", e.Name, e.Type, e.Mode, e.Size, e.Exact))
	}
	want := []string{"b 2 -rwxr-xr-x 4096 true", "f 1 -rw------- 5 true", `link\u000a 1 -rw------- 1 false`}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if e, err := f.Stat(ctx, at("a/b/link\n")); err != nil || e.Target != at("a/b/f") {
		t.Errorf("got %+v, %v", e, err)
	}
	is(t, "move", f.Move(ctx, at("a/b"), at("c/d")), nil)
	is(t, "move nothing", f.Move(ctx, at("a/b"), at("c/d")), errs.ErrNotFound)
	is(t, "remove", f.Remove(ctx, at("c")), nil)
	is(t, "remove nothing", f.Remove(ctx, at("c")), nil)
	_, err = f.Stat(ctx, at("c/d/f"))
	is(t, "stat", err, errs.ErrNotFound)
	_, err = f.List(ctx, at("c"), 1)
	is(t, "list", err, errs.ErrNotFound)
	_, err = f.client.Files("nobody-here").Stat(ctx, "/")
	is(t, "nobody", err, errs.ErrUnauthenticated)
}

// TestRealContent uploads and downloads files of all sizes, and parts of them.
func TestRealContent(t *testing.T) {
	f, dir := realFiles(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, copyBytes - 1, copyBytes, copyBytes + 1, 3*megabyte + 7} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(random.Uint32())
		}
		path := filepath.Join(dir, fmt.Sprint(size))
		if err := f.Upload(patient(t), path, iotest.HalfReader(bytes.NewReader(content)), nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ offset, length int }{{0, -1}, {0, size}, {0, size + 10}, {size / 2, -1}, {size / 3, size / 2}, {max(size-1, 0), 5}, {0, 1}} {
			var got bytes.Buffer
			n, err := f.Download(patient(t), path, int64(c.offset), int64(c.length), &got)
			if err != nil {
				t.Fatalf("%d: %+v: %v", size, c, err)
			}
			end := size
			if c.length >= 0 {
				end = min(size, c.offset+c.length)
			}
			if !bytes.Equal(got.Bytes(), content[c.offset:end]) || n != int64(got.Len()) {
				t.Errorf("%d bytes: %+v gives %d", size, c, got.Len())
			}
		}
		_, err := f.Download(patient(t), path, int64(size)+1, 1, io.Discard)
		is(t, "beyond the end", err, errs.ErrInvalid)
	}
}

// TestRealFailures have their kinds.
func TestRealFailures(t *testing.T) {
	f, dir := realFiles(t)
	ctx, at := patient(t), func(name string) string { return filepath.Join(dir, name) }
	down := func(path string, offset, length int64, w io.Writer) error {
		_, err := f.Download(ctx, path, offset, length, w)
		return err
	}
	up := func(path string, r io.Reader) error { return f.Upload(ctx, path, r, nil) }
	if err := os.WriteFile(at("f"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the reader broke")
	full, w := io.Pipe()
	_ = full.CloseWithError(broken)
	for what, c := range map[string]struct{ got, want error }{
		"read nothing":     {down(at("nope"), 0, -1, io.Discard), errs.ErrNotFound},
		"read no bytes":    {down(at("nope"), 0, 0, io.Discard), errs.ErrNotFound},
		"read a folder":    {down(dir, 0, -1, io.Discard), errs.ErrInvalid},
		"no range":         {down(at("f"), -1, 1, io.Discard), errs.ErrInvalid},
		"no end":           {down(at("f"), 1<<62, 1<<62, io.Discard), errs.ErrInvalid},
		"no path":          {down("a\x00b", 0, -1, io.Discard), errs.ErrInvalid},
		"the writer":       {down(at("f"), 0, -1, w), broken},
		"no size, a part":  {down("/proc/version", 1, 3, io.Discard), errs.ErrFailedPrecondition},
		"no size":          {down("/proc/version", 0, -1, io.Discard), nil},
		"write a folder":   {up(dir, strings.NewReader("x")), errs.ErrInvalid},
		"below a file":     {up(at("f/x"), strings.NewReader("x")), errs.ErrInvalid},
		"not UTF-8":        {up("\xff", strings.NewReader("x")), errs.ErrInvalid},
		"the reader":       {up(at("f"), io.MultiReader(strings.NewReader(strings.Repeat("x", megabyte)), iotest.ErrReader(broken))), broken},
		"the reader, once": {up(at("f"), iotest.ErrReader(broken)), broken},
		"a user":           {f.client.Files("a:b").Upload(ctx, at("f"), strings.NewReader("x"), nil), errs.ErrInvalid},
		"nobody":           {f.client.Files("nobody-here").Upload(ctx, at("f"), strings.NewReader("x"), nil), errs.ErrUnauthenticated},
	} {
		is(t, what, c.got, c.want)
	}
	if b, err := os.ReadFile(at("f")); err != nil || string(b) != "old" {
		t.Errorf("the file is %.20q now, %v", b, err)
	}
}

// TestACanceledUploadLeavesNothing.
func TestACanceledUploadLeavesNothing(t *testing.T) {
	f, dir := realFiles(t)
	ctx, cancel := context.WithCancelCause(patient(t))
	enough := errors.New("enough")
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(make([]byte, megabyte))
		cancel(enough)
	}()
	is(t, "canceled", f.Upload(ctx, filepath.Join(dir, "f"), r, nil), enough)
	_ = w.CloseWithError(enough) // the transport may still wait for more
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		list, err := os.ReadDir(dir)
		if err != nil || time.Now().After(end) {
			t.Fatalf("left: %v, %v", list, err)
		}
		if len(list) == 0 {
			return
		}
	}
}

// TestALargeFileTakesLittleMemory: both ends, in this one process.
func TestALargeFileTakesLittleMemory(t *testing.T) {
	f, dir := realFiles(t)
	const size = 128 * megabyte
	allocated := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.TotalAlloc
	}
	before := allocated()
	path := filepath.Join(dir, "large")
	if err := f.Upload(patient(t), path, io.LimitReader(zeros{}, size), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Download(patient(t), path, 0, -1, io.Discard); err != nil || n != size {
		t.Fatalf("got %d bytes, %v", n, err)
	}
	if all := allocated() - before; all > 4*megabyte {
		t.Errorf("%d MiB were allocated for a file of %d", all/megabyte, size/megabyte)
	}
}

// TestRealWatch sees what happens in the real envd.
func TestRealWatch(t *testing.T) {
	f, dir := realFiles(t)
	w, err := f.Watch(patient(t), dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := f.Upload(patient(t), filepath.Join(dir, "a/f"), strings.NewReader("x"), nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	for e, err := range w.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.Change.String()+" "+e.Name); e.Name == "a/f" && e.Change == Written {
			break
		}
	}
	if diff := cmp.Diff([]string{"created a", "created a/f", "written a/f"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, err := range w.Events() {
		t.Errorf("after the end: %v", err)
	}
	_, err = f.Watch(patient(t), filepath.Join(dir, "nope"), false)
	is(t, "nothing", err, errs.ErrNotFound)
	ctx, cancel := context.WithCancelCause(patient(t))
	enough := errors.New("enough")
	if w, err = f.Watch(ctx, dir, false); err != nil {
		t.Fatal(err)
	}
	cancel(enough)
	for _, err := range w.Events() {
		is(t, "canceled", err, enough)
	}
	if w, err = f.Watch(patient(t), filepath.Join(dir, "a"), false); err != nil {
		t.Fatal(err)
	}
	is(t, "remove", f.Remove(patient(t), filepath.Join(dir, "a")), nil)
	for _, e := range w.Events() {
		if err = e; err != nil {
			break
		}
	}
	is(t, "the folder went", err, errs.ErrNotFound)
}
