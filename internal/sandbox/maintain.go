package sandbox

import (
	"context"
	"errors"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
)

// Maintain is work for the background: it replaces builds whose memory is in too many pieces or generations by compact ones, and
// removes what nothing needs any more. It may run at any time and be ended at any time; a sandbox that is paused or resumed meanwhile
// goes first.
func (m *Manager) Maintain(ctx context.Context) error {
	refs, err := m.builds.ListRefs()
	if err != nil {
		return err
	}
	byBuild := map[string][]snapshot.Ref{}
	for ref, build := range refs {
		byBuild[build] = append(byBuild[build], ref)
	}
	var failed []error
	for build, refs := range byBuild {
		if ctx.Err() != nil {
			return errors.Join(append(failed, context.Cause(ctx))...)
		}
		failed = append(failed, m.compact(ctx, build, refs))
	}
	return errors.Join(append(failed, m.collect(ctx))...)
}

// compact replaces a build, if it is worth it, for the references that nobody works with: what a running sandbox began from stays as
// it is until its next pause.
func (m *Manager) compact(ctx context.Context, build string, refs []snapshot.Ref) error {
	b, err := m.builds.Open(ctx, build)
	if errors.Is(err, errs.ErrNotFound) {
		return nil // collected meanwhile
	}
	if err != nil {
		return err
	}
	if !snapshot.NeedsCompaction(b.Map.Stats()) {
		return nil
	}
	var free []snapshot.Ref
	for _, ref := range refs {
		switch ref.Kind {
		case refSnapshot, refTemplate:
			free = append(free, ref)
		case refSandbox:
			f, r, err := m.holdRecord(ref.Name)
			if err != nil {
				continue // somebody works with it, or it is gone
			}
			defer f.release()
			if r.State == Paused {
				free = append(free, ref)
			}
		}
	}
	if len(free) == 0 {
		return nil
	}
	fresh, err := m.builds.Compact(ctx, build, free...)
	if errors.Is(err, errs.ErrFailedPrecondition) {
		return nil // a reference was moved meanwhile
	}
	if err != nil {
		return err
	}
	m.inheritWorkingSet(build, fresh.ID)
	return nil
}
