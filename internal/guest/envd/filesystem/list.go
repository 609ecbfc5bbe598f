package filesystem

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

const (
	// entryBytes is what an entry counts for beside its texts.
	entryBytes = 64
	// namesAtOnce is how many names are read from a folder before the limits are looked at.
	namesAtOnce = 1024
)

// List tells of what is in a folder, depth levels of it (0 means 1), each folder before what is in it, by name. The path's last link is
// followed, others are not. What disappears meanwhile is left out, and so is what lies in a folder that the user may not read, but
// for the folder at the path itself. ErrInvalid for what is no folder, ErrResourceExhausted when there is more than the limits allow.
func (m *Manager) List(ctx context.Context, u user.User, path string, depth uint32) (list []Entry, err error) {
	levels := max(1, int(min(int64(depth), int64(m.limits.Depth))))
	err = m.do(ctx, u, path, func(path string) error {
		w := &walk{ctx: ctx, owners: m.owners(), limits: m.limits, path: path, capped: int64(depth) > int64(levels)}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err == unix.ENOTDIR {
			return invalid("path is not a directory: %s", path)
		}
		if err != nil {
			return failed("list", path, err)
		}
		err = w.folder(fd, path, levels)
		list = w.list
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// walk is a list that is being made.
type walk struct {
	ctx    context.Context
	owners *owners
	limits Limits
	path   string // that of the request
	capped bool   // more levels are wanted than may be
	list   []Entry
	bytes  int
}

// folder adds what is in an open folder, and closes it.
func (w *walk) folder(fd int, path string, depth int) error {
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := w.names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.one(fd, filepath.Join(path, name), name, depth); err != nil {
			return err
		}
	}
	return nil
}

// names reads a folder, as far as the limits allow.
func (w *walk) names(dir *os.File) ([]string, error) {
	var names []string
	for {
		some, err := dir.Readdirnames(namesAtOnce)
		names = append(names, some...)
		switch {
		case len(w.list)+len(names) > w.limits.Entries:
			return nil, w.tooMany()
		case errors.Is(err, io.EOF):
			slices.Sort(names)
			return names, nil
		case err != nil:
			return nil, failed("list", dir.Name(), err)
		case w.ctx.Err() != nil:
			return nil, context.Cause(w.ctx)
		}
	}
}

// one adds an entry, and what is in it.
func (w *walk) one(parent int, path, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return w.missed(path, err)
	}
	e := w.owners.entry(path, path, &st)
	w.bytes += entryBytes + len(e.Name) + len(e.Path) + len(e.Owner) + len(e.Group)
	if e.Target != nil {
		w.bytes += len(*e.Target)
	}
	for key, value := range e.Metadata {
		w.bytes += len(key) + len(value)
	}
	if len(w.list) == w.limits.Entries || w.bytes > w.limits.Bytes {
		return w.tooMany()
	}
	w.list = append(w.list, e)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	case depth == 1 && w.capped:
		return w.tooMany()
	case depth == 1:
		return nil
	}
	// Opened from the folder above, and no link: whatever is renamed or swapped meanwhile, the walk stays below where it began.
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return w.missed(path, err)
	}
	return w.folder(fd, path, depth-1)
}

// missed decides what an entry that can't be looked at means.
func (w *walk) missed(path string, err error) error {
	switch err {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES, unix.EPERM:
		return nil
	}
	return failed("list", path, err)
}

func (w *walk) tooMany() error {
	return fault.New(errs.ErrResourceExhausted,
		"there is too much in '%s' for one list: over %d entries, %d bytes of names, or %d levels; list its folders one by one",
		w.path, w.limits.Entries, w.limits.Bytes, w.limits.Depth)
}
