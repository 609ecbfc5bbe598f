package filesystem

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

const (
	wanted = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK
	// moveTime is how long the second half of a move may stay away: the kernel tells both at once.
	moveTime = 20 * time.Millisecond
	// maxKnown bounds the names that were told of before their own events came.
	maxKnown   = 64 << 10
	readBytes  = 64 << 10
	eventBytes = unix.SizeofInotifyEvent
)

// tree is the folders of one watch, as the kernel's events tell of them. One goroutine has it: that which has the user's rights.
type tree struct {
	w       *Watch
	root    string
	options WatchOptions
	owners  *owners

	fd   int
	dirs map[int32]string // relative paths by what the kernel calls them; "" is the root
	// known are names that were found in a new folder and told of. Between the moment that the folder is watched and that it is read,
	// names may come up twice; once no event is left, all are told.
	known map[string]struct{}
	moved *move
}

// move is the first half of one.
type move struct {
	cookie uint32
	path   string
	dir    bool
}

// run watches until the watch is closed or ends. It tells on started when everything from then on is noticed.
func (t *tree) run(ctx context.Context, started chan<- error) error {
	fd, f, err := t.w.open()
	if err != nil {
		return err
	}
	defer f.Close()
	t.fd = fd
	if err := t.begin(ctx); err != nil {
		return err
	}
	started <- nil
	buf := make([]byte, readBytes)
	for {
		n, err := t.read(f, buf)
		if err != nil || n == 0 {
			return err
		}
		t.owners = t.w.m.owners()
		for rest := buf[:n]; len(rest) >= eventBytes; {
			size := eventBytes + int(binary.NativeEndian.Uint32(rest[12:]))
			if size > len(rest) {
				return errLost
			}
			if err := t.event(rest[:size]); err != nil {
				return err
			}
			rest = rest[size:]
		}
	}
}

// begin watches the folder and, if that is asked for, all below it.
func (t *tree) begin(ctx context.Context) error {
	var st unix.Stat_t
	if err := unix.Stat(t.root, &st); err != nil {
		return failed("watch", t.root, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return invalid("path %s is not a directory", t.root)
	}
	remote, err := network(t.root)
	if err != nil {
		return failed("watch", t.root, err)
	}
	if remote && !t.options.Network {
		return invalid("cannot watch path on network filesystem: %s", t.root)
	}
	wd, err := unix.InotifyAddWatch(t.fd, t.root, wanted)
	if err != nil {
		return t.refused(err, t.root)
	}
	if !t.w.m.folder(1) {
		return t.tooMany()
	}
	t.dirs[int32(wd)] = ""
	if !t.options.Recursive {
		return nil
	}
	return t.look("", func(path string, st *unix.Stat_t) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	})
}

// read waits for events. It returns 0 when the watch is closed.
func (t *tree) read(f *os.File, buf []byte) (int, error) {
	for {
		if left, err := unix.IoctlGetInt(t.fd, unix.TIOCINQ); err == nil && left == 0 {
			clear(t.known)
		}
		var until time.Time
		if t.moved != nil {
			until = time.Now().Add(moveTime)
		}
		if more, err := t.w.patience(until); !more || err != nil {
			return 0, err
		}
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.left()
		case err != nil:
			return 0, failed("watch", t.root, err)
		default:
			return n, nil
		}
	}
}

// event acts on one event of the kernel's.
func (t *tree) event(raw []byte) error {
	wd, mask, cookie := int32(binary.NativeEndian.Uint32(raw)), binary.NativeEndian.Uint32(raw[4:]), binary.NativeEndian.Uint32(raw[8:])
	if mask&unix.IN_Q_OVERFLOW != 0 {
		return errLost
	}
	dir, ok := t.dirs[wd]
	if !ok {
		return nil
	}
	if mask&unix.IN_IGNORED != 0 {
		t.forget(wd)
		return nil
	}
	name := strings.TrimRight(string(raw[eventBytes:]), "\x00")
	if name == "" {
		return t.self(dir, mask)
	}
	return t.named(filepath.Join(dir, name), mask, cookie)
}

