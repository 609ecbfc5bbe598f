package filesystem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

const patience = 30 * time.Second

// watching is a watch whose events are collected.
type watching struct {
	*Watch
	t    *testing.T
	got  []string
	last []Event
}

func watch(t *testing.T, m *Manager, u user.User, o WatchOptions) *watching {
	t.Helper()
	w, err := m.Watch(t.Context(), u, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &watching{Watch: w, t: t}
}

// until collects events until one is last, and returns all since the last call.
func (w *watching) until(last string) string {
	w.t.Helper()
	late := time.After(patience)
	for {
		select {
		case <-w.Ready():
		case <-late:
			w.t.Fatalf("%q does not come after %q", last, w.got)
		}
		events, err := w.Take()
		if err != nil {
			w.t.Fatalf("the watch ended: %v, after %q", err, w.got)
		}
		done := false
		for _, e := range events {
			one := e.Type.String() + " " + e.Name
			w.got, w.last = append(w.got, one), append(w.last, e)
			done = done || one == last
		}
		if done {
			all := strings.Join(w.got, ", ")
			w.got = nil
			return all
		}
	}
}

// ends waits until the watch is over.
func (w *watching) ends(kind error) {
	w.t.Helper()
	late := time.After(patience)
	for {
		select {
		case <-w.Ready():
		case <-late:
			w.t.Fatal("it does not end")
		}
		if _, err := w.Take(); err != nil {
			wants(w.t, "the end", err, kind)
			<-w.done
			return
		}
	}
}

// TestEvents is what one folder tells.
func TestEvents(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	mkdir(t, at("d/sub"))
	w := watch(t, m, u, WatchOptions{Path: "d"})
	step := func(what, want string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		write(t, at("d/.end"), "")
		end := "created .end"
		got := strings.TrimSuffix(w.until(end), ", "+end)
		if err := os.Remove(at("d/.end")); err != nil {
			t.Fatal(err)
		}
		w.until("removed .end")
		if got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	step("a file", "created f, written f", func() error { return os.WriteFile(at("d/f"), []byte("x"), 0o644) })
	step("written again", "written f", func() error { return os.WriteFile(at("d/f"), []byte("y"), 0o644) })
	step("its mode", "chmodded f", func() error { return os.Chmod(at("d/f"), 0o600) })
	step("another name", "renamed f, created g", func() error { return os.Rename(at("d/f"), at("d/g")) })
	step("moved away", "renamed g", func() error { return os.Rename(at("d/g"), at("g")) })
	step("moved here", "created g", func() error { return os.Rename(at("g"), at("d/g")) })
	step("removed", "removed g", func() error { return os.Remove(at("d/g")) })
}

// TestAStoredFileIsWritten: whoever watches sees a file that is stored as one that is written in place, and nothing of its hidden name.
func TestAStoredFileIsWritten(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	mkdir(t, filepath.Join(u.Home, "d"))
	for _, recursive := range []bool{false, true} {
		w := watch(t, m, u, WatchOptions{Path: "d", Recursive: recursive})
		name := fmt.Sprint("f", recursive)
		for i, want := range []string{"created " + name + ", written " + name, "written " + name} {
			if err := Store(filepath.Join(u.Home, "d", name), strings.NewReader("text"), Options{}); err != nil {
				t.Fatal(err)
			}
			if got := w.until("written " + name); got != want {
				t.Errorf("%d: got %q, want %q", i, got, want)
			}
		}
	}
}

// TestUnnamedFilesAreNotTold: what another program does to a file without a name is nobody's to see, and "#1" may be the name of a file.
func TestUnnamedFilesAreNotTold(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	dir := filepath.Join(u.Home, "d")
	mkdir(t, dir)
	w := watch(t, m, u, WatchOptions{Path: "d"})
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "unnamed")
	_, werr := f.WriteString("x")
	if err := errors.Join(werr, f.Chmod(0o644), f.Close()); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "#1"), "x")
	if got := w.until("written #1"); got != "created #1, written #1" {
		t.Errorf("got %q", got)
	}
}

