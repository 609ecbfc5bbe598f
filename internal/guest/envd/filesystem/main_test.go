package filesystem

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// self is who runs the test, at home in a folder of the test's.
func self(t testing.TB) user.User {
	t.Helper()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return user.User{Name: "user", UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: home}
}

// users are the names that the tests know.
func users(t testing.TB, u user.User) user.DB {
	t.Helper()
	dir := t.TempDir()
	db := user.DB{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	write(t, db.Passwd, "user:x:"+number(u.UID)+":1::"+u.Home+":\n")
	write(t, db.Group, "users:x:"+number(u.GID)+":\n")
	return db
}

func number(n uint32) string { return nameOf(nil, n) }

// newManager changes the limits of envd's, if change is not nil.
func newManager(t testing.TB, u user.User, change func(*Limits)) *Manager {
	t.Helper()
	limits := DefaultLimits()
	if change != nil {
		change(&limits)
	}
	m := NewManager(users(t, u), limits)
	t.Cleanup(m.Close)
	return m
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// wants fails unless err is of the kind; nil is none.
func wants(t testing.TB, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) || (err == nil) != (kind == nil) {
		t.Errorf("%s: got %v, want %v", what, err, kind)
	}
}

// TestResolve is what paths mean.
func TestResolve(t *testing.T) {
	u := user.User{Name: "user", Home: "/home/user"}
	for _, c := range []struct {
		path, want string
		kind       error
	}{
		{"", "/home/user", nil}, {".", "/home/user", nil}, {"~", "/home/user", nil}, {"~/", "/home/user", nil},
		{"a/b", "/home/user/a/b", nil}, {"~/a", "/home/user/a", nil}, {"./~x", "/home/user/~x", nil}, {"../x", "/home/x", nil},
		{"/a/../../b//c/", "/b/c", nil}, {"/", "/", nil}, {"/..", "/", nil}, {"a~", "/home/user/a~", nil},
		{"~root/x", "", errs.ErrInvalid}, {"a\x00b", "", errs.ErrInvalid}, {strings.Repeat("a/", 2500), "", errs.ErrInvalid},
		{"/" + strings.Repeat("a", 256), "", errs.ErrInvalid}, {"/" + strings.Repeat("a", 255), "/" + strings.Repeat("a", 255), nil},
	} {
		got, err := Resolve(u, c.path)
		wants(t, c.path, err, c.kind)
		if got != c.want {
			t.Errorf("%.50q: got %q, want %q", c.path, got, c.want)
		}
	}
}

// FuzzResolve never leaves a path that the kernel reads otherwise than we do.
func FuzzResolve(f *testing.F) {
	f.Add("~/../..//x")
	f.Add("a/./b/")
	f.Fuzz(func(t *testing.T, path string) {
		got, err := Resolve(user.User{Home: "/home/user"}, path)
		if err != nil {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Error(err)
			}
			return
		}
		if !filepath.IsAbs(got) || filepath.Clean(got) != got || len(got) >= maxPath || strings.ContainsRune(got, 0) {
			t.Errorf("%q becomes %q", path, got)
		}
	})
}

// isPermission is what a user may not do.
var isPermission = errs.ErrPermissionDenied
