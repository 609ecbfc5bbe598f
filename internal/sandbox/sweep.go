package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

// Swept is what a sweep did with one sandbox.
type Swept struct {
	ID     string `json:"id"`
	Kept   bool   `json:"kept"`            // left alone: made with Spec.Keep and its machine runs
	InUse  bool   `json:"in_use"`          // left alone: a living process holds it
	Reason string `json:"reason"`          // why it was removed or left
	Err    string `json:"error,omitempty"` // why it could not be removed
}

// Removed says that the sandbox is gone now.
func (s Swept) Removed() bool { return !s.Kept && !s.InUse && s.Err == "" }

// Sweep finds every sandbox of this host that has no living owner and removes exactly what is its. With all, kept ones go
// too. What a living process works on is never touched. The error joins those of the single sandboxes.
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
	if err := m.cfg.Network.Close(ctx); err != nil {
		failed = append(failed, err)
	}
	return done, errors.Join(failed...)
}

// known lists every id that any driver or the state folder has something of, sorted.
func (m *Manager) known(ctx context.Context) ([]string, error) {
	var ids []string
	for _, list := range []func(context.Context) ([]string, error){m.cfg.VMM.List, m.cfg.Disk.List, m.cfg.Network.List} {
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
	return slices.Compact(ids), nil
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
	case errors.Is(err, errs.ErrNotFound), errors.Is(err, errs.ErrCorrupt):
		s.Reason = "its owner ended before it wrote a record"
		r = nil
	case err != nil:
		f.release()
		return s, err
	case r.Kept && r.State == Running && !all && m.runs(ctx, r):
		f.release()
		s.Kept, s.Reason = true, "kept; its machine runs"
		return s, nil
	default:
		s.Reason = fmt.Sprintf("its owner ended while it was %s", r.State)
	}
	if err := m.takeApart(ctx, sandboxID, f, r, "swept: "+s.Reason); err != nil {
		f.release()
		return s, err
	}
	return s, nil
}

// runs says whether the record's machine is there.
func (m *Manager) runs(ctx context.Context, r *Record) bool {
	if r.Machine == nil {
		return false
	}
	machine, err := m.cfg.VMM.Recover(ctx, *r.Machine)
	if err != nil {
		return false
	}
	defer machine.Close()
	select {
	case <-machine.Done():
		return false
	default:
		return true
	}
}

// List returns the records of all sandboxes, by id. A folder whose record can't be read is left out.
func (m *Manager) List() ([]Record, error) {
	entries, err := os.ReadDir(filepath.Join(m.cfg.StateDir, "sandboxes"))
	if err != nil {
		return nil, err
	}
	var list []Record
	for _, e := range entries {
		if r, err := readRecord(m.path(e.Name())); err == nil && strings.HasPrefix(r.ID, id.Prefix) {
			list = append(list, *r)
		}
	}
	return list, nil
}
