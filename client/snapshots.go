package client

import (
	"context"
	"iter"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// Snapshot is a frozen sandbox under a name, from which any number of sandboxes start.
type Snapshot struct {
	ID        string
	Name      string
	SandboxID string // the sandbox that was frozen
	Template  string // what that began from
	CreatedAt time.Time
}

func toSnapshot(s rest.Snapshot) *Snapshot {
	return &Snapshot{ID: s.ID, Name: s.Name, SandboxID: s.SandboxID, Template: s.Template, CreatedAt: s.CreatedAt}
}

// Snapshots are the snapshots of the key's team.
type Snapshots struct{ c *Client }

// Snapshot freezes the sandbox under a name. It stands still for a moment and runs on.
func (s *Sandbox) Snapshot(ctx context.Context, name string) (*Snapshot, error) {
	if err := named("id", s.ID); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.CreateSnapshot(ctx, s.ID, &rest.CreateSnapshotParams{IdempotencyKey: once(ctx)}, rest.CreateSnapshot{Name: name})
	made, err := decode[rest.Snapshot](resp, err)
	if err != nil {
		return nil, err
	}
	return toSnapshot(made), nil
}

// Get tells of a snapshot.
func (s *Snapshots) Get(ctx context.Context, name string) (*Snapshot, error) {
	if err := named("name", name); err != nil {
		return nil, err
	}
	resp, err := s.c.rest.GetSnapshot(ctx, name)
	got, err := decode[rest.Snapshot](resp, err)
	if err != nil {
		return nil, err
	}
	return toSnapshot(got), nil
}

// List goes through the snapshots by name and asks for each page as it is needed. Its error is the last pair.
func (s *Snapshots) List(ctx context.Context) iter.Seq2[*Snapshot, error] {
	return pages(func(cursor *string) ([]rest.Snapshot, *string, error) {
		resp, err := s.c.rest.ListSnapshots(ctx, &rest.ListSnapshotsParams{Cursor: cursor})
		page, err := decode[rest.SnapshotPage](resp, err)
		return page.Snapshots, page.NextCursor, err
	}, toSnapshot)
}

// Delete deletes a snapshot. One that sandboxes were started from stays as long as they do: that is ErrFailedPrecondition, and names them.
func (s *Snapshots) Delete(ctx context.Context, name string) error {
	if err := named("name", name); err != nil {
		return err
	}
	resp, err := s.c.rest.DeleteSnapshot(ctx, name)
	_, err = decode[struct{}](resp, err)
	return err
}

// Template is what a sandbox can be started from.
type Template struct {
	Name string
	ID   string // changes with what is in it
	// What a sandbox gets unless it asks for something else.
	VCPUs, MemoryMiB int
	DiskBytes        int64 // the least disk that a sandbox can have
}

func toTemplate(t rest.Template) *Template {
	return &Template{Name: t.Name, ID: t.ID, VCPUs: int(t.Vcpus), MemoryMiB: int(t.MemoryMib), DiskBytes: t.DiskBytes}
}

// Templates are the host's, and every team's.
type Templates struct{ c *Client }

// List tells of all templates, by name.
func (t *Templates) List(ctx context.Context) ([]Template, error) {
	resp, err := t.c.rest.ListTemplates(ctx)
	all, err := decode[rest.TemplateList](resp, err)
	if err != nil {
		return nil, err
	}
	list := make([]Template, len(all.Templates))
	for i, one := range all.Templates {
		list[i] = *toTemplate(one)
	}
	return list, nil
}

// Get tells of a template.
func (t *Templates) Get(ctx context.Context, name string) (*Template, error) {
	if err := named("name", name); err != nil {
		return nil, err
	}
	resp, err := t.c.rest.GetTemplate(ctx, name)
	got, err := decode[rest.Template](resp, err)
	return as(toTemplate, got, err)
}

// Delete deletes a template, for every team. It needs ScopeOperator. One that sandboxes or snapshots need is ErrFailedPrecondition, and the error names them.
func (t *Templates) Delete(ctx context.Context, name string) error {
	if err := named("name", name); err != nil {
		return err
	}
	resp, err := t.c.rest.DeleteTemplate(ctx, name)
	_, err = decode[struct{}](resp, err)
	return err
}
