package api

import (
	"context"

	"wrenn.dev/wrenn/internal/server/auth"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

func toKey(k store.Key) rest.Key {
	out := rest.Key{ID: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: make([]rest.Scope, len(k.Scopes)), CreatedAt: k.CreatedAt.UTC(),
		ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt}
	for i, scope := range k.Scopes {
		out.Scopes[i] = rest.Scope(scope)
	}
	return out
}

// CreateKey implements rest.StrictServerInterface.
func (s *server) CreateKey(ctx context.Context, r rest.CreateKeyRequestObject) (rest.CreateKeyResponseObject, error) {
	want := auth.Request{Team: team(ctx), Name: r.Body.Name, ExpiresAt: r.Body.ExpiresAt}
	for _, scope := range r.Body.Scopes {
		want.Scopes = append(want.Scopes, string(scope))
	}
	secret, k, err := s.Auth.Issue(ctx, want)
	if err != nil {
		return nil, err
	}
	return rest.CreateKey201JSONResponse{Key: secret, Info: toKey(k)}, nil
}

// ListKeys implements rest.StrictServerInterface.
func (s *server) ListKeys(ctx context.Context, r rest.ListKeysRequestObject) (rest.ListKeysResponseObject, error) {
	list, next, err := s.Store.ListKeys(ctx, team(ctx), or(r.Params.Cursor, ""), int(or(r.Params.Limit, defaultPage)))
	if err != nil {
		return nil, err
	}
	page := rest.ListKeys200JSONResponse{Keys: make([]rest.Key, len(list)), NextCursor: given(next)}
	for i, k := range list {
		page.Keys[i] = toKey(k)
	}
	return page, nil
}

// RevokeKey implements rest.StrictServerInterface.
func (s *server) RevokeKey(ctx context.Context, r rest.RevokeKeyRequestObject) (rest.RevokeKeyResponseObject, error) {
	if _, err := s.Store.RevokeKey(ctx, team(ctx), r.ID); err != nil {
		return nil, err
	}
	return rest.RevokeKey204Response{}, nil
}
