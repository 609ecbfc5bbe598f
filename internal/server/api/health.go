package api

import (
	"context"
	"time"

	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/version"
)

// readyTime bounds how long it takes to say that something does not answer.
const readyTime = 5 * time.Second

// GetHealth implements rest.StrictServerInterface.
func (s *server) GetHealth(context.Context, rest.GetHealthRequestObject) (rest.GetHealthResponseObject, error) {
	return rest.GetHealth200JSONResponse{Status: rest.Ok, Version: version.String()}, nil
}

// GetReadiness implements rest.StrictServerInterface.
func (s *server) GetReadiness(ctx context.Context, _ rest.GetReadinessRequestObject) (rest.GetReadinessResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := s.Control.Ready(ctx); err != nil {
		return nil, err
	}
	return rest.GetReadiness200JSONResponse{Status: rest.Ok, Version: version.String()}, nil
}
