package store

import (
	"context"
	"errors"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Joined stands for all hosts that joined, where a host's id would stand for a server's own one.
const Joined = ""

// Lapse makes the hosts lost that were silent past their lease, and with them what runs there; what is paused there stays paused. It is called
// every now and then, by any number of servers, for the joined hosts or a server's own.
//
// When nobody has called it for longer than gap, no server was there to hear the hosts: then all of them get a lease anew.
func (s *Store) Lapse(ctx context.Context, host string, gap, lease time.Duration) (lost []Host, err error) {
	err = s.inTx(ctx, func(q *db.Queries) error {
		late, err := q.LockLeaseWatch(ctx, db.LockLeaseWatchParams{Gap: gap, Hosts: host})
		if err = kind(err); errors.Is(err, errs.ErrNotFound) {
			late, err = true, nil
		}
		if err != nil {
			return err
		}
		if err := q.LookedAtLeases(ctx, host); err != nil {
			return err
		}
		if late {
			return q.ProlongLeases(ctx, db.ProlongLeasesParams{Lease: lease, HostID: host})
		}
		lost, err = q.LoseHosts(ctx, host)
		return err
	})
	if err != nil {
		return nil, err
	}
	// In a transaction of its own: operations lock a sandbox's row before its host's, and so does this. What a server that is killed
	// here leaves, the next call does.
	ids, err := s.q.SandboxesOfLostHosts(ctx)
	if len(ids) > 0 {
		s.tell(err)
	}
	return lost, kind(err)
}

// ComeBack writes what a host that was lost says of a sandbox that was lost with it, if the row is still the one that was read before it was
// asked. It says whether the row changed.
func (s *Store) ComeBack(ctx context.Context, read Sandbox, is State, reason string) (bool, error) {
	_, err := s.q.ComeBack(ctx, db.ComeBackParams{State: is, Reason: words(reason), ID: read.ID, Version: read.Version})
	if err = kind(err); errors.Is(err, errs.ErrNotFound) {
		return false, nil
	}
	s.tell(err)
	return err == nil, err
}

// GiveUp ends a sandbox that was lost with its host: should it be there again, it is destroyed. ErrNotFound when it is not such a one.
func (s *Store) GiveUp(ctx context.Context, team, id, reason string) (Sandbox, error) {
	sb, err := s.q.GiveUp(ctx, db.GiveUpParams{Reason: words(reason), ID: id, TeamID: team})
	err = found(err, "sandbox", id)
	s.tell(err)
	return sb, err
}
