package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/proc"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

// boot is the host's boot id.
func (m *Manager) boot() (string, error) {
	if m.cfg.Boot != nil {
		return m.cfg.Boot()
	}
	return proc.BootID()
}

// Get returns a sandbox's record, also of one that somebody works on. ErrNotFound when there is none.
func (m *Manager) Get(sandboxID string) (Record, error) {
	if err := checkID(sandboxID); err != nil {
		return Record{}, err
	}
	r, err := readRecord(m.path(sandboxID))
	if errors.Is(err, errs.ErrNotFound) {
		return Record{}, fmt.Errorf("sandbox %s: %w", sandboxID, errs.ErrNotFound)
	}
	if err != nil {
		return Record{}, err
	}
	return *r, nil
}

// FreezeTime bounds a pause, snapshot or fork of the sandbox: its size says how much may have to be written.
func (r Record) FreezeTime() time.Duration { return freezeTime(r.Parts) }

// Known lists every id that any driver or the state folder has something of, sorted: what Recover is to look at.
func (m *Manager) Known(ctx context.Context) ([]string, error) { return m.known(ctx) }

// Tidy removes what no sandbox has any more: what the network and the VMM kept ready, references, builds and working sets that nothing needs. It
// does Maintain as well. A sandbox that it looks at is in use for that moment.
func (m *Manager) Tidy(ctx context.Context) error {
	var failed []error
	for _, tidy := range []func(context.Context) error{m.cfg.Network.Close, m.tidyMachines, m.sweepRefs, m.Maintain, m.sweepWorkingSets} {
		failed = append(failed, tidy(ctx))
	}
	return errors.Join(failed...)
}

// tidyMachines removes what the VMM's driver keeps for starts and no machine has used for long.
func (m *Manager) tidyMachines(ctx context.Context) error {
	if t, ok := m.cfg.VMM.(vmm.Tidier); ok {
		return t.Tidy(ctx)
	}
	return nil
}

// Recovered is what became of a sandbox that had no owner.
type Recovered struct {
	// Sandbox is in this process' hands, if it runs.
	Sandbox *Sandbox
	// State is the one it is in now; Stopped when nothing is left of it.
	State State
	// Reason says why.
	Reason string
}

// Recover brings a sandbox whose owner has ended into a state in which it can stay, whatever step it was left in, for a process that
// takes over. One that was kept and runs is adopted. One that was running, and whose machine is gone, is Lost and has nothing but its
// record, which says why. What was frozen is paused. What was only half made, or was being removed, or was to end with its owner, is
// taken apart.
//
// Errors: ErrInUse when a living process holds it, ErrUnavailable when its machine runs and envd does not answer: it is left as it is, and
// Recover may be tried again. ErrCorrupt, with what to do, when its record can't be read: whether it is to stay is not known then, and
// it stays, with all that it has.
func (m *Manager) Recover(ctx context.Context, sandboxID string) (Recovered, error) {
	f, err := m.hold(sandboxID)
	if errors.Is(err, errs.ErrNotFound) {
		const reason = "its objects have no record"
		return Recovered{State: Stopped, Reason: reason}, m.takeApart(ctx, sandboxID, nil, nil, reason)
	}
	if err != nil {
		return Recovered{}, err
	}
	defer func() {
		if f != nil {
			f.release()
		}
	}()
	r, err := f.read()
	switch {
	case errors.Is(err, errs.ErrNotFound):
		r = nil
	case errors.Is(err, errs.ErrCorrupt):
		return Recovered{State: Unreadable}, err
	case err != nil:
		return Recovered{}, err
	default:
		found, err := m.settle(ctx, f, r)
		if found.State != Stopped || err != nil {
			if found.Sandbox != nil {
				f = nil // it holds the folder now
			}
			return found, err
		}
	}
	reason := "its owner ended before it wrote a record"
	if r != nil {
		reason = fmt.Sprintf("its owner ended while it was %s", r.State)
	}
	if err := m.takeApart(ctx, sandboxID, f, r, reason); err != nil {
		return Recovered{}, err
	}
	f = nil
	return Recovered{State: Stopped, Reason: reason}, nil
}

