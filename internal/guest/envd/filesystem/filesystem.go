// Package filesystem does what envd is asked to do with the guest's files: it lists, changes, stores and watches them, always as one
// of the guest's users (package actas), so that the kernel decides about each step of each path.
//
// Nothing is held between two requests but watchers. All that a caller can make envd hold is bounded by Limits.
package filesystem

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/filesystem/actas"
	"wrenn.dev/wrenn/internal/guest/envd/user"
)

// Limits bound what the callers can make envd hold. A zero limit allows nothing.
type Limits struct {
	// Operations is how many run at once; more wait.
	Operations int
	// Entries is how many one list may have, Bytes the size of their texts together, and Depth how many levels, each of which takes an
	// open file while it is listed.
	Entries, Bytes, Depth int
	// Watchers is how many may watch at once, and Folders how many folders all of them together.
	Watchers, Folders int
	// Events is how many a watcher keeps that nobody took, and EventBytes the size of their texts.
	Events, EventBytes int
}

// DefaultLimits are those of envd.
func DefaultLimits() Limits {
	return Limits{Operations: 32, Entries: 64 << 10, Bytes: 12 << 20, Depth: 100,
		Watchers: 64, Folders: 16 << 10, Events: 16 << 10, EventBytes: 2 << 20}
}

// Manager works with the files of one guest. Its methods may be called from several goroutines.
//
// Errors are of the kinds of package errs and ErrNoSpace; their texts name the path. ErrNotFound for a path that does not exist,
// ErrPermissionDenied for what the user may not do and ErrFailedPrecondition for a circle of links come from all of them.
type Manager struct {
	users  user.DB
	limits Limits
	slots  chan struct{}

	mu       sync.Mutex
	watches  map[*Watch]struct{}
	watchers map[string]*Watch // those that are polled
	folders  int               // that all watches together hold
	closed   bool
}

// NewManager returns a manager for the users' files.
func NewManager(users user.DB, limits Limits) *Manager {
	return &Manager{users: users, limits: limits, slots: make(chan struct{}, limits.Operations),
		watches: map[*Watch]struct{}{}, watchers: map[string]*Watch{}}
}

// do runs f on a path, as the user, when there is room for it.
func (m *Manager) do(ctx context.Context, u user.User, path string, f func(path string) error) error {
	path, err := Resolve(u, path)
	if err != nil {
		return err
	}
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-m.slots }()
	return actas.Run(u, func() error { return f(path) })
}

// Stat tells of one entry.
func (m *Manager) Stat(ctx context.Context, u user.User, path string) (e Entry, err error) {
	err = m.do(ctx, u, path, func(path string) error {
		e, err = m.owners().stat(path)
		return err
	})
	return e, err
}

func (m *Manager) owners() *owners { return &owners{db: m.users} }

// MakeDir makes a folder and those above it. ErrAlreadyExists when there is one, ErrInvalid when there is something else.
func (m *Manager) MakeDir(ctx context.Context, u user.User, path string) (e Entry, err error) {
	err = m.do(ctx, u, path, func(path string) error {
		var st unix.Stat_t
		switch err := unix.Stat(path, &st); {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
			return fault.New(errs.ErrAlreadyExists, "directory already exists: %s", path)
		case err == nil:
			return invalid("path already exists but it is not a directory: %s", path)
		case err != unix.ENOENT:
			return failed("make directory", path, err)
		}
		if err := makeFolders(path); err != nil {
			return err
		}
		e, err = m.owners().stat(path)
		return err
	})
	return e, err
}

// folderMode is that of a new folder, less the umask.
const folderMode = 0o755

// makeFolders makes a folder and those above it, as far as they are missing.
func makeFolders(path string) error {
	return failed("make directory", path, os.MkdirAll(path, folderMode))
}

// Move gives an entry another name and returns it under that. Missing folders on the way to the destination are made.
func (m *Manager) Move(ctx context.Context, u user.User, source, destination string) (e Entry, err error) {
	destination, err = Resolve(u, destination)
	if err != nil {
		return Entry{}, err
	}
	err = m.do(ctx, u, source, func(source string) error {
		var st unix.Stat_t
		if err := unix.Lstat(source, &st); err != nil {
			return failed("move", source, err)
		}
		if err := makeFolders(filepath.Dir(destination)); err != nil {
			return err
		}
		if err := unix.Rename(source, destination); err != nil {
			return failed("move", source, err)
		}
		e, err = m.owners().stat(destination)
		return err
	})
	return e, err
}

// Remove removes an entry with all that is in it. What does not exist is removed already. When it fails a part may be gone.
func (m *Manager) Remove(ctx context.Context, u user.User, path string) error {
	return m.do(ctx, u, path, func(path string) error {
		if path == "/" {
			return invalid("the root folder can't be removed")
		}
		return failed("remove", path, os.RemoveAll(path))
	})
}
