package sandbox

import (
	"context"
	"errors"
	"fmt"

	"wrenn.dev/wrenn/internal/errs"
)

// Adopt takes a running sandbox that no process holds, such as a kept one, into this process' hands. envd is given a new token: the old
// one was never written down.
//
// Errors: ErrNotFound when there is none, ErrUnavailable when a living process holds it or its machine has ended,
// ErrFailedPrecondition when it is not running.
func (m *Manager) Adopt(ctx context.Context, sandboxID string) (_ *Sandbox, err error) {
	f, r, err := m.holdRecord(sandboxID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.release()
		}
	}()
	if r.State != Running || r.Machine == nil {
		return nil, notRunning(r)
	}
	s := m.newSandbox(f, r, newToken())
	if err := s.adopt(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// adopt finds the processes, watches them and gives envd the new token. A sandbox whose processes are gone is put on record as failed.
// When it fails, the folder is its caller's again.
func (s *Sandbox) adopt(ctx context.Context) error {
	if err := s.rejoin(ctx); err != nil {
		return err
	}
	s.watch()
	ctx, cancel := s.manager.startContext(ctx)
	defer cancel()
	// A process that died in a snapshot or fork has left the machine standing still.
	if err := s.thaw(ctx, &steps{}); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tellEnd()
		s.close()
		s.folder = nil
		return cause(ctx, fmt.Errorf("adopt %s: %w", s.ID, err))
	}
	return nil
}

// notRunning is why a sandbox can't be used, with the reason of its end if it has ended.
func notRunning(r *Record) error {
	why := string(r.State)
	if r.State == Failed {
		why += " (" + r.Changes[len(r.Changes)-1].Reason + ")"
	}
	return fmt.Errorf("sandbox %s is %s: %w", r.ID, why, errs.ErrFailedPrecondition)
}

// rejoin finds the sandbox's processes. A machine whose pager is gone stands still for ever: it is ended.
func (s *Sandbox) rejoin(ctx context.Context) (err error) {
	m := s.manager
	if s.Machine, err = m.cfg.VMM.Recover(ctx, *s.record.Machine); err != nil {
		return s.fail(ctx, fmt.Errorf("the machine of %s has ended: %w: %w", s.ID, err, errs.ErrUnavailable))
	}
	if s.record.Pager == nil {
		return nil
	}
	if s.pager, err = m.cfg.Pagers.Recover(ctx, s.ID, *s.record.Pager); err != nil {
		err = fmt.Errorf("the pager of %s has ended: %w: %w", s.ID, err, errs.ErrUnavailable)
		return s.fail(ctx, errors.Join(err, s.Machine.Kill(ctx), s.Machine.Close()))
	}
	return nil
}

// fail puts on record that the sandbox has ended by itself.
func (s *Sandbox) fail(_ context.Context, why error) error {
	s.record.change(Failed, why.Error())
	return errors.Join(why, s.folder.write(s.record))
}
