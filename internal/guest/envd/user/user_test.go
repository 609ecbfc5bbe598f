package user

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

const passwd = `root:x:0:0:root:/root:/bin/bash
# a comment
broken
nan:x:one:1::/:
huge:x:4294967295:1::/:
user:x:1000:1001:,,,:/home/user:/bin/bash
relative:x:7:7::home:
user:x:2:2::/second:
windows:x:8:9::/w:/bin/sh` + "\r\n"

const group = `root:x:0:
sudo:x:27:user,other
docker:x:999:other,user
user:x:1001:user
again:x:27:user
none:x:30:userx
bad:x:x:user
short:x
`

func db(t *testing.T, passwd, group string) DB {
	t.Helper()
	dir := t.TempDir()
	d := DB{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	for path, text := range map[string]string{d.Passwd: passwd, d.Group: group} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestLookup(t *testing.T) {
	d := db(t, passwd, group)
	for _, want := range []User{
		{Name: "root", Home: "/root"},
		{Name: "user", UID: 1000, GID: 1001, Groups: []uint32{27, 999}, Home: "/home/user"},
		{Name: "relative", UID: 7, GID: 7, Home: "/"},
		{Name: "windows", UID: 8, GID: 9, Home: "/w"},
	} {
		got, err := d.Lookup(want.Name)
		if err != nil {
			t.Errorf("%s: %v", want.Name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", want.Name, diff)
		}
	}
	for _, name := range []string{"", "nobody", "nan", "huge", "broken", "# a comment", "user:x", "USER"} {
		if _, err := d.Lookup(name); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%q: got %v, want ErrNotFound", name, err)
		}
	}
}

func TestDefault(t *testing.T) {
	for _, c := range []struct {
		passwd string
		want   User
	}{
		{passwd, User{Name: "user", UID: 1000, GID: 1001, Groups: []uint32{27, 999}, Home: "/home/user"}},
		{"root:x:0:0::/root:", User{Name: "root", Home: "/root"}},
		{"", User{Name: "root", Home: "/"}},
	} {
		got, err := db(t, c.passwd, group).Default()
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
	missing := DB{Passwd: filepath.Join(t.TempDir(), "none"), Group: filepath.Join(t.TempDir(), "none")}
	if u, err := missing.Default(); err != nil || u.Home != "/" || u.UID != 0 {
		t.Errorf("an image without files: got %v, %v", u, err)
	}
	unreadable := DB{Passwd: t.TempDir(), Group: t.TempDir()}
	if _, err := unreadable.Default(); err == nil {
		t.Error("a folder was read as a passwd file")
	}
}

// TestSystem reads the real files: root is in every one of them.
func TestSystem(t *testing.T) {
	u, err := System().Lookup("root")
	if err != nil || u.UID != 0 || u.GID != 0 {
		t.Errorf("got %v, %v", u, err)
	}
}

func FuzzLookup(f *testing.F) {
	f.Add(passwd, group, "user")
	f.Add("a:b:c:d:e:f:g", "x:y:1:a", "a")
	f.Fuzz(func(t *testing.T, passwd, group, name string) {
		u, ok := find(passwd, name)
		if !ok {
			return
		}
		if u.Name == "" || strings.ContainsAny(u.Name, ":\n") || !strings.HasPrefix(u.Home, "/") || strings.ContainsRune(u.Home, 0) {
			t.Errorf("found %+v", u)
		}
		for _, g := range groups(group, u) {
			if g == u.GID || g == 1<<32-1 {
				t.Errorf("group %d of %+v", g, u)
			}
		}
	})
}
