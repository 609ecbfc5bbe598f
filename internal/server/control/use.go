package control

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Clone is what became of one clone of a fork.
type Clone struct {
	Sandbox store.Sandbox
	Error   string // empty when there is a sandbox
}

// Fork starts count others from where a running sandbox is now. The error is that of the freeze; each clone's outcome is its own.
func (c *Control) Fork(ctx context.Context, team string, op Op, sandbox string, count int32) ([]Clone, error) {
	return perform(ctx, c, OpTime, func(ctx context.Context) ([]Clone, error) {
		of, agent, err := c.usable(ctx, team, sandbox, store.Running)
		if err != nil {
			return nil, err
		}
		if draining, err := c.hosts.Draining(ctx, of.HostID); err != nil {
			return nil, err
		} else if draining {
			return nil, fmt.Errorf("its host %s drains and gets no new sandboxes: %w", of.HostID, errs.ErrFailedPrecondition)
		}
		resp, err := agent.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: sandbox, Count: uint32(count), IdempotencyKey: string(op)}))
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, clone := range resp.Msg.GetClones() {
			if made := clone.GetSandbox(); made != nil {
				ids = append(ids, made.GetId())
			}
		}
		rows, err := c.store.AddClones(ctx, of, ids, "forked from "+sandbox)
		if err != nil {
			for _, id := range ids { // nobody would know them
				err = errors.Join(err, c.remove(ctx, store.Sandbox{ID: id, HostID: of.HostID}, "it could not be written down"))
			}
			return nil, err
		}
		var clones []Clone
		for _, clone := range resp.Msg.GetClones() {
			if clone.GetSandbox() == nil {
				clones = append(clones, Clone{Error: clone.GetError()})
				continue
			}
			clones, rows = append(clones, Clone{Sandbox: rows[0]}), rows[1:]
		}
		return clones, nil
	})
}

// Exec runs a command as client.Client.Exec does. It is killed when the caller leaves.
func (c *Control) Exec(ctx context.Context, team string, req *pb.ExecRequest, s client.Streams) (client.Result, error) {
	_, agent, err := c.usable(ctx, team, req.GetId(), store.Running)
	if err != nil {
		return client.Result{}, err
	}
	req.KillOnHangup = true
	return agent.Exec(ctx, req, s)
}

// Snapshot freezes a running sandbox under a name. It runs on.
func (c *Control) Snapshot(ctx context.Context, team string, op Op, sandbox, name string) (store.Snapshot, error) {
	return perform(ctx, c, startTime, func(ctx context.Context) (store.Snapshot, error) {
		of, agent, err := c.usable(ctx, team, sandbox, store.Running)
		if err != nil {
			return store.Snapshot{}, err
		}
		snap, err := c.store.BeginSnapshot(ctx, of, name)
		if err != nil {
			return snap, err
		}
		_, err = agent.Snapshots.CreateSnapshot(ctx, connect.NewRequest(&pb.CreateSnapshotRequest{Id: sandbox, Name: snap.ID, IdempotencyKey: string(op)}))
		if err != nil {
			return snap, errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { return c.removeSnapshot(ctx, snap) }))
		}
		return c.store.SnapshotReady(ctx, snap.ID)
	})
}

// DeleteSnapshot removes a snapshot that no sandbox was started from.
func (c *Control) DeleteSnapshot(ctx context.Context, team, name string) error {
	_, err := perform(ctx, c, shortTime, func(ctx context.Context) (struct{}, error) {
		var none struct{}
		snap, err := c.store.BeginDelete(ctx, team, name)
		if err != nil {
			return none, err
		}
		if err := c.removeSnapshot(ctx, snap); err != nil {
			return none, errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error {
				_, err := c.store.SnapshotReady(ctx, snap.ID)
				return err
			}))
		}
		return none, nil
	})
	return err
}

// removeSnapshot has the agent delete a snapshot, if it has it, and forgets it.
func (c *Control) removeSnapshot(ctx context.Context, snap store.Snapshot) error {
	agent, err := c.hosts.Agent(ctx, snap.HostID)
	if err != nil {
		return fmt.Errorf("snapshot %q: %w", snap.Name, err)
	}
	_, err = agent.Snapshots.DeleteSnapshot(ctx, connect.NewRequest(&pb.DeleteSnapshotRequest{Name: snap.ID}))
	if err != nil && !errors.Is(err, errs.ErrNotFound) {
		return fmt.Errorf("snapshot %q: %w", snap.Name, err)
	}
	return c.store.RemoveSnapshot(ctx, snap.ID)
}

// Templates are what sandboxes can be started from, by name: all that any host which is up has.
func (c *Control) Templates(ctx context.Context) ([]store.Template, error) {
	return c.store.Templates(ctx)
}
