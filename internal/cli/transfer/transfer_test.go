package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// liar is a guest that says what the test wants.
type liar struct {
	stat func(path string) (*pb.File, error)
	list func(path string) []*pb.File
	read func(path string, length uint64, w io.Writer) error
}

func (l liar) Stat(_ context.Context, path string) (*pb.File, error) { return l.stat(path) }

func (l liar) List(_ context.Context, path string) ([]*pb.File, error) { return l.list(path), nil }

func (l liar) Read(_ context.Context, path string, length uint64, w io.Writer) error {
	return l.read(path, length, w)
}

func (l liar) MakeDir(context.Context, string) error { return errs.ErrPermissionDenied }

func (l liar) Write(context.Context, string, uint32, io.Reader) error {
	return errs.ErrPermissionDenied
}

func folder(name string) *pb.File {
	return &pb.File{Name: name, Type: pb.FileType_FILE_TYPE_DIRECTORY, Mode: 0o755}
}

func file(name, text string) *pb.File {
	return &pb.File{Name: name, Type: pb.FileType_FILE_TYPE_FILE, Mode: 0o644, Size: uint64(len(text))}
}

// saying is a guest with one folder, that has these entries, whose files all have the text; and in each folder below are the files again.
func saying(text string, entries ...*pb.File) liar {
	root := ""
	return liar{stat: func(string) (*pb.File, error) { return folder("x"), nil },
		list: func(path string) []*pb.File {
			if path == root || root == "" {
				root = path
				return entries
			}
			return slices.DeleteFunc(slices.Clone(entries), func(f *pb.File) bool { return f.GetType() != pb.FileType_FILE_TYPE_FILE })
		},
		read: func(_ string, _ uint64, w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}}
}

// tree is everything below a folder, with what is in the files.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.Type() == fs.ModeSymlink:
			all[name], err = os.Readlink(path)
		case d.IsDir():
			all[name] = "/"
		default:
			var text []byte
			text, err = os.ReadFile(path)
			all[name] = string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// trap is a folder to download to, with links that lead out of it, and files outside that must stay what they are.
func trap(t testing.TB) (dir string, unharmed func()) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "here")
	outside := filepath.Join(top, "outside")
	for _, d := range []string{dir, outside, filepath.Join(dir, "inside")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("unharmed"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"up": "..", "out": outside, "victim": "../outside/victim", "in": "inside", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func() {
		got := tree(t, outside)
		if len(got) != 2 || got["victim"] != "unharmed" {
			t.Errorf("outside there are %q", got)
		}
		if list, err := os.ReadDir(top); err != nil || len(list) != 2 {
			t.Errorf("beside there are %v, %v", list, err)
		}
		for name := range tree(t, dir) {
			if strings.Contains(name, ".wrenn-cp-") {
				t.Errorf("%s is left", name)
			}
		}
	}
}

// TestNamesLeadNowhereElse: a guest that lists names and types to get out of the destination gets nothing done there.
func TestNamesLeadNowhereElse(t *testing.T) {
	for what, c := range map[string]struct {
		entry *pb.File
		kind  error // nil is any, for what the kernel refuses
	}{
		"up": {folder(".."), errs.ErrInvalid}, "a path": {file("../outside/victim", "x"), errs.ErrInvalid}, "absolute": {file("/etc/x", "x"), errs.ErrInvalid},
		"nothing": {file("", "x"), errs.ErrInvalid}, "itself": {folder("."), errs.ErrInvalid}, "a NUL": {file("a\x00b", "x"), errs.ErrInvalid},
		"not as it was": {&pb.File{Name: `a\u0007`, Inexact: true, Type: pb.FileType_FILE_TYPE_FILE}, errs.ErrInvalid},
		"a link up":     {folder("up"), nil}, "a link out": {folder("out"), nil}, "a link in a circle": {folder("loop"), nil},
	} {
		dir, unharmed := trap(t)
		_, err := Download(t.Context(), saying("x", c.entry, file("victim", "x")), "/f/.", dir, Options{})
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
		unharmed()
	}
	dir, unharmed := trap(t)
	r, err := Download(t.Context(), saying("x", file("victim", "x"), folder("in"), &pb.File{Name: "l", SymlinkTarget: "/etc"}, &pb.File{Name: "pipe"}), "/f/.", dir, Options{})
	got := tree(t, dir)
	if err != nil || got["victim"] != "x" || got["inside/victim"] != "x" || len(r.Skipped) != 2 || r.Files != 2 || r.Bytes != 2 {
		t.Errorf("%+v, %v: %q", r, err, got)
	}
	unharmed()
}

// TestLimits: what a guest says has no end comes to one.
func TestLimits(t *testing.T) {
	endless := saying("", file("a", "0123456789"))
	endless.read = func(_ string, _ uint64, w io.Writer) error {
		for {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				return err
			}
		}
	}
	deep := saying("", folder("d"))
	deep.list = func(string) []*pb.File { return []*pb.File{folder("d")} }
	wide := saying("", folder("d"))
	many := make([]*pb.File, 1001)
	for i := range many {
		many[i] = &pb.File{Name: "pipe"}
	}
	wide.list = func(string) []*pb.File { return many }
	large := saying(strings.Repeat("x", 600), &pb.File{Name: "a", Type: pb.FileType_FILE_TYPE_FILE}, &pb.File{Name: "b", Type: pb.FileType_FILE_TYPE_FILE})
	for what, c := range map[string]struct {
		guest liar
		kind  error
	}{"more than it said": {endless, errs.ErrUnavailable}, "deep": {deep, errs.ErrResourceExhausted}, "wide": {wide, errs.ErrResourceExhausted},
		"large": {large, errs.ErrResourceExhausted}} {
		dir, unharmed := trap(t)
		if _, err := Download(t.Context(), c.guest, "/f/.", dir, Options{Bytes: 1000, Entries: 1000}); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "a")); what == "more than it said" && err == nil {
			t.Error("a file that was not whole is there")
		}
		unharmed()
	}
}

