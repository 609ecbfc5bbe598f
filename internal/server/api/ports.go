package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"wrenn.dev/wrenn/internal/server/rest"
)

const (
	// accessPrefix begins every access token: it is found when it lies where it should not.
	accessPrefix = "wrenn_port_"
	accessBytes  = 32
)

// GetPort implements rest.StrictServerInterface.
func (s *server) GetPort(ctx context.Context, r rest.GetPortRequestObject) (rest.GetPortResponseObject, error) {
	sb, err := s.Store.Get(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return rest.GetPort200JSONResponse{URL: s.Domain.URL(sb.ID, int(r.Port)), Public: sb.Public}, nil
}

// CreateAccessToken implements rest.StrictServerInterface. What is kept of the token is its hash, which is enough for something that nobody
// can guess.
func (s *server) CreateAccessToken(ctx context.Context, r rest.CreateAccessTokenRequestObject) (rest.CreateAccessTokenResponseObject, error) {
	raw := make([]byte, accessBytes)
	_, _ = rand.Read(raw) // never fails, see its documentation
	token := accessPrefix + hex.EncodeToString(raw)
	hash := sha256.Sum256([]byte(token))
	if err := s.Store.AddAccessToken(ctx, team(ctx), r.ID, hash[:]); err != nil {
		return nil, err
	}
	return rest.CreateAccessToken201JSONResponse{Token: token}, nil
}

// RevokeAccessTokens implements rest.StrictServerInterface.
func (s *server) RevokeAccessTokens(ctx context.Context, r rest.RevokeAccessTokensRequestObject) (rest.RevokeAccessTokensResponseObject, error) {
	if err := s.Store.DropAccessTokens(ctx, team(ctx), r.ID); err != nil {
		return nil, err
	}
	return rest.RevokeAccessTokens204Response{}, nil
}
