package filesystem

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

func pointer[T any](v T) *T { return &v }

// TestStat tells of everything that there is.
func TestStat(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	write(t, at("file"), "hello")
	mkdir(t, at("dir"))
	symlink(t, "file", at("link"))
	symlink(t, "dir", at("toDir"))
	symlink(t, "nowhere", at("broken"))
	symlink(t, "b", at("a"))
	symlink(t, "a", at("b"))
	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at("file"), 0o4751|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_700_000_000, 123_000_000)
	if err := os.Chtimes(at("file"), when, when); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Entry{
		"file":   {Type: File, Mode: 0o751, Size: 5, Permissions: "urwxr-x--x", Modified: when},
		"dir":    {Type: Directory, Mode: 0o755, Permissions: "drwxr-xr-x"},
		"link":   {Type: File, Mode: 0o751, Permissions: "Lrwxrwxrwx", Target: pointer(at("file"))},
		"toDir":  {Type: Directory, Mode: 0o755, Permissions: "Lrwxrwxrwx", Target: pointer(at("dir"))},
		"broken": {Type: Symlink, Mode: 0o777, Permissions: "Lrwxrwxrwx", Target: pointer(at("nowhere"))},
		"a":      {Type: Symlink, Mode: 0o777, Permissions: "Lrwxrwxrwx", Target: pointer(at("b"))},
		"pipe":   {Type: Other, Mode: 0o600, Permissions: "prw-------"},
	} {
		got, err := m.Stat(t.Context(), u, name)
		if err != nil {
			t.Fatal(err)
		}
		want.Name, want.Path, want.Owner, want.Group = name, at(name), "user", "users"
		opts := []cmp.Option{}
		if want.Modified.IsZero() {
			opts = append(opts, cmpopts.IgnoreFields(Entry{}, "Modified"))
		}
		if want.Size == 0 {
			opts = append(opts, cmpopts.IgnoreFields(Entry{}, "Size"))
		}
		if diff := cmp.Diff(want, got, opts...); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for path, kind := range map[string]error{"nope": errs.ErrNotFound, "file/x": errs.ErrInvalid, "a/x": errs.ErrFailedPrecondition, "~root": errs.ErrInvalid} {
		_, err := m.Stat(t.Context(), u, path)
		wants(t, path, err, kind)
	}
}

