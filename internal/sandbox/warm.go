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
	f, err := m.lockFile(template + ".lock")
	if err != nil {
		return nil, err
	}
	return locked(ctx, f, unix.LOCK_EX)
}

// locked waits for a lock on a file, which is closed with it, also when the wait ends before.
func locked(ctx context.Context, f *os.File, how int) (unlock func(), err error) {
	got := make(chan error, 1)
	go func() { got <- unix.Flock(int(f.Fd()), how) }()
	select {
	case err := <-got:
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return func() { _ = f.Close() }, nil
	case <-ctx.Done():
		go func() {
			<-got
			_ = f.Close()
		}()
		return nil, fmt.Errorf("wait for %s: %w", filepath.Base(f.Name()), context.Cause(ctx))
	}
}

// lockFile opens a file that is there to be locked.
func (m *Manager) lockFile(name string) (*os.File, error) {
	dir := filepath.Join(m.cfg.StateDir, "warm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
}
