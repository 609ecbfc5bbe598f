package sandbox

import (
	"context"
	"errors"
	"fmt"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/vmm"
)

// Create starts a sandbox: when it returns, envd answers. When it fails, nothing of the sandbox is left. The step function,
// if there is one, is told of each step as it ends. The first sandbox of a template's own sizes has the template's warm build made
// before; that takes a boot and a freeze, once.
//
// Errors: ErrInvalid with the field for a Spec that can't be, before anything is made; ErrNotFound for the template or snapshot;
// ErrFailedPrecondition with what differs for a build that does not fit this host, ErrCorrupt for one that is not what was
// written; ErrResourceExhausted when the host has no room; ErrUnavailable when the machine died or did not answer in time.
func (m *Manager) Create(ctx context.Context, spec Spec, step func(vmm.Step)) (*Sandbox, error) {
	release, err := m.keepTemplate(ctx, spec.Template)
	if err != nil {
		return nil, err
	}
	defer release()
	o, err := m.resolve(ctx, &spec)
	if err != nil {
		return nil, err
	}
	steps := &steps{tell: step}
	if o.build == nil && !spec.Cold {
		if o.build, err = m.warm(ctx, o, steps); err != nil {
			return nil, err
		}
	}
	return m.begin(ctx, o, spec, steps)
}

// begin starts a new sandbox from an origin.
func (m *Manager) begin(ctx context.Context, o origin, spec Spec, steps *steps) (_ *Sandbox, err error) {
	ctx, cancel := m.startContext(ctx)
	defer cancel()
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	s := &start{m: m, build: o.build, console: spec.Console, steps: steps}
	if err := steps.time("record", func() error { return s.open(ctx, o, spec, cu) }); err != nil {
		return nil, err
	}
	sb, err := s.run(ctx)
	if err != nil {
		return nil, full(err)
	}
	cu.Release()
	return sb, nil
}

// startContext is bounded by what a start may take.
func (m *Manager) startContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.cfg.StartTimeout,
		fmt.Errorf("the sandbox did not start within %v: %w", m.cfg.StartTimeout, errs.ErrUnavailable))
}

// open makes the sandbox's folder and record and its reference to the build, and pushes what undoes the whole start.
func (s *start) open(ctx context.Context, o origin, spec Spec, cu *cleanup.Stack) error {
	if spec.ID == "" {
		spec.ID = id.New()
	} else if err := checkID(spec.ID); err != nil {
		return err
	}
	s.record = &Record{Version: RecordVersion, ID: spec.ID, Note: spec.Note, Template: o.template, TemplateID: o.templateID, Snapshot: o.snapshot,
		Parts: o.parts, Policy: spec.Policy, Kept: spec.Keep, Stream: spec.Stream}
	reason := "asked for, from a boot"
	if o.build != nil {
		s.record.Build, reason = o.build.ID, "asked for, from build "+o.build.ID
	}
	s.record.change(Starting, reason)
	f, err := s.m.newFolder(s.record)
	if err != nil {
		return err
	}
	s.folder = f
	cu.Add("take apart "+s.record.ID, func(ctx context.Context) error {
		return s.m.takeApart(ctx, s.record.ID, f, s.record, "the start failed")
	})
	if o.build == nil {
		return nil
	}
	err = s.m.builds.SetRef(ctx, snapshot.Ref{Kind: refSandbox, Name: s.record.ID}, o.build.ID)
	if errors.Is(err, errs.ErrNotFound) {
		return fmt.Errorf("the build was deleted meanwhile: %w", err)
	}
	return err
}