// TestNoUTF8 lists a name that the protocol can't carry beside others.
func TestNoUTF8(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	write(t, filepath.Join(u.Home, "a\xff\xfeb"), "")
	write(t, filepath.Join(u.Home, "c"), "")
	list, err := m.List(t.Context(), u, "", 0)
	if err != nil || len(list) != 2 || list[0].Name != "a\uFFFDb" || list[1].Name != "c" {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestMakeDir(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	e, err := m.MakeDir(t.Context(), u, "a/b/c")
	if err != nil || e.Type != Directory || e.Path != filepath.Join(u.Home, "a/b/c") || e.Mode != 0o755 {
		t.Errorf("got %+v, %v", e, err)
	}
	write(t, filepath.Join(u.Home, "file"), "")
	symlink(t, "a", filepath.Join(u.Home, "link"))
	symlink(t, "x", filepath.Join(u.Home, "x"))
	for path, kind := range map[string]error{
		"a/b": errs.ErrAlreadyExists, "link": errs.ErrAlreadyExists, "/": errs.ErrAlreadyExists, "": errs.ErrAlreadyExists,
		"file": errs.ErrInvalid, "file/x": errs.ErrInvalid, "x/y": errs.ErrFailedPrecondition, "/proc/x": nil,
	} {
		_, err := m.MakeDir(t.Context(), u, path)
		if path == "/proc/x" {
			if err == nil {
				t.Error("a folder in /proc")
			}
			continue
		}
		wants(t, path, err, kind)
	}
}

func TestMove(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	write(t, at("a"), "a")
	write(t, at("b"), "b")
	write(t, at("full/x"), "x")
	mkdir(t, at("dir"))
	e, err := m.Move(t.Context(), u, "a", "new/folder/a2")
	if err != nil || e.Path != at("new/folder/a2") || e.Size != 1 || read(t, at("new/folder/a2")) != "a" {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, err := m.Move(t.Context(), u, "b", "new/folder/a2"); err != nil || read(t, at("new/folder/a2")) != "b" {
		t.Errorf("replace: %v", err)
	}
	for _, c := range []struct {
		from, to string
		kind     error
	}{
		{"nope", "x", errs.ErrNotFound}, {"dir", "full", errs.ErrFailedPrecondition}, {"full", "full/x/y", errs.ErrInvalid},
		{"dir", "dir/in/itself", errs.ErrInvalid}, {"full/x", "dir", errs.ErrInvalid}, {"full/x", "~no/x", errs.ErrInvalid},
		{"full/x", "/proc/self/x", errs.ErrFailedPrecondition},
	} {
		_, err := m.Move(t.Context(), u, c.from, c.to)
		if c.to == "/proc/self/x" && err != nil {
			continue
		}
		wants(t, c.from+" to "+c.to, err, c.kind)
	}
	if _, err := os.Stat(at("full/x")); err != nil {
		t.Error(err)
	}
}

func TestRemove(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	write(t, at("keep/x"), "x")
	write(t, at("dir/a/b/c"), "x")
	symlink(t, at("keep"), at("dir/a/link"))
	symlink(t, at("keep"), at("link"))
	for path, kind := range map[string]error{"dir": nil, "nope": nil, "link": nil, "/": errs.ErrInvalid, "/..": errs.ErrInvalid} {
		wants(t, path, m.Remove(t.Context(), u, path), kind)
	}
	for name, there := range map[string]bool{"dir": false, "link": false, "keep/x": true} {
		if _, err := os.Lstat(at(name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestList lists a tree in its order, to a depth, without following links but the first.
func TestList(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	for _, name := range []string{"d/b/2/x", "d/b/1", "d/a", "d/c/y"} {
		write(t, at(name), "x")
	}
	symlink(t, "..", at("d/up"))
	symlink(t, "d", at("link"))
	symlink(t, "loop", at("loop"))
	write(t, at("file"), "")
	for _, c := range []struct {
		path  string
		depth uint32
		want  string
	}{
		{"d", 0, "a b c up"}, {"d", 1, "a b c up"}, {"d", 2, "a b b/1 b/2 c c/y up"}, {"d", 1000, "a b b/1 b/2 b/2/x c c/y up"},
		{"link", 1, "a b c up"}, {"d/b/2", 9, "x"},
	} {
		list, err := m.List(t.Context(), u, c.path, c.depth)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range list {
			rel, err := filepath.Rel(at(c.path), e.Path) // the path that was asked for, not where it leads
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, rel)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s to %d: got %q, want %q", c.path, c.depth, got, c.want)
		}
	}
	for path, kind := range map[string]error{"nope": errs.ErrNotFound, "file": errs.ErrInvalid, "file/x": errs.ErrInvalid, "loop": errs.ErrFailedPrecondition} {
		_, err := m.List(t.Context(), u, path, 1)
		wants(t, path, err, kind)
	}
	mkdir(t, at(strings.Repeat("deep/", m.limits.Depth)))
	_, err := m.List(t.Context(), u, "deep", uint32(m.limits.Depth))
	wants(t, "as deep as may be", err, nil)
	_, err = m.List(t.Context(), u, "deep", uint32(m.limits.Depth)+1)
	wants(t, "more than there is", err, nil)
	_, err = m.List(t.Context(), u, "", 1<<32-1)
	wants(t, "much too deep", err, errs.ErrResourceExhausted)
}

// TestListIsBounded refuses what is too much, and says so.
func TestListIsBounded(t *testing.T) {
	u := self(t)
	for i := range 10 {
		write(t, filepath.Join(u.Home, "a", strings.Repeat("x", i+1)), "")
		write(t, filepath.Join(u.Home, "b/c", strings.Repeat("y", 200)+string(rune('0'+i))), "")
	}
	few := newManager(t, u, func(l *Limits) { l.Entries = 10 })
	small := newManager(t, u, func(l *Limits) { l.Bytes = 1000 })
	for name, c := range map[string]struct {
		m     *Manager
		path  string
		depth uint32
		kind  error
	}{
		"just enough": {few, "a", 1, nil}, "one too many": {few, "b", 2, errs.ErrResourceExhausted}, "together": {few, "", 2, errs.ErrResourceExhausted},
		"long names": {small, "b", 2, errs.ErrResourceExhausted}, "few long names": {small, "b", 1, nil},
	} {
		list, err := c.m.List(t.Context(), u, c.path, c.depth)
		wants(t, name, err, c.kind)
		if err != nil && list != nil {
			t.Errorf("%s: a list beside the error", name)
		}
	}
}

// TestOperationsWait: when enough run, another waits as long as its caller.
func TestOperationsWait(t *testing.T) {
	u := self(t)
	m := newManager(t, u, func(l *Limits) { l.Operations = 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := m.Stat(ctx, u, "")
	wants(t, "no room", err, context.DeadlineExceeded)
}

// TestSomebodyElse: who is not root can't act as another.
func TestSomebodyElse(t *testing.T) {
	if os.Geteuid() == 0 {
		return // TestRights has what root can
	}
	u := self(t)
	m := newManager(t, u, nil)
	u.UID++
	_, err := m.Stat(t.Context(), u, "/")
	wants(t, "as somebody else", err, errs.ErrFailedPrecondition)
}