// TestWhereThingsGo: into a folder that is there under the own name, otherwise under the name that is given.
func TestWhereThingsGo(t *testing.T) {
	one, single := saying("text", file("a", "text")), saying("text")
	one.list = func(string) []*pb.File { return []*pb.File{file("a", "text")} }
	single.stat = func(string) (*pb.File, error) { return file("x", "text"), nil }
	for _, c := range []struct {
		guest    liar
		from, to string
		want     string
	}{
		{one, "/srv/out", "there", "there/out/a"}, {one, "/srv/out", "new", "new/a"}, {one, "/srv/out/.", "there", "there/a"}, {one, "out/", "there", "there/out/a"},
		{one, ".", "there", "there/a"}, {one, "/", "new", "new/a"}, {one, "..", "there", "there/a"},
		{single, "/srv/f", "there", "there/f"}, {single, "/srv/f", "new", "new"}, {single, "/srv/f", "there/", "there/f"}, {single, "/srv/f", "there/g", "there/g"},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "there"), 0o755); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, c.to)
		if strings.HasSuffix(c.to, "/") {
			to += "/"
		}
		if _, err := Download(t.Context(), c.guest, c.from, to, Options{}); err != nil || tree(t, dir)[c.want] != "text" {
			t.Errorf("%s to %s: %v, %q", c.from, c.to, err, tree(t, dir))
		}
	}
	if _, err := Download(t.Context(), single, "/f", filepath.Join(t.TempDir(), "none", "f"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no folder: %v", err)
	}
}

// TestAnErrorIsTheGuests: kinds pass through.
func TestAnErrorIsTheGuests(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := saying("")
	g.stat = func(string) (*pb.File, error) { return nil, fmt.Errorf("guest: %w", errs.ErrNotFound) }
	if _, err := Download(t.Context(), g, "/f", dir, Options{}); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("download: %v", err)
	}
	for _, from := range []string{dir, filepath.Join(dir, "f")} {
		if _, err := Upload(t.Context(), g, from, "/f", Options{}); !errors.Is(err, errs.ErrPermissionDenied) {
			t.Errorf("upload of %s: %v", from, err)
		}
	}
	if _, err := Content(t.Context(), saying(""), "/d", io.Discard, Options{}); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("the content of a folder: %v", err)
	}
}

// FuzzDownload has a guest list anything, and looks at what is outside of the destination.
func FuzzDownload(f *testing.F) {
	f.Add([]byte("\x02../outside/victim\n\x01up\n\x02victim"))
	f.Add([]byte("\x01out\n\x02victim\n\x01in\n\x05link\n\x00pipe"))
	f.Add([]byte("\x01a\n\x01..\n\x02/etc/passwd\n\x02a\x00b\n\x01loop"))
	f.Add([]byte("A\r\n\x02\x1b[2J\n\x02\xff"))
	f.Fuzz(func(t *testing.T, listing []byte) {
		if len(listing) > 1<<10 {
			return
		}
		var entries []*pb.File
		for _, line := range bytes.Split(listing, []byte("\n")) {
			if len(line) == 0 {
				continue
			}
			e := &pb.File{Name: string(line[1:]), Type: pb.FileType(line[0] & 3), Mode: uint32(line[0]) << 4, Size: uint64(line[0] >> 6)}
			if line[0]&4 != 0 {
				e.SymlinkTarget = "/"
			}
			entries = append(entries, e)
		}
		dir, unharmed := trap(t)
		_, err := Download(t.Context(), saying("text", entries...), "/f/.", dir, Options{Bytes: 1 << 10})
		unharmed()
		if err == nil {
			return
		}
		// What is refused is told with a text that a terminal can show.
		if strings.ContainsAny(err.Error(), "\x00\x1b\r\x07") {
			t.Errorf("%q", err)
		}
	})
}
