package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

// gone is the error of an operation on a sandbox that this process has no more.
func (s *Sandbox) gone() error {
	return fmt.Errorf("sandbox %s was paused, left or destroyed: %w", s.ID, errs.ErrFailedPrecondition)
}

// usable refuses what a freeze can't be made of.
func (s *Sandbox) usable() error {
	if s.folder == nil {
		return s.gone()
	}
	select {
	case <-s.Machine.Done():
		return s.ended(s.Died())
	default:
		return s.rebase()
	}
}

// rebase makes the build that the sandbox's reference points to the one that the next is made from. They differ after a freeze that
// was interrupted when the reference had moved; what was written since is not known then, and the other build may be gone.
func (s *Sandbox) rebase() error {
	build, err := s.manager.builds.GetRef(snapshot.Ref{Kind: refSandbox, Name: s.ID})
	if errors.Is(err, errs.ErrNotFound) {
		return nil
	}
	if err == nil && build != s.record.Build {
		s.record.Build, s.record.DiffLost = build, true
	}
	return err
}

// ended puts on record that the machine has ended, and returns why.
// Preconditions: s.mu is held.
func (s *Sandbox) ended(why error) error {
	if s.record.State == Failed {
		return why // it is on record
	}
	s.record.change(Failed, why.Error())
	err := s.folder.write(s.record)
	s.overOnce.Do(func() { close(s.over) })
	return errors.Join(why, err)
}

// runsOn puts on record how a sandbox is after a freeze that failed: it runs, or its machine has ended.
func (s *Sandbox) runsOn(err error) error {
	select {
	case <-s.Machine.Done():
		return s.ended(errors.Join(s.Died(), err))
	default:
	}
	if s.record.State == Pausing {
		s.record.change(Running, "the pause failed: "+err.Error())
		err = errors.Join(err, s.folder.write(s.record))
	}
	return full(err)
}

// Pause freezes the sandbox and gives back all it has on the host but the build: memory, processes, network, disk. It goes on to
// its end although the caller leaves. When it fails before the build is whole, the sandbox runs as before. The steps say what it
// took.
//
// Errors: ErrFailedPrecondition when the sandbox is not running in this process' hands, ErrResourceExhausted when the disk is full,
// ErrUnavailable when the machine has ended.
func (s *Sandbox) Pause(ctx context.Context, reason string) ([]vmm.Step, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	ctx, cancel := detached(ctx, freezeTime(s.record.Parts))
	defer cancel()
	steps := &steps{}
	s.record.Before = s.record.Build
	s.record.change(Pausing, reason)
	if err := s.folder.write(s.record); err != nil {
		s.record.change(Running, "the pause failed: "+err.Error())
		return nil, fmt.Errorf("pause %s: %w", s.ID, full(err))
	}
	_ = s.keepWorkingSet(ctx)
	if _, err := s.freeze(ctx, steps); err != nil {
		return steps.all(), fmt.Errorf("pause %s: %w", s.ID, s.runsOn(err))
	}
	s.close()
	f := s.folder
	s.folder = nil
	defer f.release()
	err := steps.time("free", func() error { return s.manager.finishPause(ctx, f, s.record) })
	if err != nil {
		return steps.all(), fmt.Errorf("pause %s: it is frozen, but not all it had is gone; a sweep tries again: %w", s.ID, err)
	}
	return steps.all(), nil
}

// finishPause gives back what a frozen sandbox has on the host: the machine first, then the disk, whose device it had open, then the
// rest. From then on it is paused.
func (m *Manager) finishPause(ctx context.Context, f *folder, r *Record) error {
	if err := m.dismantle(ctx, r.ID, f.path); err != nil {
		return err
	}
	reason := r.Changes[len(r.Changes)-1].Reason
	r.Slot, r.Machine, r.Pager = nil, nil, nil
	r.change(Paused, reason)
	return f.write(r)
}

// dismantle removes all that a sandbox has on the host but its folder and record.
func (m *Manager) dismantle(ctx context.Context, id, path string) error {
	if err := m.cfg.VMM.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove the machine of %s: %w", id, err)
	}
	if err := failpoint.Here(ctx, pointMachineGone); err != nil {
		return err
	}
	perr := m.cfg.Pagers.Remove(ctx, id)
	if err := failpoint.Here(ctx, pointPagerGone); err != nil {
		return err
	}
	derr := m.cfg.Disk.Remove(ctx, id)
	if err := failpoint.Here(ctx, pointDiskGone); err != nil {
		return err
	}
	nerr := m.cfg.Network.Release(ctx, id)
	if err := failpoint.Here(ctx, pointNetworkGone); err != nil {
		return err
	}
	if err := errors.Join(perr, derr, nerr, removeIfThere(filepath.Join(path, stateName))); err != nil {
		return fmt.Errorf("take %s apart: %w", id, err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Resume starts a paused sandbox again, where it was frozen. When it fails, the sandbox stays paused.
//
// Errors: as of Create, and ErrFailedPrecondition for a sandbox that is not paused.
func (m *Manager) Resume(ctx context.Context, sandboxID string, step func(vmm.Step)) (*Sandbox, error) {
	f, r, err := m.holdRecord(sandboxID)
	if err != nil {
		return nil, err
	}
	sb, err := m.resume(ctx, f, r, &steps{tell: step})
	if err != nil {
		f.release()
		return nil, fmt.Errorf("resume %s: %w", sandboxID, err)
	}
	return sb, nil
}

func (m *Manager) resume(ctx context.Context, f *folder, r *Record, steps *steps) (*Sandbox, error) {
	if r.State != Paused {
		return nil, fmt.Errorf("it is %s: %w", r.State, errs.ErrFailedPrecondition)
	}
	build, err := m.builds.GetRef(snapshot.Ref{Kind: refSandbox, Name: r.ID})
	if err != nil {
		return nil, err
	}
	b, err := m.open(ctx, build)
	if err != nil {
		return nil, err
	}
	ctx, cancel := m.startContext(ctx)
	defer cancel()
	r.Build, r.DiffLost = b.ID, false
	r.change(Resuming, "asked for, from build "+b.ID)
	if err := f.write(r); err != nil {
		return nil, err
	}
	s := &start{m: m, folder: f, record: r, build: b, steps: steps}
	sb, err := s.run(ctx)
	if err != nil {
		undo, cancel := detached(ctx, undoTime)
		defer cancel()
		return nil, full(errors.Join(err, m.backToPaused(undo, f, r, "the resume failed")))
	}
	return sb, nil
}

// backToPaused removes what a resume made that did not come to its end.
func (m *Manager) backToPaused(ctx context.Context, f *folder, r *Record, reason string) error {
	r.change(r.State, reason)
	return m.finishPause(ctx, f, r)
}

// holdRecord takes a sandbox's folder and reads its record.
func (m *Manager) holdRecord(sandboxID string) (*folder, *Record, error) {
	if err := checkID(sandboxID); err != nil {
		return nil, nil, err
	}
	f, err := m.hold(sandboxID)
	if err != nil {
		return nil, nil, err
	}
	r, err := f.read()
	if err != nil {
		f.release()
		return nil, nil, err
	}
	return f, r, nil
}
