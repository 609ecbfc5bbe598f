package filesystem

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem/actas"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// EventType is what happened to an entry.
type EventType int

// The types. An entry that gets another name is Renamed under the old one and Created under the new one.
const (
	Created EventType = iota + 1
	Written
	Removed
	Renamed
	Chmodded
)

// Event is a change in a folder that is watched.
type Event struct {
	// Name is relative to the folder; "." is the folder itself.
	Name string
	Type EventType
	// Entry is what is known of it, if that was asked for and it is still there.
	Entry *Entry
}

// WatchOptions say what to watch.
type WatchOptions struct {
	Path string
	// Recursive watches all folders below too, also those that are made or moved there later: what they have in them by then is told of
	// as Created.
	Recursive bool
	// Entries adds what is known of an entry to its events.
	Entries bool
	// Network allows a folder on a network file system, where changes made elsewhere are not seen.
	Network bool
}

// Watch is a folder that is watched. What happens is kept until Take takes it.
type Watch struct {
	m     *Manager
	ready chan struct{} // has a value when there is something to take
	done  chan struct{} // closed when nothing is watched any more

	mu     sync.Mutex
	f      *os.File // inotify; nil before it is there
	closed bool     // nobody wants more
	events []Event
	bytes  int
	err    error // why it ended
}

// Watch watches a folder: when it returns, everything that happens from now on will be told. The caller calls Close.
//
// A watch ends by itself, with ErrNotFound when the folder is removed or moved, and with ErrResourceExhausted when events were lost or
// there are too many folders. ErrInvalid for what is no folder; ErrResourceExhausted when too many watch.
func (m *Manager) Watch(ctx context.Context, u user.User, o WatchOptions) (*Watch, error) {
	path, err := Resolve(u, o.Path)
	if err != nil {
		return nil, err
	}
	w := &Watch{m: m, ready: make(chan struct{}, 1), done: make(chan struct{})}
	if err := m.enter(w); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	go func() {
		defer close(w.done)
		t := &tree{w: w, root: path, options: o, dirs: map[int32]string{}, known: map[string]struct{}{}}
		err := actas.Run(u, func() error { return t.run(ctx, started) })
		m.leave(w, len(t.dirs))
		w.end(err)
		started <- err // there is room, unless somebody knows already
	}()
	if err := <-started; err != nil {
		<-w.done
		return nil, err
	}
	return w, nil
}

// enter counts a watch.
func (m *Manager) enter(w *Watch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return errEnding
	case len(m.watches) >= m.limits.Watchers:
		return fault.New(errs.ErrResourceExhausted, "%d folders are watched already: stop watching one", len(m.watches))
	}
	m.watches[w] = struct{}{}
	return nil
}

var errEnding = fault.New(errs.ErrUnavailable, "envd is ending")

// leave forgets a watch and the folders that it had.
func (m *Manager) leave(w *Watch, folders int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.watches, w)
	m.folders -= folders
}

// folder counts one more folder that is watched, or one less, and says whether there was room.
func (m *Manager) folder(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 && m.folders+n > m.limits.Folders {
		return false
	}
	m.folders += n
	return true
}

// Close ends all watches.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	var list []*Watch
	for w := range m.watches {
		list = append(list, w)
	}
	m.mu.Unlock()
	for _, w := range list {
		w.end(errEnding)
		w.Close()
	}
}

// Ready has a value when there is something to take.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Take returns the events since the last call. When the watch has ended and all its events are taken, it says why.
func (w *Watch) Take() ([]Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events, w.bytes = nil, 0
	if len(events) == 0 {
		return nil, w.err
	}
	if w.err != nil {
		w.signal()
	}
	return events, nil
}

// Close ends the watch.
func (w *Watch) Close() {
	w.mu.Lock()
	w.closed = true
	if w.f != nil {
		_ = w.f.SetReadDeadline(time.Unix(1, 0)) // fails when it is closed already
	}
	w.mu.Unlock()
	<-w.done
}

// signal tells who waits. Preconditions: mu is held.
func (w *Watch) signal() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// end notes why the watch is over. The first reason counts.
func (w *Watch) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && err != nil {
		w.err = err
		w.signal()
	}
}

// open begins to keep the kernel's events.
func (w *Watch) open() (fd int, f *os.File, err error) {
	fd, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return 0, nil, fault.New(errs.ErrResourceExhausted, "watch files: %v", err)
	}
	f = os.NewFile(uintptr(fd), "inotify")
	w.mu.Lock()
	w.f = f
	w.mu.Unlock()
	return fd, f, nil
}

// patience sets until when to wait for the next event; zero is for ever. It is false when nobody wants more.
func (w *Watch) patience(until time.Time) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false, nil
	}
	return true, w.f.SetReadDeadline(until)
}

// push keeps an event. It fails when there are too many.
func (w *Watch) push(e Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.events); n > 0 && e.Type == Written && w.events[n-1].Type == Written && w.events[n-1].Name == e.Name {
		w.events[n-1] = e // a file that is written in many pieces is one
		return nil
	}
	w.bytes += len(e.Name)
	if e.Entry != nil {
		w.bytes += entryBytes + len(e.Entry.Path) + len(e.Entry.Name)
	}
	if len(w.events) >= w.m.limits.Events || w.bytes > w.m.limits.EventBytes {
		return errLost
	}
	w.events = append(w.events, e)
	w.signal()
	return nil
}

var errLost = fault.New(errs.ErrResourceExhausted, "changes were lost because there were too many at once: watch again and list the folder")

// network says whether a path is on a network file system.
func network(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, err
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC:
		return true, nil
	}
	return false, nil
}

// String is for logs and tests.
func (o EventType) String() string {
	if o < Created || o > Chmodded {
		return fmt.Sprintf("event %d", int(o))
	}
	return [...]string{"created", "written", "removed", "renamed", "chmodded"}[o-1]
}
