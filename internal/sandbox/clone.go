package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

// Snapshot freezes the sandbox under a name, from which others start. It runs on, after a moment in which it stands still. When it
// fails, it runs as before.
//
// Errors: as of Pause, ErrInvalid for a name that can't be, ErrAlreadyExists for one that is taken.
func (s *Sandbox) Snapshot(ctx context.Context, name string) ([]vmm.Step, error) {
	if err := checkSnapshotName(name); err != nil {
		return nil, err
	}
	ref := snapshot.Ref{Kind: refSnapshot, Name: name}
	// Two who ask for one name at a time, in two processes it may be, both come past this; the commit refuses the second.
	if _, err := s.manager.builds.GetRef(ref); !errors.Is(err, errs.ErrNotFound) {
		return nil, errors.Join(err, fmt.Errorf("snapshot %q: %w", name, errs.ErrAlreadyExists))
	}
	steps := &steps{}
	_, err := s.frozenFor(ctx, steps, ref)
	if err != nil {
		return steps.all(), fmt.Errorf("snapshot %q of %s: %w", name, s.ID, err)
	}
	return steps.all(), nil
}

// frozenFor makes a build of the sandbox with a reference, and lets the sandbox go on.
func (s *Sandbox) frozenFor(ctx context.Context, steps *steps, ref snapshot.Ref) (*snapshot.Build, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	ctx, cancel := detached(ctx, freezeTime(s.record.Parts))
	defer cancel()
	_ = s.keepWorkingSet(ctx)
	b, err := s.freeze(ctx, steps, ref)
	if err != nil {
		return nil, s.runsOn(err)
	}
	if err := s.thaw(ctx, steps); err != nil {
		return nil, errors.Join(err, s.manager.builds.DeleteRef(ctx, ref))
	}
	return b, nil
}

// Forked is one clone of a fork, or why there is none.
type Forked struct {
	Sandbox *Sandbox
	Err     error
}

// Forking bounds how many clones one fork makes.
const maxForks = 100

// forkWidth is how many clones of one fork start at once.
const forkWidth = 8

// Fork freezes the sandbox for a moment and starts count others from there, each under an identity of its own, with the same sizes
// and policy. It runs on itself. Each clone's outcome is its own; the error is that of the freeze.
func (s *Sandbox) Fork(ctx context.Context, count int, step func(vmm.Step)) ([]Forked, []vmm.Step, error) {
	return s.ForkAs(ctx, make([]string, max(count, 0)), nil, step)
}

// ForkAs is Fork of clones with these ids, of which an empty one is made up, and a note in their records.
func (s *Sandbox) ForkAs(ctx context.Context, ids []string, note json.RawMessage, step func(vmm.Step)) ([]Forked, []vmm.Step, error) {
	count := len(ids)
	if count < 1 || count > maxForks {
		return nil, nil, errs.Field("count", fmt.Sprintf("%d is out of range", count), fmt.Sprintf("give 1 to %d", maxForks))
	}
	m, ref := s.manager, snapshot.Ref{Kind: refFork, Name: s.ID}
	steps := &steps{tell: step}
	b, err := s.frozenFor(ctx, steps, ref)
	if err != nil {
		return nil, steps.all(), fmt.Errorf("fork %s: %w", s.ID, err)
	}
	o := origin{template: s.record.Template, templateID: s.record.TemplateID, snapshot: s.record.Snapshot, parts: b.Manifest.Machine, build: b}
	spec := Spec{Policy: s.record.Policy, Keep: s.record.Kept, Stream: s.record.Stream, Note: note}
	clones := make([]Forked, count)
	var wg sync.WaitGroup
	width := make(chan struct{}, forkWidth)
	for i := range clones {
		wg.Go(func() {
			width <- struct{}{}
			defer func() { <-width }()
			as := spec
			as.ID = ids[i]
			clones[i].Sandbox, clones[i].Err = m.begin(ctx, o, as, newSteps(step))
		})
	}
	wg.Wait()
	err = cleanup.Do(ctx, func(ctx context.Context) error { return m.builds.DeleteRef(ctx, ref) })
	return clones, steps.all(), err
}

// Snapshots returns the names of the snapshots and their builds.
func (m *Manager) Snapshots() (map[string]string, error) {
	refs, err := m.builds.ListRefs()
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for ref, build := range refs {
		if ref.Kind == refSnapshot {
			names[ref.Name] = build
		}
	}
	return names, nil
}

// DeleteSnapshot removes a named snapshot. What others need of its build stays as long as they do. ErrNotFound when there is none,
// ErrFailedPrecondition with who uses it while there are sandboxes that were started from it.
func (m *Manager) DeleteSnapshot(ctx context.Context, name string) error {
	if err := checkSnapshotName(name); err != nil {
		return err
	}
	ref := snapshot.Ref{Kind: refSnapshot, Name: name}
	if _, err := m.builds.GetRef(ref); err != nil {
		return fmt.Errorf("snapshot %q: %w", name, err)
	}
	records, err := m.List()
	if err != nil {
		return err
	}
	var users []string
	for _, r := range records {
		if r.Snapshot == name {
			users = append(users, r.ID)
		}
	}
	if len(users) > 0 {
		return fmt.Errorf("snapshot %q is used by %s: %w", name, strings.Join(users, ", "), errs.ErrFailedPrecondition)
	}
	if err := m.builds.DeleteRef(ctx, ref); err != nil {
		return fmt.Errorf("snapshot %q: %w", name, err)
	}
	_ = m.collect(ctx) // as in Destroy
	return nil
}
