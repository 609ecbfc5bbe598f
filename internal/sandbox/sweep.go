package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

// Swept is what a sweep did with one sandbox.
type Swept struct {
	ID     string `json:"id"`
	Kept   bool   `json:"kept"`            // left alone: paused, made with Spec.Keep and its machine runs or ended lately, or unreadable
	InUse  bool   `json:"in_use"`          // left alone: a living process holds it
	Reason string `json:"reason"`          // why it was removed or left
	Err    string `json:"error,omitempty"` // why it could not be removed
}

// Removed says that the sandbox is gone now.
func (s Swept) Removed() bool { return !s.Kept && !s.InUse && s.Err == "" }

// Retention is how long the record of a kept sandbox that ended by itself, or was lost, tells why.
const Retention = 24 * time.Hour

// Sweep finds every sandbox of this host that has no living owner and removes exactly what is its. With all, kept ones go
// too, and those whose record can't be read. What a living process works on is never touched. The error joins those of the single
// sandboxes.
func (m *Manager) Sweep(ctx context.Context, all bool) ([]Swept, error) {
	// The drivers are asked before the folders: a sandbox has its folder before it has anything else, so an object seen here
	// whose folder is not there later belongs to nobody.
	ids, err := m.known(ctx)
	if err != nil {
		return nil, err
	}
	var done []Swept
	var failed []error
	for _, sandboxID := range ids {
		s, err := m.sweepOne(ctx, sandboxID, all)
		if err != nil {
			s.Err = err.Error()
			failed = append(failed, fmt.Errorf("%s: %w", sandboxID, err))
		}
		done = append(done, s)
	}
	return done, errors.Join(append(failed, m.Tidy(ctx))...)
}

// sweepRefs removes the references of sandboxes that are not there, and those of forks whose source nobody holds.
func (m *Manager) sweepRefs(ctx context.Context) error {
	refs, err := m.builds.ListRefs()
	if err != nil {
		return err
	}
	var failed []error
	for ref := range refs {
		if ref.Kind != refSandbox && ref.Kind != refFork {
			continue
		}
		f, err := m.hold(ref.Name)
		switch {
		case errors.Is(err, errs.ErrUnavailable):
			continue // somebody works on it
		case err == nil:
			f.release()
			if ref.Kind == refSandbox {
				continue
			}
		case !errors.Is(err, errs.ErrNotFound):
			failed = append(failed, err)
			continue
		}
		failed = append(failed, m.builds.DeleteRef(ctx, ref))
	}
	return errors.Join(failed...)
}