// TestRecursive follows folders that come, move and go.
func TestRecursive(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	at := func(name string) string { return filepath.Join(u.Home, name) }
	write(t, at("d/a/b/x"), "x")
	write(t, at("out/deep/y"), "y")
	w := watch(t, m, u, WatchOptions{Path: "d", Recursive: true})
	write(t, at("d/a/b/x"), "z")
	w.until("written a/b/x")
	if err := os.Rename(at("d/a"), at("d/c")); err != nil {
		t.Fatal(err)
	}
	w.until("created c")
	write(t, at("d/c/b/new"), "z")
	w.until("written c/b/new") // under the new name
	if err := os.Rename(at("out"), at("d/in")); err != nil {
		t.Fatal(err)
	}
	if got := w.until("written in/deep/y"); got != "created in, created in/deep, created in/deep/y, written in/deep/y" {
		t.Errorf("moved in: %q", got)
	}
	if err := os.Rename(at("d/in"), at("away")); err != nil {
		t.Fatal(err)
	}
	w.until("renamed in")
	time.Sleep(5 * moveTime)
	write(t, at("away/deep/unseen"), "z")
	write(t, at("d/end"), "")
	if got := w.until("created end"); strings.Contains(got, "unseen") {
		t.Errorf("what was moved away: %q", got)
	}
	if err := os.RemoveAll(at("d/c")); err != nil {
		t.Fatal(err)
	}
	if got := w.until("removed c"); !strings.Contains(got, "removed c/b/x") || !strings.Contains(got, "removed c/b, ") {
		t.Errorf("removed: %q", got)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.folders != 1 {
		t.Errorf("%d folders are still watched", m.folders)
	}
}

// TestNewFoldersLoseNothing makes deep folders at once, many times: each file in them comes up exactly once.
func TestNewFoldersLoseNothing(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	w := watch(t, m, u, WatchOptions{Path: "", Recursive: true})
	const rounds = 50
	go func() {
		for i := range rounds {
			dir := filepath.Join(u.Home, fmt.Sprint(i), "a", "b")
			_ = os.MkdirAll(dir, 0o755)
			for j := range 5 {
				_ = os.WriteFile(filepath.Join(dir, fmt.Sprint(j)), []byte("x"), 0o644)
			}
		}
		_ = os.WriteFile(filepath.Join(u.Home, "end"), nil, 0o644)
	}()
	all := w.until("created end")
	seen := map[string]int{}
	for one := range strings.SplitSeq(all, ", ") {
		seen[one]++
	}
	for i := range rounds {
		for j := range 5 {
			name := fmt.Sprintf("%d/a/b/%d", i, j)
			if seen["created "+name] != 1 || seen["written "+name] == 0 {
				t.Errorf("%s was created %d times and written %d", name, seen["created "+name], seen["written "+name])
			}
		}
	}
}

// TestEntriesOfEvents come with what is still there.
func TestEntriesOfEvents(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	w := watch(t, m, u, WatchOptions{Entries: true})
	write(t, filepath.Join(u.Home, "f"), "text")
	w.until("written f")
	if e := w.last[0]; e.Entry == nil || e.Entry.Path != filepath.Join(u.Home, "f") || e.Entry.Type != File {
		t.Errorf("got %+v", e)
	}
	if err := os.Remove(filepath.Join(u.Home, "f")); err != nil {
		t.Fatal(err)
	}
	w.until("removed f")
	if e := w.last[len(w.last)-1]; e.Entry != nil {
		t.Errorf("got %+v", e)
	}
}

// TestEnds: a watch says why it is over.
func TestEnds(t *testing.T) {
	u := self(t)
	m := newManager(t, u, func(l *Limits) { l.Events = 100 })
	at := func(name string) string { return filepath.Join(u.Home, name) }
	for _, name := range []string{"removed", "moved", "flooded", "closing"} {
		mkdir(t, at(name))
	}
	removed, moved := watch(t, m, u, WatchOptions{Path: "removed"}), watch(t, m, u, WatchOptions{Path: "moved"})
	flooded, closing := watch(t, m, u, WatchOptions{Path: "flooded"}), watch(t, m, u, WatchOptions{Path: "closing"})
	if err := os.Remove(at("removed")); err != nil {
		t.Fatal(err)
	}
	removed.ends(errs.ErrNotFound)
	if err := os.Rename(at("moved"), at("elsewhere")); err != nil {
		t.Fatal(err)
	}
	moved.ends(errs.ErrNotFound)
	for i := range 101 { // nobody takes them meanwhile
		write(t, at(fmt.Sprint("flooded/", i)), "")
	}
	<-flooded.done
	flooded.ends(errs.ErrResourceExhausted)
	m.Close()
	closing.ends(errs.ErrUnavailable)
	if _, err := m.Watch(t.Context(), u, WatchOptions{}); err == nil {
		t.Error("a watch after the end")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.folders != 0 || len(m.watches) != 0 {
		t.Errorf("%d folders and %d watches are left", m.folders, len(m.watches))
	}
}
