package api

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

// or is what a pointer points to, or a default.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// given is a pointer to a value that is not its type's zero.
func given[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}

func toSandbox(sb store.Sandbox) rest.Sandbox {
	return rest.Sandbox{ID: sb.ID, State: rest.State(sb.State), Reason: sb.Reason, Template: sb.Template, SnapshotID: sb.SnapshotID,
		Vcpus: sb.Vcpus, MemoryMib: sb.MemoryMib, DiskBytes: sb.DiskBytes, Internet: sb.Internet, Metadata: sb.Metadata,
		TTLSeconds: sb.TtlSeconds, OnExpiry: rest.OnExpiry(sb.OnExpiry), Public: sb.Public, AutoResume: sb.AutoResume,
		CreatedAt: sb.CreatedAt.UTC(), ChangedAt: sb.ChangedAt.UTC()}
}

// maxEntry bounds a name and a value of metadata, in bytes.
const maxEntry = 255

// metadata checks what the document can't say of it.
func metadata(m *rest.Metadata) (map[string]string, error) {
	for k, v := range or(m, nil) {
		switch {
		case k == "" || len(k) > maxEntry || strings.Contains(k, "="):
			return nil, errs.Field("metadata", fmt.Sprintf("%.80q can't be a name", k), fmt.Sprintf("give 1 to %d bytes without =", maxEntry))
		case len(v) > maxEntry:
			return nil, errs.Field("metadata."+k, fmt.Sprintf("the value has %d bytes", len(v)), fmt.Sprintf("give at most %d", maxEntry))
		case strings.ContainsRune(k+v, 0):
			return nil, errs.Field("metadata", fmt.Sprintf("%.80q has a zero byte", k), "give text")
		}
	}
	return or(m, nil), nil
}

// CreateSandbox implements rest.StrictServerInterface.
func (s *server) CreateSandbox(ctx context.Context, r rest.CreateSandboxRequestObject) (rest.CreateSandboxResponseObject, error) {
	b := r.Body
	if (b.Template == nil) == (b.Snapshot == nil) {
		return nil, errs.Field("template", "give one of template and snapshot", "a template such as base, or the name of a snapshot")
	}
	if b.Snapshot != nil && (b.Vcpus != nil || b.MemoryMib != nil || b.DiskBytes != nil) {
		return nil, errs.Field("snapshot", "a snapshot's sizes are fixed", "leave vcpus, memory_mib and disk_bytes out")
	}
	labels, err := metadata(b.Metadata)
	if err != nil {
		return nil, err
	}
	sb, err := s.Control.Create(ctx, team(ctx), opOf(ctx), control.Spec{Template: or(b.Template, ""), Snapshot: or(b.Snapshot, ""),
		VCPUs: or(b.Vcpus, 0), MemoryMiB: or(b.MemoryMib, 0), DiskBytes: or(b.DiskBytes, 0), Internet: or(b.Internet, true), Metadata: labels,
		TTLSeconds: or(b.TTLSeconds, 0), OnExpiry: string(or(b.OnExpiry, rest.Destroy)), Key: caller(ctx).Key,
		Public: or(b.Public, false), AutoResume: or(b.AutoResume, false)})
	if err != nil {
		return nil, inOurWords(err)
	}
	made(ctx, sb.ID)
	return rest.CreateSandbox201JSONResponse(toSandbox(sb)), nil
}

// hostFields are fields of a sandbox as the host calls them, and as the API does.
var hostFields = map[string]string{"memory": "memory_mib", "disk": "disk_bytes", "disk size": "disk_bytes"}

// inOurWords is what the host has against a field, with the name that the caller gave it.
func inOurWords(err error) error {
	var field *errs.FieldError
	if errors.As(err, &field) && hostFields[field.Field] != "" {
		return errs.Field(hostFields[field.Field], field.Problem, field.Fix)
	}
	return err
}

// defaultPage is how many a page has unless another number is asked for; the document says so, too.
const defaultPage = 100

