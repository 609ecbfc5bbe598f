package api

import (
	"context"
	"fmt"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

func toLimits(l store.Limits) rest.Limits {
	return rest.Limits{Sandboxes: l.Sandboxes, Vcpus: l.VCPUs, MemoryMib: l.MemoryMiB, DiskBytes: l.DiskBytes, Snapshots: l.Snapshots,
		RequestsPerSecond: l.PerSecond, Burst: l.Burst}
}

// fromLimits are limits as the store has them; none when they are left out.
func fromLimits(given *rest.Limits) (store.Limits, error) {
	l := or(given, rest.Limits{})
	if l.Burst != nil && l.RequestsPerSecond == nil {
		return store.Limits{}, errs.Field("limits.burst", "it is given without requests_per_second", "give both")
	}
	return store.Limits{Sandboxes: l.Sandboxes, VCPUs: l.Vcpus, MemoryMiB: l.MemoryMib, DiskBytes: l.DiskBytes, Snapshots: l.Snapshots,
		PerSecond: l.RequestsPerSecond, Burst: l.Burst}, nil
}

func toTeam(t store.Team) rest.Team {
	return rest.Team{ID: t.ID, Name: t.Name, Limits: toLimits(store.LimitsOfTeam(t)), CreatedAt: t.CreatedAt.UTC()}
}

// usingTeam is a team with what it uses.
func (s *server) usingTeam(ctx context.Context, team string) (rest.Team, error) {
	t, err := s.Store.GetTeam(ctx, team)
	if err != nil {
		return rest.Team{}, err
	}
	used, err := s.Store.Used(ctx, team)
	if err != nil {
		return rest.Team{}, err
	}
	out := toTeam(t)
	out.Used = &rest.Used{Sandboxes: used.Sandboxes, Vcpus: used.VCPUs, MemoryMib: used.MemoryMiB, DiskBytes: used.DiskBytes, Snapshots: used.Snapshots}
	return out, nil
}

// GetOwnTeam implements rest.StrictServerInterface.
func (s *server) GetOwnTeam(ctx context.Context, _ rest.GetOwnTeamRequestObject) (rest.GetOwnTeamResponseObject, error) {
	t, err := s.usingTeam(ctx, team(ctx))
	if err != nil {
		return nil, err
	}
	return rest.GetOwnTeam200JSONResponse(t), nil
}

// CreateTeam implements rest.StrictServerInterface.
func (s *server) CreateTeam(ctx context.Context, r rest.CreateTeamRequestObject) (rest.CreateTeamResponseObject, error) {
	limits, err := fromLimits(r.Body.Limits)
	if err != nil {
		return nil, err
	}
	t, err := s.Store.AddTeam(ctx, id.As(id.Team, string(opOf(ctx))), r.Body.Name, limits)
	if err != nil {
		return nil, err
	}
	made(ctx, t.ID)
	return rest.CreateTeam201JSONResponse(toTeam(t)), nil
}

// ListTeams implements rest.StrictServerInterface.
func (s *server) ListTeams(ctx context.Context, r rest.ListTeamsRequestObject) (rest.ListTeamsResponseObject, error) {
	list, next, err := s.Store.ListTeams(ctx, or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListTeams200JSONResponse{Teams: make([]rest.Team, len(list)), NextCursor: given(next)}
	for i, t := range list {
		page.Teams[i] = toTeam(t)
	}
	return page, nil
}

// GetTeam implements rest.StrictServerInterface.
func (s *server) GetTeam(ctx context.Context, r rest.GetTeamRequestObject) (rest.GetTeamResponseObject, error) {
	t, err := s.usingTeam(ctx, r.Team)
	if err != nil {
		return nil, err
	}
	return rest.GetTeam200JSONResponse(t), nil
}

// UpdateTeam implements rest.StrictServerInterface.
func (s *server) UpdateTeam(ctx context.Context, r rest.UpdateTeamRequestObject) (rest.UpdateTeamResponseObject, error) {
	var limits *store.Limits
	if r.Body.Limits != nil {
		l, err := fromLimits(r.Body.Limits)
		if err != nil {
			return nil, err
		}
		limits = &l
	}
	t, err := s.Store.UpdateTeam(ctx, r.Team, r.Body.Name, limits)
	if err != nil {
		return nil, err
	}
	return rest.UpdateTeam200JSONResponse(toTeam(t)), nil
}

// DeleteTeam implements rest.StrictServerInterface.
func (s *server) DeleteTeam(ctx context.Context, r rest.DeleteTeamRequestObject) (rest.DeleteTeamResponseObject, error) {
	if r.Team == team(ctx) {
		return nil, fmt.Errorf("team %q is the caller's own: %w", r.Team, errs.ErrFailedPrecondition)
	}
	if err := s.Store.DeleteTeam(ctx, r.Team); err != nil {
		return nil, err
	}
	return rest.DeleteTeam204Response{}, nil
}

// CreateTeamKey implements rest.StrictServerInterface.
func (s *server) CreateTeamKey(ctx context.Context, r rest.CreateTeamKeyRequestObject) (rest.CreateTeamKeyResponseObject, error) {
	k, err := s.newKey(ctx, r.Team, r.Body)
	if err != nil {
		return nil, err
	}
	return rest.CreateTeamKey201JSONResponse(k), nil
}

// ListTeamKeys implements rest.StrictServerInterface.
func (s *server) ListTeamKeys(ctx context.Context, r rest.ListTeamKeysRequestObject) (rest.ListTeamKeysResponseObject, error) {
	if _, err := s.Store.GetTeam(ctx, r.Team); err != nil {
		return nil, err
	}
	page, err := s.keys(ctx, r.Team, r.Params.Cursor, r.Params.Limit)
	if err != nil {
		return nil, err
	}
	return rest.ListTeamKeys200JSONResponse(page), nil
}

// RevokeTeamKey implements rest.StrictServerInterface.
func (s *server) RevokeTeamKey(ctx context.Context, r rest.RevokeTeamKeyRequestObject) (rest.RevokeTeamKeyResponseObject, error) {
	if _, err := s.Store.RevokeKey(ctx, r.Team, r.ID, true); err != nil {
		return nil, err
	}
	return rest.RevokeTeamKey204Response{}, nil
}
