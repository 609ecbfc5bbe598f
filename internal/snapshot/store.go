// Package snapshot keeps builds: generations of frozen state of a machine, each in a folder of its own that never changes.
//
//	g, err := store.Begin(ctx, blockmap.NewBuildID(), parent) // a private folder, held by this process
//	defer g.Abort(ctx)
//	… Firecracker's files are moved to g.Path(manifest.VMState), g.Path(manifest.Memory); the disk to g.Path(manifest.Disk) …
//	b, report, err := g.Commit(ctx, info, snapshot.Ref{Kind: "sandbox", Name: id}) // whole and referenced, or not at all
//	…
//	b, err = store.Open(ctx, build) // every byte is what was written
//	pages := b.Pages()              // and the memory can be read
//	err = store.DeleteRef(ctx, ref) // nobody needs it any more
//	removed, err := store.GC(ctx)   // and it is gone
//
// A build exists for as long as a reference points to it, or to a build whose block map uses its pages. Whoever uses a
// build, and be it a running machine that still faults pages in, must have a reference of its own: a file that is open
// already stays readable, but the next one may be gone.
//
// Several processes may use one store at the same time. Every step that changes which builds and references there are
// happens under one lock, so a build is never collected between its commit and its first reference.
//
// The formats are described in docs/snapshot-format.md.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// What the root folder has beside builds.
const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
	refsName   = "refs"
	lockName   = "lock"
)

// Store is a folder of builds and of references to them. It is safe for use by several goroutines.
type Store struct {
	root string

	mu sync.Mutex
	// needs of builds that were read before: a build never changes, and its manifest is long.
	needs map[string][]string
}

// New returns the store in the folder root, and makes the folder when it is not there.
func New(root string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(root, refsName), 0o700); err != nil {
		return nil, fmt.Errorf("store of builds: %w", err)
	}
	return &Store{root: root, needs: map[string][]string{}}, nil
}

func (s *Store) dir(build string) string { return filepath.Join(s.root, build) }

// exists tells whether there is a build of this id, whole or not.
func (s *Store) exists(build string) (bool, error) {
	switch _, err := os.Lstat(s.dir(build)); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// List returns the ids of the builds, sorted.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("store of builds: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if blockmap.CheckBuildID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// MachineOf is what a build's machine is made of, by its manifest alone. It fails with errs.ErrNotFound and errs.ErrCorrupt.
func (s *Store) MachineOf(build string) (manifest.Machine, error) {
	if there, err := s.exists(build); err != nil {
		return manifest.Machine{}, err
	} else if !there {
		return manifest.Machine{}, fmt.Errorf("build %s: %w", build, errs.ErrNotFound)
	}
	m, _, err := readManifest(s.dir(build))
	if err != nil {
		return manifest.Machine{}, err
	}
	return m.Machine, nil
}

// needsOf returns the ids of the builds that one needs. It fails with errs.ErrNotFound and errs.ErrCorrupt.
func (s *Store) needsOf(build string) ([]string, error) {
	if there, err := s.exists(build); err != nil {
		return nil, err
	} else if !there {
		return nil, fmt.Errorf("build %s: %w", build, errs.ErrNotFound)
	}
	s.mu.Lock()
	known, ok := s.needs[build]
	s.mu.Unlock()
	if ok {
		return known, nil
	}
	m, _, err := readManifest(s.dir(build))
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(m.Needs))
	for i, n := range m.Needs {
		ids[i] = n.Build
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.needs[build] = ids
	return ids, nil
}

// forget drops what is remembered of a build that is gone.
func (s *Store) forget(build string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.needs, build)
}

// lock takes the store's lock, for all processes, and returns how to give it up. It waits until ctx ends.
func (s *Store) lock(ctx context.Context) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.root, lockName), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the store of builds: %w", err)
	}
	if held, err := tryFlock(f); err != nil || held {
		return closeOrFail(f, err)
	}
	done := make(chan error, 1)
	go func() { done <- flock(f, unix.LOCK_EX) }()
	select {
	case err := <-done:
		return closeOrFail(f, err)
	case <-ctx.Done():
		go func() { // the wait can't be ended, but what it gets is given back at once
			<-done
			f.Close()
		}()
		return nil, fmt.Errorf("wait for the lock of the store of builds: %w", context.Cause(ctx))
	}
}

func closeOrFail(f *os.File, err error) (func(), error) {
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// tryFlock takes a lock that nobody holds.
func tryFlock(f *os.File) (held bool, err error) {
	err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		return nil
	}
}
