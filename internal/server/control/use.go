package control

import (
	"context"

	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Exec runs a command as client.Client.Exec does. It is killed when the caller leaves.
func (c *Control) Exec(ctx context.Context, team string, req *pb.ExecRequest, s client.Streams) (client.Result, error) {
	_, agent, err := c.usable(ctx, team, req.GetId(), store.Running)
	if err != nil {
		return client.Result{}, err
	}
	req.KillOnHangup = true
	return agent.Exec(ctx, req, s)
}
