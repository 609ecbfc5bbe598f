package filesystem

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// TestWatchIsRefused with the reason.
func TestWatchIsRefused(t *testing.T) {
	u := self(t)
	write(t, filepath.Join(u.Home, "file"), "")
	mkdir(t, filepath.Join(u.Home, "a/b/c"))
	few := newManager(t, u, func(l *Limits) { l.Folders = 3 })
	none := newManager(t, u, func(l *Limits) { l.Watchers = 0 })
	for name, c := range map[string]struct {
		m         *Manager
		path      string
		recursive bool
		kind      error
	}{
		"nothing there": {few, "nope", false, errs.ErrNotFound}, "a file": {few, "file", false, errs.ErrInvalid},
		"a path that can't be": {few, "~x", false, errs.ErrInvalid}, "too many folders": {few, "", true, errs.ErrResourceExhausted},
		"too many watchers": {none, "", false, errs.ErrResourceExhausted},
	} {
		_, err := c.m.Watch(t.Context(), u, WatchOptions{Path: c.path, Recursive: c.recursive})
		wants(t, name, err, c.kind)
	}
	w := watch(t, few, u, WatchOptions{Recursive: true, Path: "a"})
	mkdir(t, filepath.Join(u.Home, "a/one/too/many"))
	w.ends(errs.ErrResourceExhausted)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := few.Watch(ctx, u, WatchOptions{Path: "a/b", Recursive: true})
	wants(t, "nobody waits", err, context.Canceled)
}

// TestWatchers are polled.
func TestWatchers(t *testing.T) {
	u := self(t)
	m := newManager(t, u, func(l *Limits) { l.Watchers, l.Events = 2, 10 })
	mkdir(t, filepath.Join(u.Home, "d"))
	id, err := m.CreateWatcher(t.Context(), u, WatchOptions{Path: "d"})
	if err != nil {
		t.Fatal(err)
	}
	if events, err := m.WatcherEvents(id); err != nil || len(events) != 0 {
		t.Errorf("at first: %v, %v", events, err)
	}
	write(t, filepath.Join(u.Home, "d/f"), "x")
	var names []string
	for end := time.Now().Add(patience); len(names) < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		events, err := m.WatcherEvents(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			names = append(names, e.Type.String()+" "+e.Name)
		}
	}
	if got := strings.Join(names, ", "); got != "created f, written f" {
		t.Errorf("got %q", got)
	}
	wants(t, "remove", m.RemoveWatcher(id), nil)
	wants(t, "remove again", m.RemoveWatcher(id), errs.ErrNotFound)
	_, err = m.WatcherEvents(id)
	wants(t, "events of none", err, errs.ErrNotFound)
	// Those that ended and that nobody asks for don't pile up.
	for i := range 20 {
		dir := fmt.Sprint("gone", i)
		mkdir(t, filepath.Join(u.Home, dir))
		if id, err = m.CreateWatcher(t.Context(), u, WatchOptions{Path: dir}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(u.Home, dir)); err != nil {
			t.Fatal(err)
		}
		<-m.watchers[id].done
	}
	if n := len(m.watchers); n > 4 {
		t.Errorf("%d watchers are kept", n)
	}
	if events, err := m.WatcherEvents(id); err != nil || len(events) == 0 {
		t.Errorf("the removal: %v, %v", events, err)
	}
	_, err = m.WatcherEvents(id)
	wants(t, "after the end", err, errs.ErrNotFound)
}

// TestWatchesLeaveNothingOpen counts this process's files.
func TestWatchesLeaveNothingOpen(t *testing.T) {
	u := self(t)
	m := newManager(t, u, nil)
	mkdir(t, filepath.Join(u.Home, "a/b/c"))
	open := func() int { return len(strings.Fields(entries(t, "/proc/self/fd"))) }
	before := open()
	for range 20 {
		w, err := m.Watch(t.Context(), u, WatchOptions{Recursive: true})
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if _, err := m.Watch(t.Context(), u, WatchOptions{Path: "nope"}); err == nil {
			t.Error("a watch on nothing")
		}
		_, _ = m.List(t.Context(), u, "", 9)
		_ = Store(filepath.Join(u.Home, "f"), strings.NewReader("x"), Options{})
		_ = Store(filepath.Join(u.Home, "a"), strings.NewReader("x"), Options{})
	}
	if after := open(); after > before {
		t.Errorf("%d files are open, before %d", after, before)
	}
}

// TestNetwork tells file systems apart.
func TestNetwork(t *testing.T) {
	for _, path := range []string{"/proc", u(t)} {
		if remote, err := network(path); remote || err != nil {
			t.Errorf("%s: %v, %v", path, remote, err)
		}
	}
	if _, err := network("/nope"); err != unix.ENOENT {
		t.Error(err)
	}
}

func u(t *testing.T) string { return self(t).Home }
