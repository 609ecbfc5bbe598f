package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
)

// GC removes the builds that no reference needs, what dead processes left of builds that were never committed, and the rest
// of removals that were not finished; it returns the ids of the builds.
//
// A reference needs the build that it points to and those that this build's map refers to. It does not need what those in
// turn were made from: a map is flat, so of a build that is only a source of pages nothing but its own pages is read.
//
// When a reference can't be read, or points to a build that is not there or has no good manifest, GC can't know what is
// needed: it removes nothing and fails with errs.ErrCorrupt.
func (s *Store) GC(ctx context.Context) ([]string, error) {
	removed, err := s.setAside(ctx)
	if err != nil {
		return nil, fmt.Errorf("collect builds: %w", err)
	}
	if err := failpoint.Here(ctx, pointGC); err != nil {
		return nil, err
	}
	return removed, s.sweepGone(ctx)
}

// setAside renames what is to go, with the store locked. That takes no time; deleting does, and happens afterwards.
func (s *Store) setAside(ctx context.Context) (removed []string, err error) {
	release, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	dead, pins, err := s.stagings()
	defer func() {
		for _, d := range dead {
			d.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	keep, err := s.needed(pins)
	if err != nil {
		return nil, err
	}
	builds, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, id := range builds {
		if keep[id] {
			continue
		}
		if err := s.moveAside(s.dir(id)); err != nil {
			return removed, err
		}
		s.forget(id)
		removed = append(removed, id)
	}
	for _, d := range dead {
		if err := s.moveAside(d.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) { // aborted between the look and the lock
			return removed, err
		}
	}
	return removed, s.sweepRefs()
}

// moveAside gives a folder the name of one that is being removed.
func (s *Store) moveAside(path string) error {
	gone := filepath.Join(s.root, gonePrefix+strings.TrimPrefix(filepath.Base(path), newPrefix))
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	return os.Rename(path, gone)
}

// stagings returns the staging folders without an owner, locked so that they stay so, and the builds that those with one
// pin. Preconditions: the store's lock is held.
func (s *Store) stagings() (dead []*os.File, pins []string, err error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), newPrefix) {
			continue
		}
		path := filepath.Join(s.root, e.Name())
		d, err := holdFolder(path)
		if errors.Is(err, fs.ErrNotExist) { // its owner has just removed it
			continue
		}
		if err != nil {
			return dead, nil, err
		}
		if d != nil {
			dead = append(dead, d)
			continue
		}
		pin, err := pinned(path)
		if err != nil {
			return dead, nil, err
		}
		if pin != "" {
			pins = append(pins, pin)
		}
	}
	return dead, pins, nil
}

// needed are the builds that references and pins need. Preconditions: the store's lock is held.
func (s *Store) needed(pins []string) (map[string]bool, error) {
	refs, err := s.ListRefs()
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	add := func(who, build string) error {
		needs, err := s.needsOf(build)
		if errors.Is(err, errs.ErrNotFound) || errors.Is(err, errs.ErrCorrupt) {
			return fmt.Errorf("%s needs a build that is not whole, nothing was removed: %w: %w", who, err, errs.ErrCorrupt)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", who, err)
		}
		keep[build] = true
		for _, n := range needs {
			keep[n] = true
		}
		return nil
	}
	for r, build := range refs {
		if err := add("reference "+r.String(), build); err != nil {
			return nil, err
		}
	}
	for _, build := range pins {
		if err := add("a build in the making", build); err != nil {
			return nil, err
		}
	}
	return keep, nil
}

// sweepRefs removes references that were never moved to their place. Preconditions: the store's lock is held.
func (s *Store) sweepRefs() error {
	left, err := filepath.Glob(filepath.Join(s.root, refsName, "*", newPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := removeIfThere(path); err != nil {
			return err
		}
	}
	return nil
}

// sweepGone deletes what was set aside, by this process or by one that died since.
func (s *Store) sweepGone(ctx context.Context) error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), gonePrefix) {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.root, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Delete removes a build that nobody needs. It fails with errs.ErrNotFound, and with errs.ErrFailedPrecondition and the names
// of all references, builds and stagings that need it.
func (s *Store) Delete(ctx context.Context, build string) error {
	if err := blockmap.CheckBuildID(build); err != nil {
		return err
	}
	if err := s.deleteAside(ctx, build); err != nil {
		return fmt.Errorf("delete build %s: %w", build, err)
	}
	return s.sweepGone(ctx)
}

func (s *Store) deleteAside(ctx context.Context, build string) error {
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if there, err := s.exists(build); err != nil {
		return err
	} else if !there {
		return errs.ErrNotFound
	}
	users, err := s.users(build)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("needed by %s: %w", strings.Join(users, ", "), errs.ErrFailedPrecondition)
	}
	s.forget(build)
	return s.moveAside(s.dir(build))
}

// users are the names of all that need a build, sorted. Preconditions: the store's lock is held.
func (s *Store) users(build string) ([]string, error) {
	var users []string
	refs, err := s.ListRefs()
	if err != nil {
		return nil, err
	}
	for r, b := range refs {
		if b == build {
			users = append(users, "reference "+r.String())
		}
	}
	builds, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, id := range builds {
		needs, err := s.needsOf(id)
		if err != nil && id != build { // of a build that can't be read nobody knows what it needs
			return nil, err
		}
		if slices.Contains(needs, build) {
			users = append(users, "build "+id)
		}
	}
	dead, pins, err := s.stagings()
	for _, d := range dead {
		d.Close()
	}
	if slices.Contains(pins, build) {
		users = append(users, "a build in the making")
	}
	slices.Sort(users)
	return users, err
}