// named acts on an event of an entry in a watched folder.
func (t *tree) named(path string, mask, cookie uint32) error {
	isDir, first := mask&unix.IN_ISDIR != 0, t.moved
	if first != nil && (mask&unix.IN_MOVED_TO == 0 || first.cookie != cookie) {
		t.left()
		first = nil
	}
	t.moved = nil
	switch {
	case mask&unix.IN_CREATE != 0:
		return t.appeared(path, isDir)
	case mask&unix.IN_MOVED_TO != 0 && first != nil:
		return t.arrived(first, path)
	case mask&unix.IN_MOVED_TO != 0:
		return t.appeared(path, isDir)
	case mask&unix.IN_MOVED_FROM != 0:
		delete(t.known, path)
		t.moved = &move{cookie: cookie, path: path, dir: isDir}
		return t.tell(path, Renamed)
	case mask&unix.IN_DELETE != 0:
		delete(t.known, path)
		return t.tell(path, Removed)
	case mask&unix.IN_MODIFY != 0:
		return t.tell(path, Written)
	case mask&unix.IN_ATTRIB != 0:
		return t.tell(path, Chmodded)
	}
	return nil
}

// self is about a watched folder itself. Of those below the root, the folder above tells.
func (t *tree) self(dir string, mask uint32) error {
	if dir != "" {
		return nil
	}
	what, how := Removed, "removed"
	switch {
	case mask&(unix.IN_DELETE_SELF|unix.IN_UNMOUNT) != 0:
	case mask&unix.IN_MOVE_SELF != 0:
		what, how = Renamed, "moved"
	case mask&unix.IN_ATTRIB != 0:
		return t.tell("", Chmodded)
	default:
		return nil
	}
	if err := t.tell("", what); err != nil {
		return err
	}
	return fault.New(errs.ErrNotFound, "the watched folder '%s' was %s", t.root, how)
}

// appeared is about a new name, with what may be below it.
func (t *tree) appeared(path string, isDir bool) error {
	if _, told := t.known[path]; told {
		delete(t.known, path)
		return nil
	}
	if err := t.tell(path, Created); err != nil || !isDir || !t.options.Recursive {
		return err
	}
	return t.add(path, t.found)
}

// arrived is the second half of a move within the tree.
func (t *tree) arrived(from *move, path string) error {
	if _, told := t.known[path]; told {
		delete(t.known, path)
		return nil
	}
	temp, over := isTemp(filepath.Base(from.path))
	if !temp || !over {
		if err := t.tell(path, Created); err != nil {
			return err
		}
	}
	if temp {
		return t.tell(path, Written) // a file that was stored: its content came before its name
	}
	if from.dir {
		for wd, dir := range t.dirs {
			if rest, ok := below(dir, from.path); ok {
				t.dirs[wd] = path + rest
			}
		}
	}
	return nil
}

// below cuts a folder off a path that is in it, or is it.
func below(path, dir string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, dir)
	return rest, ok && (rest == "" || rest[0] == '/')
}

// left forgets what was moved away, if no second half came.
func (t *tree) left() {
	if t.moved == nil {
		return
	}
	if t.moved.dir {
		for wd, dir := range t.dirs {
			if _, ok := below(dir, t.moved.path); ok {
				_, _ = unix.InotifyRmWatch(t.fd, uint32(wd)) // fails when it is gone
				t.forget(wd)
			}
		}
	}
	t.moved = nil
}

func (t *tree) forget(wd int32) {
	delete(t.dirs, wd)
	t.w.m.folder(-1)
}

// tell keeps an event for who watches.
func (t *tree) tell(path string, what EventType) error {
	if temp, _ := isTemp(filepath.Base(path)); temp {
		return nil
	}
	if isUnnamed(filepath.Base(path)) && (what == Written || what == Chmodded) {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(t.root, path), &st) == unix.ENOENT {
			return nil // the kernel tells of files without names, too
		}
	}
	e := Event{Name: text(path), Type: what}
	if path == "" {
		e.Name = "."
	}
	if t.options.Entries && what != Removed && what != Renamed {
		if entry, err := t.owners.stat(filepath.Join(t.root, path)); err == nil {
			e.Entry = &entry
		}
	}
	return t.w.push(e)
}