// sweepWorkingSets removes the working sets of builds that are gone, and those that were never whole.
func (m *Manager) sweepWorkingSets(context.Context) error {
	dir := filepath.Dir(m.workingSet("any"))
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	builds, err := m.builds.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(builds, e.Name()) {
			err = errors.Join(err, removeIfThere(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// known lists every id that any driver or the state folder has something of, sorted.
func (m *Manager) known(ctx context.Context) ([]string, error) {
	var ids []string
	for _, list := range []func(context.Context) ([]string, error){m.cfg.VMM.List, m.cfg.Pagers.List, m.cfg.Disk.List, m.cfg.Network.List} {
		some, err := list(ctx)
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	entries, err := os.ReadDir(filepath.Join(m.cfg.StateDir, "sandboxes"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := id.Parse(e.Name()); err == nil {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return m.withoutNeighbours(slices.Compact(ids))
}

// sweepOne removes one sandbox unless somebody owns it.
func (m *Manager) sweepOne(ctx context.Context, sandboxID string, all bool) (Swept, error) {
	s := Swept{ID: sandboxID, Reason: "its objects have no record"}
	f, err := m.hold(sandboxID)
	switch {
	case errors.Is(err, errs.ErrUnavailable):
		s.InUse, s.Reason = true, "a living process works on it"
		return s, nil
	case errors.Is(err, errs.ErrNotFound):
		return s, m.takeApart(ctx, sandboxID, nil, nil, s.Reason)
	case err != nil:
		return s, err
	}
	r, err := f.read()
	switch {
	case errors.Is(err, errs.ErrCorrupt) && !all:
		f.release()
		s.Kept, s.Reason = true, err.Error()
		return s, nil
	case errors.Is(err, errs.ErrCorrupt):
		s.Reason, r = "its record could not be read", nil
	case errors.Is(err, errs.ErrNotFound):
		s.Reason, r = "its owner ended before it wrote a record", nil
	case err != nil:
		f.release()
		return s, err
	case !all:
		reason, err := m.spare(ctx, f, r)
		if reason != "" || err != nil {
			f.release()
			s.Kept, s.Reason = err == nil, reason
			return s, err
		}
		fallthrough
	default:
		s.Reason = fmt.Sprintf("its owner ended while it was %s", r.State)
	}
	if err := m.takeApart(ctx, sandboxID, f, r, "swept: "+s.Reason); err != nil {
		f.release()
		return s, err
	}
	return s, nil
}

// spare brings a sandbox without an owner into a state in which it can stay, and says which; "" when it can't. What was frozen is
// paused, whatever of the rest was left; what was kept stays while its machine runs.
func (m *Manager) spare(ctx context.Context, f *folder, r *Record) (reason string, err error) {
	frozen, err := m.builds.GetRef(snapshot.Ref{Kind: refSandbox, Name: r.ID})
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return "", err
	}
	switch ended := r.Changes[len(r.Changes)-1]; {
	case r.State == Paused:
		return "paused", nil
	case r.Kept && (r.State == Failed || r.State == Lost) && time.Since(ended.Time) < Retention:
		return fmt.Sprintf("%s (%s); its record tells so for %v", r.State, ended.Reason, Retention), m.clear(ctx, f, r)
	case r.State == Resuming:
		return "its resume was interrupted; it is paused again", m.backToPaused(ctx, f, r, "the resume was interrupted")
	case r.State == Pausing && frozen != "" && frozen != r.Before:
		r.Build, r.DiffLost = frozen, false
		return "its pause was interrupted when it was frozen; it is paused now", m.finishPause(ctx, f, r)
	case r.Kept && (r.State == Pausing || r.State == Running):
		return m.goOn(ctx, f, r)
	}
	return "", nil
}

// goOn lets a sandbox go on whose owner died in a freeze, if its processes are there, and says so; "" when they are not.
func (m *Manager) goOn(ctx context.Context, f *folder, r *Record) (reason string, err error) {
	machine, err := m.processes(ctx, r)
	if errors.Is(err, errs.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if err := errors.Join(machine.Resume(ctx), machine.Close()); err != nil {
		return "", err
	}
	if r.State == Running {
		return "kept; its machine runs", nil
	}
	r.change(Running, "the pause was interrupted")
	return "its pause was interrupted; it goes on", f.write(r)
}

// processes finds the record's machine, with its pager. ErrNotFound when one of them is gone: a machine whose pager has ended stands
// still for ever.
func (m *Manager) processes(ctx context.Context, r *Record) (vmm.Machine, error) {
	if r.Machine == nil {
		return nil, fmt.Errorf("machine of %s: %w", r.ID, errs.ErrNotFound)
	}
	if r.Pager != nil {
		pager, err := m.cfg.Pagers.Recover(ctx, r.ID, *r.Pager)
		if err != nil {
			return nil, err
		}
		_ = pager.Close()
	}
	return m.cfg.VMM.Recover(ctx, *r.Machine)
}

// List returns the records of all sandboxes, by id. Of one that can't be read there is the id, the state Unreadable, and why.
func (m *Manager) List() ([]Record, error) {
	entries, err := os.ReadDir(filepath.Join(m.cfg.StateDir, "sandboxes"))
	if err != nil {
		return nil, err
	}
	var list []Record
	for _, e := range entries {
		if _, err := id.Parse(e.Name()); err != nil {
			continue
		}
		r, err := readRecord(m.path(e.Name()))
		switch {
		case err == nil:
			list = append(list, *r)
		case errors.Is(err, errs.ErrCorrupt):
			list = append(list, m.unreadable(e, err))
		}
	}
	return list, nil
}

// unreadable is what is known of a sandbox whose record is damaged.
func (m *Manager) unreadable(e fs.DirEntry, why error) Record {
	r := Record{Version: RecordVersion, ID: e.Name(), State: Unreadable}
	c := Change{State: Unreadable, Reason: why.Error()}
	if info, err := e.Info(); err == nil {
		c.Time = info.ModTime().UTC()
	}
	r.Changes = []Change{c}
	return r
}
