//go:build hosttest

package filesystem

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem/actas"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// somebody is a user without any rights but his home, in a folder where root has secrets.
func somebody(t *testing.T) (u user.User, root string) {
	t.Helper()
	root = self(t).Home
	for dir := root; dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) { // the test's own folders, which only its user may enter
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	u = user.User{Name: "somebody", UID: 54321, GID: 54322, Groups: []uint32{54323}, Home: filepath.Join(root, "home")}
	mkdir(t, u.Home)
	if err := os.Chown(u.Home, int(u.UID), int(u.GID)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "secret/file"), "secret")
	if err := os.Chmod(filepath.Join(root, "secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "open/file"), "anybody may read it")
	write(t, filepath.Join(root, "group/file"), "the group may")
	if err := os.Chown(filepath.Join(root, "group/file"), 0, 54323); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(root, "group/file"), 0o640); err != nil {
		t.Fatal(err)
	}
	return u, root
}

// store and open act as the user.
func store(u user.User, path, text string) error {
	return actas.Run(u, func() error { return Store(path, strings.NewReader(text), Options{}) })
}

func open(u user.User, path string) error {
	return actas.Run(u, func() error {
		f, _, err := Open(path)
		if err == nil {
			err = f.Close()
		}
		return err
	})
}

// TestRights: a user can do what he may by himself, and nothing else.
func TestRights(t *testing.T) {
	u, root := somebody(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(root, name) }
	secret, ctx := at("secret/file"), t.Context()
	for what, c := range map[string]struct {
		do   func() error
		kind error
	}{
		"stat":             {func() error { _, err := m.Stat(ctx, u, secret); return err }, isPermission},
		"list":             {func() error { _, err := m.List(ctx, u, at("secret"), 1); return err }, isPermission},
		"make":             {func() error { _, err := m.MakeDir(ctx, u, at("secret/x")); return err }, isPermission},
		"make beside":      {func() error { _, err := m.MakeDir(ctx, u, at("open/x")); return err }, isPermission},
		"remove":           {func() error { return m.Remove(ctx, u, at("open/file")) }, isPermission},
		"remove all":       {func() error { return m.Remove(ctx, u, at("secret")) }, isPermission},
		"move away":        {func() error { _, err := m.Move(ctx, u, at("open/file"), "mine"); return err }, isPermission},
		"move a secret":    {func() error { _, err := m.Move(ctx, u, secret, "mine"); return err }, isPermission},
		"watch":            {func() error { _, err := m.Watch(ctx, u, WatchOptions{Path: at("secret")}); return err }, isPermission},
		"write":            {func() error { return store(u, secret, "x") }, isPermission},
		"write beside":     {func() error { return store(u, at("open/new"), "x") }, isPermission},
		"write over":       {func() error { return store(u, at("open/file"), "x") }, isPermission},
		"read":             {func() error { return open(u, secret) }, isPermission},
		"read open":        {func() error { return open(u, at("open/file")) }, nil},
		"read the group's": {func() error { return open(u, at("group/file")) }, nil},
		"envd's memory":    {func() error { return open(u, "/proc/self/mem") }, isPermission},
		"init's variables": {func() error { return open(u, "/proc/1/environ") }, isPermission},
		"init's files":     {func() error { _, err := m.List(ctx, u, "/proc/1/fd", 1); return err }, isPermission},
		"through init":     {func() error { _, err := m.List(ctx, u, "/proc/1/root/", 1); return err }, isPermission},
		"at home":          {func() error { return store(u, filepath.Join(u.Home, "a/b"), "x") }, nil},
	} {
		wants(t, what, c.do(), c.kind)
	}
	for _, name := range []string{"home/a", "home/a/b"} {
		var st unix.Stat_t
		if err := unix.Stat(at(name), &st); err != nil || st.Uid != u.UID || st.Gid != u.GID {
			t.Errorf("%s belongs to %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
	if read(t, secret) != "secret" || entries(t, at("secret")) != "file" {
		t.Error("the secret was changed")
	}
}

// TestListLeavesOut what the user may not read, and tells of the rest.
func TestListLeavesOut(t *testing.T) {
	u, root := somebody(t)
	list, err := newManager(t, u, nil).List(t.Context(), u, root, 9)
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	if got := strings.Join(names, " "); err != nil || got != "group file home open file secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestAFileOfAnothersInAnOpenFolder: a folder that the user may write gives no right to a file in it that he may not write.
func TestAFileOfAnothersInAnOpenFolder(t *testing.T) {
	u, root := somebody(t)
	if err := os.Chmod(filepath.Join(root, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	wants(t, "write over", store(u, filepath.Join(root, "open/file"), "x"), isPermission)
	wants(t, "write beside", store(u, filepath.Join(root, "open/new"), "x"), nil)
}

// TestThreadsKeepToThemselves: what a user's thread became, no other ever is, and the rest of envd is root.
func TestThreadsKeepToThemselves(t *testing.T) {
	u, root := somebody(t)
	status := func() (fsuid, caps, groups string) {
		for line := range strings.Lines(read(t, "/proc/thread-self/status")) {
			switch f := strings.Fields(line); f[0] {
			case "Uid:":
				fsuid = strings.Join(f[1:], " ")
			case "CapEff:", "CapPrm:", "CapInh:":
				caps += strings.Trim(f[1], "0")
			case "Groups:":
				groups = strings.Join(f[1:], " ")
			}
		}
		return fsuid, caps, groups
	}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			one := u
			one.UID += uint32(i)
			err := actas.Run(one, func() error {
				time.Sleep(time.Millisecond) // many at once
				// The status is root's to read, as all of the process's files are: so as a child of the same ids would see it.
				if err := unix.Access(filepath.Join(root, "secret/file"), unix.R_OK); err == nil {
					_, statErr := os.Stat(filepath.Join(root, "secret/file"))
					if statErr == nil {
						t.Error("a thread may read the secret")
					}
				}
				uid, caps, groups := status()
				if want := "0 0 0 " + strconv.Itoa(int(one.UID)); uid != want || caps != "" || groups != "54323" {
					t.Errorf("got ids %q, capabilities %q, groups %q", uid, caps, groups)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		if _, err := os.ReadFile(filepath.Join(root, "secret/file")); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	for range 100 {
		if _, err := os.ReadFile(filepath.Join(root, "secret/file")); err != nil {
			t.Error(err)
		}
	}
	func() {
		defer func() {
			if recover() != "as if on the caller's" {
				t.Error("a panic was lost")
			}
		}()
		_ = actas.Run(u, func() error { panic("as if on the caller's") })
	}()
	if threads := len(strings.Fields(entries(t, "/proc/self/task"))); threads > 100 {
		t.Errorf("%d threads are left", threads)
	}
}

// TestRaces swaps folders for links to root's, again and again, under operations of a user: none ever touches or tells what is root's.
func TestRaces(t *testing.T) {
	u, root := somebody(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	mkdir(t, at("real"))
	write(t, at("real/file"), "mine")
	for _, name := range []string{"real", "real/file"} {
		if err := os.Chown(at(name), int(u.UID), int(u.GID)); err != nil {
			t.Fatal(err)
		}
	}
	symlink(t, filepath.Join(root, "secret"), at("trap"))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, at("real"), unix.AT_FDCWD, at("trap"), unix.RENAME_EXCHANGE)
		}
	})
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for _, err := range []error{
			func() error { return store(u, at("real/file"), "mine") }(),
			func() error { return store(u, at("real/sub/new"), "mine") }(),
			func() error { _, err := m.MakeDir(ctx, u, at("real/made")); return err }(),
			m.Remove(ctx, u, at("real/sub")), m.Remove(ctx, u, at("real/made")),
			func() error { _, err := m.Stat(ctx, u, at("real/file")); return err }(),
		} {
			for _, fine := range []error{nil, errs.ErrPermissionDenied, errs.ErrNotFound, errs.ErrAlreadyExists, errs.ErrInvalid, errs.ErrFailedPrecondition} {
				if errors.Is(err, fine) {
					err = nil
				}
			}
			if err != nil {
				t.Error(err)
			}
		}
		list, err := m.List(ctx, u, u.Home, 5)
		for _, e := range list {
			if strings.HasPrefix(e.Path, at("real/file")) && e.Size == int64(len("secret")) {
				t.Errorf("the secret is listed: %+v", e)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
	if read(t, filepath.Join(root, "secret/file")) != "secret" || entries(t, filepath.Join(root, "secret")) != "file" {
		t.Errorf("the secret folder has %q", entries(t, filepath.Join(root, "secret")))
	}
}

// TestAFullDisk leaves what was there, and nothing else.
func TestAFullDisk(t *testing.T) {
	u, root := somebody(t)
	disk := filepath.Join(root, "disk")
	mkdir(t, disk)
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m,mode=777"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(disk, 0); err != nil { // fails while anything of ours is open in it
			t.Error(err)
		}
	}()
	if err := store(u, filepath.Join(disk, "old"), "old"); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("x", 2<<20)
	for _, name := range []string{"old", "new", "a/b/new"} {
		wants(t, name, store(u, filepath.Join(disk, name), large), ErrNoSpace)
	}
	if got := entries(t, disk); got != "a old" || entries(t, filepath.Join(disk, "a/b")) != "" || read(t, filepath.Join(disk, "old")) != "old" {
		t.Errorf("there are %q", got)
	}
	wants(t, "what fits", store(u, filepath.Join(disk, "old"), "new"), nil)
}
