package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

// warm returns a template's warm build: frozen once, right after a boot. One that does not fit the host any more, or is damaged, is
// made anew.
func (m *Manager) warm(ctx context.Context, o origin, steps *steps) (*snapshot.Build, error) {
	ref := snapshot.Ref{Kind: refTemplate, Name: o.templateID}
	if b, err := m.usable(ctx, ref); b != nil || err != nil {
		return b, err
	}
	unlock, err := m.lockTemplate(ctx, o.templateID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if b, err := m.usable(ctx, ref); b != nil || err != nil { // somebody else was faster
		return b, err
	}
	return m.makeWarm(ctx, o, ref, steps)
}

// usable returns the build of a reference, nil when there is none that can be started here.
func (m *Manager) usable(ctx context.Context, ref snapshot.Ref) (*snapshot.Build, error) {
	id, err := m.builds.GetRef(ref)
	if errors.Is(err, errs.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := m.open(ctx, id)
	if errors.Is(err, errs.ErrFailedPrecondition) || errors.Is(err, errs.ErrCorrupt) || errors.Is(err, errs.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// makeWarm boots a machine of the template, without a way out, freezes it and removes it.
func (m *Manager) makeWarm(ctx context.Context, o origin, ref snapshot.Ref, outer *steps) (_ *snapshot.Build, err error) {
	inner := &steps{}
	if outer.tell != nil {
		inner.tell = func(s vmm.Step) { outer.tell(vmm.Step{Name: "warm." + s.Name, Took: s.Took}) }
	}
	sb, err := m.begin(ctx, o, Spec{Template: o.template, Cold: true}, inner)
	if err != nil {
		return nil, fmt.Errorf("warm build of template %s: %w", o.template, err)
	}
	defer func() {
		err = errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { return sb.Destroy(ctx, "its warm build is made") }))
	}()
	sb.mu.Lock()
	defer sb.mu.Unlock()
	b, err := sb.freeze(ctx, inner, ref)
	if err != nil {
		return nil, fmt.Errorf("warm build of template %s: %w", o.template, err)
	}
	return b, nil
}

// lockTemplate makes sure that one process makes a template's warm build at a time.
func (m *Manager) lockTemplate(ctx context.Context, template string) (unlock func(), err error) {
	dir := filepath.Join(m.cfg.StateDir, "warm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, template+".lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- unix.Flock(int(f.Fd()), unix.LOCK_EX) }()
	select {
	case err := <-locked:
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return func() { _ = f.Close() }, nil
	case <-ctx.Done():
		go func() {
			<-locked
			_ = f.Close()
		}()
		return nil, fmt.Errorf("wait for the warm build of %s: %w", template, context.Cause(ctx))
	}
}
