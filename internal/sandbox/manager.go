package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/snapshot"
)

// Manager makes sandboxes on this host and takes them apart. Several managers, in several processes, may work on one state
// folder at once.
type Manager struct {
	cfg    Config
	builds *snapshot.Store

	changed func(id string, c Change)           // see Watch
	wrote   func(took time.Duration, err error) // see WatchWrites
}

// NewManager checks the configuration's folder and returns a manager.
func NewManager(cfg Config) (*Manager, error) {
	if err := os.MkdirAll(filepath.Join(cfg.StateDir, "sandboxes"), 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if err := enroll(cfg.Neighbours, cfg.StateDir); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg}
	var err error
	m.builds, err = snapshot.New(m.buildsDir())
	return m, err
}

// buildsDir is the folder of builds.
func (m *Manager) buildsDir() string { return filepath.Join(m.cfg.StateDir, "builds") }

// Slots says how many of this host's network slots sandboxes have, and how many there are.
func (m *Manager) Slots() (used, most int) {
	records, err := m.List()
	if err != nil {
		return 0, m.cfg.Slots
	}
	for _, r := range records {
		if r.Slot != nil {
			used++
		}
	}
	return used, m.cfg.Slots
}

func (m *Manager) uid(slot int) int { return m.cfg.UIDBase + slot }

func (m *Manager) pagerUID(slot int) int { return m.cfg.UIDBase + m.cfg.Slots + slot }

func (m *Manager) path(id string) string { return filepath.Join(m.cfg.StateDir, "sandboxes", id) }

// exclusively runs fn while no other process makes a folder or looks which folders have no owner.
func (m *Manager) exclusively(fn func() error) error {
	f, err := os.OpenFile(filepath.Join(m.cfg.StateDir, "sandboxes.lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return fn()
}

// newFolder makes the folder of a new sandbox, held and with its record written.
func (m *Manager) newFolder(r *Record) (f *folder, err error) {
	err = m.exclusively(func() error {
		path := m.path(r.ID)
		if err := os.Mkdir(path, 0o700); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("sandbox %s: %w", r.ID, errs.ErrAlreadyExists)
			}
			return err
		}
		if err := failpoint.Here(context.Background(), pointFolder); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		f, err = hold(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.tell, f.wrote = m.changed, m.wrote
	if err := f.write(r); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

// takeApart removes all that a sandbox has on the host: machine, pager, disk, network, its reference to a build, then the folder,
// which stays until all others are gone, so that a later sweep knows whose they are.
func (m *Manager) takeApart(ctx context.Context, id string, f *folder, r *Record, reason string) error {
	if r != nil {
		r.change(Stopping, reason)
		// A disk that is full keeps nobody from making room.
		if err := f.write(r); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(full(err), errs.ErrResourceExhausted) {
			return err
		}
	}
	if err := failpoint.Here(ctx, pointStopping); err != nil {
		return err
	}
	if err := m.dismantle(ctx, id, m.path(id)); err != nil {
		return err
	}
	if err := m.builds.DeleteRef(ctx, snapshot.Ref{Kind: refSandbox, Name: id}); err != nil {
		return err
	}
	if err := failpoint.Here(ctx, pointRefGone); err != nil {
		return err
	}
	if f == nil {
		return nil
	}
	if err := m.exclusively(f.remove); err != nil {
		return err
	}
	if f.tell != nil {
		f.tell(id, Change{State: Stopped, Time: time.Now().UTC(), Reason: reason})
	}
	return nil
}

// hold takes a sandbox's folder, while no other process makes or removes one.
func (m *Manager) hold(id string) (f *folder, err error) {
	err = m.exclusively(func() (err error) {
		f, err = hold(m.path(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	f.tell, f.wrote = m.changed, m.wrote
	return f, nil
}

// Destroy ends a sandbox that no process holds, such as a kept or a paused one; that one is not woken. One whose record can't be read goes
// as well: all it has is found by its id. ErrNotFound when there is none, ErrUnavailable when a living process holds it.
func (m *Manager) Destroy(ctx context.Context, sandboxID, reason string) error {
	if err := checkID(sandboxID); err != nil {
		return err
	}
	f, err := m.hold(sandboxID)
	if err != nil {
		return err
	}
	r, err := f.read()
	if err != nil && !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrCorrupt) {
		f.release()
		return err
	}
	if err := m.takeApart(ctx, sandboxID, f, r, reason); err != nil {
		f.release()
		return err
	}
	_ = m.collect(ctx) // the sandbox is gone all the same; Tidy tries again and tells, be it that another one's build is damaged
	return nil
}

func checkID(sandboxID string) error {
	_, err := id.Parse(sandboxID)
	return err
}

// undoTime bounds what is undone after its caller has left.
const undoTime = 2 * time.Minute

// collect removes builds that nothing needs any more, and their working sets.
func (m *Manager) collect(ctx context.Context) error {
	removed, err := m.builds.GC(ctx)
	for _, build := range removed {
		err = errors.Join(err, removeIfThere(m.workingSet(build)))
	}
	return err
}
