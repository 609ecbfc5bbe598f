package control

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Stats are what a sandbox takes of its host now. ErrFailedPrecondition when it does not run, and so takes nothing.
func (c *Control) Stats(ctx context.Context, team, sandbox string) (*pb.Stats, error) {
	_, agent, err := c.usable(ctx, team, sandbox, store.Running)
	if err != nil {
		return nil, err
	}
	resp, err := agent.Host.Stats(ctx, connect.NewRequest(&pb.StatsRequest{Ids: []string{sandbox}}))
	if errors.Is(err, errs.ErrNotFound) || err == nil && len(resp.Msg.GetStats()) != 1 {
		return nil, fmt.Errorf("sandbox %s has no machine any more: %w", sandbox, errs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetStats()[0], nil
}
