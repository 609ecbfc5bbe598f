package api

import (
	"context"
	"slices"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

func toKey(k store.Key) rest.Key {
	out := rest.Key{ID: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: make([]rest.Scope, len(k.Scopes)), Role: given(rest.Role(auth.RoleOf(k.Scopes))),
		Limits: toLimits(store.LimitsOfKey(k)), CreatedAt: k.CreatedAt.UTC(), ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt}
	for i, scope := range k.Scopes {
		out.Scopes[i] = rest.Scope(scope)
	}
	return out
}

// scopesOf are the scopes that are asked for, by themselves or as a role.
func scopesOf(b *rest.CreateKey) ([]string, error) {
	if (b.Role == nil) == (b.Scopes == nil) {
		return nil, errs.Field("role", "give one of role and scopes", "a role such as developer, or scopes")
	}
	if b.Role != nil {
		return auth.Roles[string(*b.Role)], nil
	}
	var scopes []string
	for _, scope := range *b.Scopes {
		scopes = append(scopes, string(scope))
	}
	return scopes, nil
}

// newKey makes a key of a team.
func (s *server) newKey(ctx context.Context, of string, b *rest.CreateKey) (rest.NewKey, error) {
	scopes, err := scopesOf(b)
	if err != nil {
		return rest.NewKey{}, err
	}
	if slices.Contains(scopes, auth.Operator) {
		if err := caller(ctx).May(auth.Operator); err != nil {
			return rest.NewKey{}, err
		}
	}
	limits, err := fromLimits(b.Limits)
	if err != nil {
		return rest.NewKey{}, err
	}
	if _, err := s.Store.GetTeam(ctx, of); err != nil {
		return rest.NewKey{}, err
	}
	secret, k, err := s.Auth.Issue(ctx, auth.Request{Team: of, Name: b.Name, Scopes: scopes, ExpiresAt: b.ExpiresAt, Limits: limits})
	if err != nil {
		return rest.NewKey{}, err
	}
	made(ctx, k.ID)
	return rest.NewKey{Key: secret, Info: toKey(k)}, nil
}

// keys is a page of a team's keys.
func (s *server) keys(ctx context.Context, of string, cursor *string, limit *int32) (rest.KeyPage, error) {
	list, next, err := s.Store.ListKeys(ctx, of, or(cursor, ""), int(or(limit, defaultPage)))
	if err != nil {
		return rest.KeyPage{}, err
	}
	page := rest.KeyPage{Keys: make([]rest.Key, len(list)), NextCursor: given(next)}
	for i, k := range list {
		page.Keys[i] = toKey(k)
	}
	return page, nil
}

// CreateKey implements rest.StrictServerInterface.
func (s *server) CreateKey(ctx context.Context, r rest.CreateKeyRequestObject) (rest.CreateKeyResponseObject, error) {
	k, err := s.newKey(ctx, team(ctx), r.Body)
	if err != nil {
		return nil, err
	}
	return rest.CreateKey201JSONResponse(k), nil
}

// ListKeys implements rest.StrictServerInterface.
func (s *server) ListKeys(ctx context.Context, r rest.ListKeysRequestObject) (rest.ListKeysResponseObject, error) {
	page, err := s.keys(ctx, team(ctx), r.Params.Cursor, r.Params.Limit)
	if err != nil {
		return nil, err
	}
	return rest.ListKeys200JSONResponse(page), nil
}

// RevokeKey implements rest.StrictServerInterface.
func (s *server) RevokeKey(ctx context.Context, r rest.RevokeKeyRequestObject) (rest.RevokeKeyResponseObject, error) {
	if _, err := s.Store.RevokeKey(ctx, team(ctx), r.ID, caller(ctx).May(auth.Operator) == nil); err != nil {
		return nil, err
	}
	return rest.RevokeKey204Response{}, nil
}
