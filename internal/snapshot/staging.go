package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
)

// pinName is a file in a staging folder: the build that the new one is made from, which must stay until then.
const pinName = "pin"

// Staging is a build that is being made, in a folder that only this process works on. It is not safe for use by several
// goroutines.
type Staging struct {
	s      *Store
	id     string
	parent string
	held   *os.File // the folder, locked; nil once the staging has ended
}

// Begin makes a folder for a new build. parent is the build that the frozen machine was started from, empty for one that was
// booted; it is kept until the staging ends. The caller ends it with Commit or Abort; a process that dies in between leaves a
// folder that GC removes. It fails with errs.ErrAlreadyExists for an id that is in use and errs.ErrNotFound without the parent.
func (s *Store) Begin(ctx context.Context, id, parent string) (*Staging, error) {
	g, err := s.begin(ctx, id, parent)
	if err != nil {
		return nil, err
	}
	g.parent = parent
	return g, nil
}

// begin makes the folder and pins a build.
func (s *Store) begin(ctx context.Context, id, pin string) (*Staging, error) {
	if err := blockmap.CheckBuildID(id); err != nil {
		return nil, err
	}
	release, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if there, err := s.exists(id); err != nil {
		return nil, err
	} else if there {
		return nil, fmt.Errorf("build %s: %w", id, errs.ErrAlreadyExists)
	}
	if pin != "" {
		if err := s.whole(pin); err != nil {
			return nil, fmt.Errorf("new build %s: %w", id, err)
		}
	}
	g := &Staging{s: s, id: id}
	if err := g.make(pin); err != nil {
		return nil, fmt.Errorf("new build %s: %w", id, err)
	}
	if err := failpoint.Here(ctx, pointStaged); err != nil {
		return nil, errors.Join(err, g.end(os.RemoveAll(g.dir())))
	}
	return g, nil
}

func (g *Staging) dir() string { return filepath.Join(g.s.root, newPrefix+g.id) }

// make makes the folder and locks it. Preconditions: the store's lock is held, so that no GC sees it without an owner.
func (g *Staging) make(pin string) error {
	if err := os.Mkdir(g.dir(), 0o700); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", err, errs.ErrAlreadyExists)
	} else if err != nil {
		return err
	}
	held, err := holdFolder(g.dir())
	if err == nil && held == nil {
		err = fmt.Errorf("somebody holds %s: %w", g.dir(), errs.ErrUnavailable)
	}
	if err == nil && pin != "" {
		err = os.WriteFile(filepath.Join(g.dir(), pinName), []byte(pin), 0o600)
	}
	g.held = held
	if err != nil {
		return errors.Join(err, g.end(os.RemoveAll(g.dir())))
	}
	return nil
}

// holdFolder locks a folder; nil when somebody else does. The lock ends with the process.
func holdFolder(path string) (*os.File, error) {
	d, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if held, err := tryFlock(d); err != nil || !held {
		d.Close()
		return nil, err
	}
	return d, nil
}

// pinned returns the build that the staging folder at path pins, empty for none.
func pinned(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join(path, pinName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// ID is the id of the build.
func (g *Staging) ID() string { return g.id }

// Path is where a file of the build is to be put: manifest.VMState, manifest.Memory, manifest.Disk. The file belongs to the
// staging from then on: nobody else has it open for writing, or under another name.
func (g *Staging) Path(name string) string { return filepath.Join(g.dir(), name) }

// Abort removes what was staged. After Commit it does nothing, so it can be deferred. It works although ctx has ended. It
// needs no lock but the folder's: GC leaves a folder that is held alone.
func (g *Staging) Abort(context.Context) error {
	if g.held == nil {
		return nil
	}
	return g.end(os.RemoveAll(g.dir()))
}

// end gives up the folder.
func (g *Staging) end(err error) error {
	if g.held != nil {
		g.held.Close()
		g.held = nil
	}
	return err
}
