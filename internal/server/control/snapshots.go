package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/client"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

const (
	// leaseTime is how long a server that makes a snapshot is waited for without a word of it, and renewTime how often it gives one.
	leaseTime = time.Minute
	renewTime = 15 * time.Second
	// lateTime is how long a host may still make a snapshot whose server is gone.
	lateTime = 30 * time.Minute
)

// Snapshot freezes a running sandbox under a name, with an API key, or none if it is empty. It runs on.
func (c *Control) Snapshot(ctx context.Context, team string, op Op, sandbox, key, name string) (store.Snapshot, error) {
	return perform(ctx, c, startTime, func(ctx context.Context) (store.Snapshot, error) {
		snap, err := c.beginSnapshot(ctx, team, op, sandbox, key, name)
		if err != nil || snap.Op == nil {
			return snap, err
		}
		frozen := snap
		defer c.renewed(ctx, func(ctx context.Context) error { return c.store.RenewSnapshot(ctx, frozen.ID, string(op), leaseTime) })()
		agent, err := c.hosts.Agent(ctx, frozen.HostID)
		if err != nil {
			return c.notFrozen(ctx, team, frozen, op, err)
		}
		_, err = agent.Snapshots.CreateSnapshot(ctx, connect.NewRequest(&pb.CreateSnapshotRequest{Id: sandbox, Name: frozen.ID, IdempotencyKey: string(op)}))
		if err == nil || errors.Is(err, errs.ErrAlreadyExists) { // the host knows it by the id, which no other operation gives
			snap, err = c.store.SnapshotReady(ctx, snap.ID, snap.Op)
		}
		if err == nil {
			return snap, nil
		}
		return c.notFrozen(ctx, team, frozen, op, err)
	})
}

// renewed has fn called now and then until the function that it returns is called.
func (c *Control) renewed(ctx context.Context, fn func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(renewTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := fn(ctx); err != nil && ctx.Err() == nil {
					c.log.Warn("an operation's lease was not renewed; it is tried again", "error", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// notFrozen writes down that a snapshot was not made; its name is free again. One that is there all the same is the answer: the same operation, asked
// again, was faster, or it was settled.
func (c *Control) notFrozen(ctx context.Context, team string, frozen store.Snapshot, op Op, why error) (snap store.Snapshot, err error) {
	err = cleanup.Do(ctx, func(ctx context.Context) error {
		given, err := c.store.GiveUpSnapshot(ctx, frozen.ID, string(op), lateTime)
		switch {
		case err == nil && unknown(why):
			return why // it may be there yet: Watch has it deleted
		case err == nil:
			return errors.Join(why, c.removeSnapshot(ctx, given))
		case !errors.Is(err, errs.ErrNotFound):
			return errors.Join(why, err)
		}
		if snap, err = c.store.SnapshotOfID(ctx, team, frozen.ID); err == nil && snap.State == store.SnapshotWhole {
			return nil
		}
		if errors.Is(err, errs.ErrNotFound) { // deleted meanwhile: what came too late goes
			err = c.removeSnapshot(ctx, frozen)
		}
		return errors.Join(why, err)
	})
	return snap, err
}

// unknown says whether an error leaves open what the host does.
func unknown(err error) bool {
	return errors.Is(err, errs.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// beginSnapshot writes down that a snapshot is being made. One that is asked for again is as it is: it has no operation if it was made.
func (c *Control) beginSnapshot(ctx context.Context, team string, op Op, sandbox, key, name string) (store.Snapshot, error) {
	snapshot := id.As(id.Snapshot, string(op))
	had, err := c.store.SnapshotOfID(ctx, team, snapshot)
	if err == nil && had.State == store.SnapshotWhole {
		return had, nil
	}
	if err == nil {
		return c.store.TakeSnapshot(ctx, team, snapshot, string(op), leaseTime)
	}
	if !errors.Is(err, errs.ErrNotFound) {
		return had, err
	}
	if done, err := c.store.Done(ctx, string(op)); done || err != nil {
		return had, errors.Join(err, fmt.Errorf("snapshot %q was made, and is deleted: %w", name, errs.ErrFailedPrecondition))
	}
	of, _, err := c.usable(ctx, team, sandbox, store.Running)
	if err != nil {
		return had, err
	}
	return c.store.BeginSnapshot(ctx, store.NewSnapshot{ID: snapshot, Of: of, Name: name, Key: key, Op: string(op), OpTime: leaseTime})
}

// DeleteSnapshot removes a snapshot that no sandbox was started from.
func (c *Control) DeleteSnapshot(ctx context.Context, team, name string) error {
	_, err := perform(ctx, c, shortTime, func(ctx context.Context) (struct{}, error) {
		var none struct{}
		snap, err := c.store.BeginDelete(ctx, team, name, shortTime)
		if err != nil {
			return none, err
		}
		if err := c.removeSnapshot(ctx, snap); err != nil {
			return none, errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error {
				_, err := c.store.SnapshotReady(ctx, snap.ID, nil)
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

// settleSnapshots brings those on a host to an end that a server was making or deleting when it ended. What fails is tried again at the next look: a
// snapshot that is damaged keeps nobody from looking after sandboxes.
func (c *Control) settleSnapshots(ctx context.Context, host string, agent *client.Client) {
	list, err := c.store.SnapshotsCutOff(ctx, host, pageSize)
	var has map[string]bool
	if err == nil && len(list) > 0 {
		has, err = hostSnapshots(ctx, agent) // after the rows were read: what is there now was made by their operations
	}
	if err != nil {
		c.log.Warn("snapshots that were cut off are not settled", "host", host, "error", err)
		return
	}
	for _, snap := range list {
		if err := c.settleSnapshot(ctx, snap, has[snap.ID]); err != nil && !errors.Is(err, errs.ErrNotFound) { // then another server was faster
			c.log.Warn("a snapshot that was cut off is not settled", "snapshot", snap.ID, "error", err)
		}
	}
}

// settleSnapshot: one that the host has was made; the name of one that it has not is free again, and the host is asked once more to delete it when
// it can't come any more.
func (c *Control) settleSnapshot(ctx context.Context, snap store.Snapshot, has bool) error {
	switch {
	case snap.State != store.SnapshotCreating:
		err := c.removeSnapshot(ctx, snap)
		if errors.Is(err, errs.ErrFailedPrecondition) { // it is in use after all
			_, err = c.store.SnapshotReady(ctx, snap.ID, nil)
		}
		return err
	case has:
		_, err := c.store.SnapshotReady(ctx, snap.ID, snap.Op)
		return err
	}
	return c.store.AbandonSnapshot(ctx, snap.ID, lateTime)
}

// hostSnapshots are the names of the snapshots that an agent has.
func hostSnapshots(ctx context.Context, agent *client.Client) (map[string]bool, error) {
	has := map[string]bool{}
	for token := ""; ; {
		resp, err := agent.Snapshots.ListSnapshots(ctx, connect.NewRequest(&pb.ListSnapshotsRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, err
		}
		for _, snap := range resp.Msg.GetSnapshots() {
			has[snap.GetName()] = true
		}
		if token = resp.Msg.GetNextPageToken(); token == "" {
			return has, nil
		}
	}
}
