package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// Clone is what became of one clone of a fork.
type Clone struct {
	Sandbox store.Sandbox
	Error   string // empty when there is a sandbox
}

// forkWidth is how many clones of a fork an agent starts at once.
const forkWidth = 8

// forkTime is what a fork may take.
func forkTime(count int32) time.Duration { return startTime * time.Duration(count/forkWidth+1) }

// clones are the ids of the sandboxes that an operation makes by a fork.
func (o Op) clones(count int32) []string {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = id.Derived(id.Prefix, string(o), i)
	}
	return ids
}

// Fork starts count others from where a running sandbox is now, with an API key, or none if it is empty. They are written down before the agent hears
// of them: a server that is killed loses none, and a fork that is asked for again finds what it made. The error is that of the freeze, or a
// *errs.QuotaError when they are too many, and then there is none; else each clone's outcome is its own.
func (c *Control) Fork(ctx context.Context, team string, op Op, sandbox, key string, count int32) ([]Clone, error) {
	return perform(ctx, c, forkTime(count), func(ctx context.Context) ([]Clone, error) {
		ids := op.clones(count)
		rows, err := c.store.ClonesOf(ctx, team, ids)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			of, _, err := c.usable(ctx, team, sandbox, store.Running)
			if err != nil {
				return nil, err
			}
			if draining, err := c.hosts.Draining(ctx, of.HostID); err != nil {
				return nil, err
			} else if draining {
				return nil, fmt.Errorf("its host %s drains and gets no new sandboxes: %w", of.HostID, errs.ErrFailedPrecondition)
			}
			rows, err = c.store.BeginFork(ctx, store.Clones{Of: of, IDs: ids, Key: key, Op: string(op), OpTime: forkTime(count),
				Reason: "forked from " + sandbox})
			if err != nil {
				return nil, err
			}
		}
		if !slices.ContainsFunc(rows, op.starts) {
			return asTheyAre(rows), nil
		}
		agent, err := c.hosts.Agent(ctx, rows[0].HostID)
		if err != nil {
			return nil, errors.Join(err, c.notForked(ctx, op, rows, err))
		}
		resp, err := agent.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: sandbox, Ids: ids, IdempotencyKey: string(op)}))
		if err != nil {
			return nil, errors.Join(err, c.notForked(ctx, op, rows, err))
		}
		return c.forked(ctx, op, rows, resp.Msg.GetClones())
	})
}

// starts says whether a sandbox is one that the operation is to start still.
func (o Op) starts(row store.Sandbox) bool {
	return row.State == store.Starting && row.Op != nil && *row.Op == string(o)
}

// notForked writes down that a fork failed.
func (c *Control) notForked(ctx context.Context, op Op, rows []store.Sandbox, why error) error {
	var failed []error
	for _, row := range rows {
		if op.starts(row) {
			failed = append(failed, c.notStarted(ctx, row, string(op), why))
		}
	}
	return errors.Join(failed...)
}

// forked writes down what became of the clones of a fork.
func (c *Control) forked(ctx context.Context, op Op, rows []store.Sandbox, clones []*pb.Clone) ([]Clone, error) {
	list := asTheyAre(rows)
	for i, row := range rows {
		if !op.starts(row) {
			continue
		}
		if i >= len(clones) || clones[i].GetSandbox() == nil {
			why := "the host has not made it"
			if i < len(clones) {
				why = clones[i].GetError()
			}
			if err := c.notStarted(ctx, row, string(op), errors.New(why)); err != nil {
				return nil, err
			}
			list[i] = Clone{Error: why}
			continue
		}
		started, err := c.started(ctx, row, string(op), clones[i].GetSandbox())
		switch {
		case errors.Is(err, store.ErrOvertaken):
			list[i] = Clone{Error: err.Error()}
		case err != nil:
			return nil, err // Watch writes the others down
		default:
			list[i] = Clone{Sandbox: started}
		}
	}
	return list, nil
}

// asTheyAre are the clones of a fork by their rows.
func asTheyAre(rows []store.Sandbox) []Clone {
	list := make([]Clone, len(rows))
	for i, row := range rows {
		if list[i] = (Clone{Sandbox: row}); row.State == store.Failed {
			list[i] = Clone{Error: row.Reason}
		}
	}
	return list
}
