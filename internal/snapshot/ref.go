package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/lazyregexp"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
)

// Ref names a reference to a build: "sandbox" and a sandbox's id for one that is paused, "snapshot" and a name, "template" and
// a name for its warm state.
type Ref struct{ Kind, Name string }

// String is the reference as people write it.
func (r Ref) String() string { return r.Kind + "/" + r.Name }

var (
	kindPattern = lazyregexp.New(`^[a-z]{1,32}$`)
	namePattern = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

func (r Ref) check() error {
	if !kindPattern().MatchString(r.Kind) || !namePattern().MatchString(r.Name) {
		return fmt.Errorf("reference %.40q/%.140q: want a kind of a-z and a name of at most 128 of a-z, A-Z, 0-9, dot, dash and underscore: %w",
			r.Kind, r.Name, errs.ErrInvalid)
	}
	return nil
}

func (s *Store) refPath(r Ref) string { return filepath.Join(s.root, refsName, r.Kind, r.Name) }

// GetRef returns the build that a reference points to. It fails with errs.ErrNotFound and errs.ErrCorrupt.
func (s *Store) GetRef(r Ref) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	f, err := os.Open(s.refPath(r))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reference %s: %w", r, errs.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("reference %s: %w", r, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return "", fmt.Errorf("reference %s: %w", r, err)
	}
	build, ok := strings.CutSuffix(string(text), "\n")
	if !ok || blockmap.CheckBuildID(build) != nil {
		return "", fmt.Errorf("reference %s says %q: %w", r, text, errs.ErrCorrupt)
	}
	return build, nil
}

// ListRefs returns every reference and the build that it points to. It fails with errs.ErrCorrupt when one can't be read.
func (s *Store) ListRefs() (map[Ref]string, error) {
	refs := map[Ref]string{}
	kinds, err := os.ReadDir(filepath.Join(s.root, refsName))
	if err != nil {
		return nil, fmt.Errorf("references: %w", err)
	}
	for _, kind := range kinds {
		names, err := os.ReadDir(filepath.Join(s.root, refsName, kind.Name()))
		if err != nil {
			return nil, fmt.Errorf("references: %w", err)
		}
		for _, name := range names {
			r := Ref{kind.Name(), name.Name()}
			if strings.HasPrefix(r.Name, newPrefix) {
				continue
			}
			build, err := s.GetRef(r)
			if errors.Is(err, errs.ErrNotFound) { // it was deleted since
				continue
			}
			if err != nil {
				return nil, err
			}
			refs[r] = build
		}
	}
	return refs, nil
}

// SetRef points a reference to a build, in one step: whatever fails, it points to what it did before. It fails with
// errs.ErrNotFound when there is no such build and errs.ErrFailedPrecondition when one that it needs is gone.
func (s *Store) SetRef(ctx context.Context, r Ref, build string) error {
	return s.changeRef(ctx, r, build, func() error { return nil })
}

// SwapRef is SetRef if the reference points to old, and else fails with errs.ErrFailedPrecondition.
func (s *Store) SwapRef(ctx context.Context, r Ref, old, build string) error {
	return s.changeRef(ctx, r, build, func() error {
		got, err := s.GetRef(r)
		if err == nil && got != old {
			err = fmt.Errorf("reference %s points to %s, not to %s: %w", r, got, old, errs.ErrFailedPrecondition)
		}
		return err
	})
}

func (s *Store) changeRef(ctx context.Context, r Ref, build string, allowed func() error) error {
	if err := errors.Join(r.check(), blockmap.CheckBuildID(build)); err != nil {
		return err
	}
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := allowed(); err != nil {
		return err
	}
	if err := s.whole(build); err != nil {
		return fmt.Errorf("reference %s: %w", r, err)
	}
	return s.writeRefs(ctx, []Ref{r}, build)
}

// whole tells whether a build and all that it needs are there. Preconditions: the store's lock is held.
func (s *Store) whole(build string) error {
	needs, err := s.needsOf(build)
	if err != nil {
		return err
	}
	for _, n := range needs {
		if there, err := s.exists(n); err != nil {
			return err
		} else if !there {
			return fmt.Errorf("build %s needs %s, which is gone: %w", build, n, errs.ErrFailedPrecondition)
		}
	}
	return nil
}

// writeRefs points references to a build: all are written beside their places before the first is moved there.
// Preconditions: the store's lock is held.
func (s *Store) writeRefs(ctx context.Context, refs []Ref, build string) error {
	for _, r := range refs {
		if err := s.writeBeside(r, build); err != nil {
			return fmt.Errorf("reference %s: %w", r, err)
		}
	}
	if err := failpoint.Here(ctx, pointRef); err != nil {
		return err
	}
	for _, r := range refs {
		if err := os.Rename(s.besidePath(r), s.refPath(r)); err != nil {
			return fmt.Errorf("reference %s: %w", r, err)
		}
		if err := syncPath(filepath.Dir(s.refPath(r))); err != nil {
			return fmt.Errorf("reference %s is set, and may not outlast a crash of the host: %w", r, err)
		}
	}
	return nil
}

func (s *Store) besidePath(r Ref) string {
	return filepath.Join(s.root, refsName, r.Kind, newPrefix+r.Name)
}

func (s *Store) writeBeside(r Ref, build string) error {
	if err := s.makeKind(filepath.Dir(s.besidePath(r))); err != nil {
		return err
	}
	if err := removeIfThere(s.besidePath(r)); err != nil {
		return err
	}
	return writeSynced(s.besidePath(r), []byte(build+"\n"), 0o600)
}

// makeKind makes the folder of a kind of references, durably: a reference in a folder that a crash takes is lost too.
func (s *Store) makeKind(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncPath(filepath.Dir(dir))
}

// DeleteRef removes a reference. One that is not there is no error. The build stays until the next GC.
func (s *Store) DeleteRef(ctx context.Context, r Ref) error {
	if err := r.check(); err != nil {
		return err
	}
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := removeIfThere(s.refPath(r)); err != nil {
		return fmt.Errorf("reference %s: %w", r, err)
	}
	if err := syncPath(filepath.Join(s.root, refsName, r.Kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return failpoint.Here(ctx, pointRefGone)
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