// settle does what Recover says with a sandbox that has a record. It answers Stopped for what can't stay, and leaves that to its caller.
func (m *Manager) settle(ctx context.Context, f *folder, r *Record) (Recovered, error) {
	if r.State == Failed || r.State == Lost {
		reason := r.Changes[len(r.Changes)-1].Reason
		return Recovered{State: r.State, Reason: reason}, m.clear(ctx, f, r)
	}
	if r.Kept && (r.State == Running || r.State == Pausing) {
		frozen, err := m.frozen(r)
		if err != nil {
			return Recovered{}, err
		}
		if gone, err := m.goneBecause(ctx, r); err != nil {
			return Recovered{}, err
		} else if gone != "" && !frozen {
			return m.lose(ctx, f, r, gone)
		}
	}
	reason, err := m.spare(ctx, f, r)
	switch {
	case err != nil:
		return Recovered{}, err
	case reason == "":
		return Recovered{State: Stopped}, nil
	case r.State != Running:
		return Recovered{State: r.State, Reason: reason}, nil
	}
	return m.rejoined(ctx, f, r)
}

// rejoined adopts the running sandbox of a folder that is held.
func (m *Manager) rejoined(ctx context.Context, f *folder, r *Record) (Recovered, error) {
	s := m.newSandbox(f, r, newToken())
	err := s.adopt(ctx)
	switch {
	case err == nil:
		return Recovered{Sandbox: s, State: Running, Reason: "it was adopted"}, nil
	case r.State == Failed:
		return Recovered{State: Failed, Reason: err.Error()}, m.clear(ctx, f, r)
	}
	return Recovered{State: r.State}, err
}

// frozen says whether a pause that was interrupted came as far as the build.
func (m *Manager) frozen(r *Record) (bool, error) {
	if r.State != Pausing {
		return false, nil
	}
	build, err := m.builds.GetRef(snapshot.Ref{Kind: refSandbox, Name: r.ID})
	if errors.Is(err, errs.ErrNotFound) {
		return false, nil
	}
	return err == nil && build != r.Before, err
}

// goneBecause says why the record's machine or its pager does not run any more; "" when they do.
func (m *Manager) goneBecause(ctx context.Context, r *Record) (string, error) {
	boot, err := m.boot()
	if err != nil {
		return "", err
	}
	if r.Boot != "" && r.Boot != boot {
		return fmt.Sprintf("the host was restarted while it was %s", r.State), nil
	}
	if r.Machine == nil {
		return "its owner ended before it had a machine", nil
	}
	machine, err := m.cfg.VMM.Recover(ctx, *r.Machine)
	if errors.Is(err, errs.ErrNotFound) {
		return "its machine ended while nobody watched it", nil
	}
	if err != nil || r.Pager == nil {
		return "", errors.Join(err, closeMachine(machine))
	}
	pager, err := m.cfg.Pagers.Recover(ctx, r.ID, *r.Pager)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		return "its page-fault server ended while nobody watched it", machine.Close()
	case err != nil:
		return "", errors.Join(err, machine.Close())
	}
	return "", errors.Join(pager.Close(), machine.Close())
}

func closeMachine(m vmm.Machine) error {
	if m == nil {
		return nil
	}
	return m.Close()
}

// lose puts on record that a sandbox is lost and removes the rest of it.
func (m *Manager) lose(ctx context.Context, f *folder, r *Record, reason string) (Recovered, error) {
	r.change(Lost, reason)
	if err := f.write(r); err != nil {
		return Recovered{}, err
	}
	return Recovered{State: Lost, Reason: reason}, m.clear(ctx, f, r)
}

// clear removes all that a sandbox which has ended has on the host but its record. It is idempotent.
func (m *Manager) clear(ctx context.Context, f *folder, r *Record) error {
	if r.Slot == nil && r.Machine == nil {
		return nil // it was done before
	}
	if err := m.dismantle(ctx, r.ID, f.path); err != nil {
		return err
	}
	if err := m.builds.DeleteRef(ctx, snapshot.Ref{Kind: refSandbox, Name: r.ID}); err != nil {
		return err
	}
	r.Slot, r.Machine, r.Pager, r.Build = nil, nil, nil, ""
	return f.write(r)
}

// SetNote replaces the note of the sandbox's record.
func (s *Sandbox) SetNote(note json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folder == nil {
		return s.gone()
	}
	s.record.Note = note
	return s.folder.write(s.record)
}

// SetNote replaces the note of a sandbox that no process holds. It fails as Destroy does.
func (m *Manager) SetNote(sandboxID string, note json.RawMessage) error {
	f, r, err := m.holdRecord(sandboxID)
	if err != nil {
		return err
	}
	defer f.release()
	r.Note = note
	return f.write(r)
}
