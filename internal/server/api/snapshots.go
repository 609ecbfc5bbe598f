package api

import (
	"context"

	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

func toSnapshot(n store.Snapshot) rest.Snapshot {
	return rest.Snapshot{ID: n.ID, Name: n.Name, SandboxID: n.SandboxID, Template: n.Template, Vcpus: n.Vcpus,
		MemoryMib: n.MemoryMib, DiskBytes: n.DiskBytes, CreatedAt: n.CreatedAt.UTC()}
}

// CreateSnapshot implements rest.StrictServerInterface.
func (s *server) CreateSnapshot(ctx context.Context, r rest.CreateSnapshotRequestObject) (rest.CreateSnapshotResponseObject, error) {
	n, err := s.Control.Snapshot(ctx, team(ctx), opOf(ctx), r.ID, caller(ctx).Key, r.Body.Name)
	if err != nil {
		return nil, err
	}
	made(ctx, n.Name)
	return rest.CreateSnapshot201JSONResponse(toSnapshot(n)), nil
}

// ListSnapshots implements rest.StrictServerInterface.
func (s *server) ListSnapshots(ctx context.Context, r rest.ListSnapshotsRequestObject) (rest.ListSnapshotsResponseObject, error) {
	list, next, err := s.Store.ListSnapshots(ctx, team(ctx), or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListSnapshots200JSONResponse{Snapshots: make([]rest.Snapshot, len(list)), NextCursor: given(next)}
	for i, n := range list {
		page.Snapshots[i] = toSnapshot(n)
	}
	return page, nil
}

// GetSnapshot implements rest.StrictServerInterface.
func (s *server) GetSnapshot(ctx context.Context, r rest.GetSnapshotRequestObject) (rest.GetSnapshotResponseObject, error) {
	n, err := s.Store.GetSnapshot(ctx, team(ctx), r.Name)
	if err != nil {
		return nil, err
	}
	return rest.GetSnapshot200JSONResponse(toSnapshot(n)), nil
}

// DeleteSnapshot implements rest.StrictServerInterface.
func (s *server) DeleteSnapshot(ctx context.Context, r rest.DeleteSnapshotRequestObject) (rest.DeleteSnapshotResponseObject, error) {
	if err := s.Control.DeleteSnapshot(ctx, team(ctx), r.Name); err != nil {
		return nil, err
	}
	return rest.DeleteSnapshot204Response{}, nil
}