// ListSandboxes implements rest.StrictServerInterface.
func (s *server) ListSandboxes(ctx context.Context, r rest.ListSandboxesRequestObject) (rest.ListSandboxesResponseObject, error) {
	q := store.Query{Team: team(ctx), Cursor: or(r.Params.Cursor, ""), Limit: int(or(r.Params.Limit, defaultPage))}
	for _, state := range or(r.Params.State, nil) {
		q.States = append(q.States, string(state))
	}
	for _, entry := range or(r.Params.Metadata, nil) {
		k, v, _ := strings.Cut(entry, "=") // the document's pattern has one
		if q.Metadata == nil {
			q.Metadata = map[string]string{}
		}
		q.Metadata[k] = v
	}
	list, next, err := s.Store.List(ctx, q)
	if err != nil {
		return nil, err
	}
	page := rest.ListSandboxes200JSONResponse{Sandboxes: make([]rest.Sandbox, len(list)), NextCursor: given(next)}
	for i, sb := range list {
		page.Sandboxes[i] = toSandbox(sb)
	}
	return page, nil
}

// GetSandbox implements rest.StrictServerInterface.
func (s *server) GetSandbox(ctx context.Context, r rest.GetSandboxRequestObject) (rest.GetSandboxResponseObject, error) {
	sb, err := s.Store.Get(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return rest.GetSandbox200JSONResponse(toSandbox(sb)), nil
}

// UpdateSandbox implements rest.StrictServerInterface.
func (s *server) UpdateSandbox(ctx context.Context, r rest.UpdateSandboxRequestObject) (rest.UpdateSandboxResponseObject, error) {
	b := r.Body
	if b.OnExpiry != nil && b.TTLSeconds == nil {
		return nil, errs.Field("on_expiry", "it is given without ttl_seconds", "give both")
	}
	labels, err := metadata(b.Metadata)
	if err != nil {
		return nil, err
	}
	var sb store.Sandbox
	if b.TTLSeconds != nil {
		if sb, err = s.Control.SetTTL(ctx, team(ctx), r.ID, *b.TTLSeconds, string(or(b.OnExpiry, rest.Destroy))); err != nil {
			return nil, err
		}
	}
	if b.Metadata != nil {
		if sb, err = s.Store.SetMetadata(ctx, team(ctx), r.ID, labels); err != nil {
			return nil, err
		}
	}
	if b.Public != nil || b.AutoResume != nil {
		if sb, err = s.Store.SetPorts(ctx, team(ctx), r.ID, b.Public, b.AutoResume); err != nil {
			return nil, err
		}
	}
	return rest.UpdateSandbox200JSONResponse(toSandbox(sb)), nil
}

// DestroySandbox implements rest.StrictServerInterface.
func (s *server) DestroySandbox(ctx context.Context, r rest.DestroySandboxRequestObject) (rest.DestroySandboxResponseObject, error) {
	if err := s.Control.Destroy(ctx, team(ctx), r.ID); err != nil {
		return nil, err
	}
	return rest.DestroySandbox204Response{}, nil
}

// PauseSandbox implements rest.StrictServerInterface.
func (s *server) PauseSandbox(ctx context.Context, r rest.PauseSandboxRequestObject) (rest.PauseSandboxResponseObject, error) {
	sb, err := s.Control.Pause(ctx, team(ctx), opOf(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return rest.PauseSandbox200JSONResponse(toSandbox(sb)), nil
}

// ResumeSandbox implements rest.StrictServerInterface.
func (s *server) ResumeSandbox(ctx context.Context, r rest.ResumeSandboxRequestObject) (rest.ResumeSandboxResponseObject, error) {
	sb, err := s.Control.Resume(ctx, team(ctx), opOf(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return rest.ResumeSandbox200JSONResponse(toSandbox(sb)), nil
}

// ForkSandbox implements rest.StrictServerInterface.
func (s *server) ForkSandbox(ctx context.Context, r rest.ForkSandboxRequestObject) (rest.ForkSandboxResponseObject, error) {
	clones, err := s.Control.Fork(ctx, team(ctx), opOf(ctx), r.ID, caller(ctx).Key, or(r.Body.Count, 1))
	if err != nil {
		return nil, err
	}
	answer := rest.ForkSandbox201JSONResponse{Clones: make([]rest.Clone, len(clones))}
	for i, c := range clones {
		if c.Error != "" {
			answer.Clones[i].Error = &c.Error
			continue
		}
		sb := toSandbox(c.Sandbox)
		answer.Clones[i].Sandbox = &sb
	}
	return answer, nil
}
