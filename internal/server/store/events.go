package store

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store/db"
)

// Event is one change of a sandbox's state.
type Event = db.Event

// Place is a reader's place among the events: after all that it has been given.
type Place struct{ tx, id int64 }

// String is what ParsePlace reads.
func (p Place) String() string { return fmt.Sprintf("%d.%d", p.tx, p.id) }

// ParsePlace reads the name of a place.
func ParsePlace(s string) (Place, error) {
	var p Place
	if n, err := fmt.Sscanf(s, "%d.%d", &p.tx, &p.id); err != nil || n != 2 || p.String() != s || p.tx < 0 || p.id < 0 {
		return Place{}, errs.Field("Last-Event-ID", "it is not one of ours", "give the id of the last event that was read, or leave it out")
	}
	return p, nil
}

// PlaceOf is the place after an event.
func PlaceOf(e Event) Place { return Place{e.Tx, e.ID} }

// Now is the place after all events of changes that are done: of one that is under way, the event comes after it.
func (s *Store) Now(ctx context.Context) (Place, error) {
	tx, err := s.q.EventsNow(ctx)
	return Place{tx, math.MaxInt64}, kind(err)
}

// pollTime is how soon a reader sees what another server changed. What this one changes is seen at once.
const pollTime = time.Second

// Next waits for events of a team after a place, of one sandbox or, with an empty id, of all, and returns at most limit of them, in the order
// in which they happened to each. It returns none when nothing happened for as long as quiet. A transaction that writes to the same PostgreSQL,
// whosever it is, holds back the events after it until it ends: so none is missed.
func (s *Store) Next(ctx context.Context, team, sandbox string, after Place, limit int, quiet time.Duration) ([]Event, error) {
	return s.poll(ctx, quiet, func() ([]Event, error) {
		return s.q.EventsAfter(ctx, db.EventsAfterParams{TeamID: team, Tx: after.tx, ID: after.id, SandboxID: sandbox, Page: int32(limit)})
	})
}

// poll reads until there are events, or until it was quiet for long enough.
func (s *Store) poll(ctx context.Context, quiet time.Duration, read func() ([]Event, error)) ([]Event, error) {
	deadline := time.Now().Add(quiet)
	for {
		signal := s.changed.wait()
		list, err := read()
		left := time.Until(deadline)
		if err != nil || len(list) > 0 || left <= 0 {
			return list, kind(err)
		}
		timer := time.NewTimer(min(left, pollTime))
		select {
		case <-signal:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// tell wakes the readers of events, unless the change failed.
func (s *Store) tell(err error) {
	if err == nil {
		s.changed.send()
	}
}

// broadcast wakes everybody who waits.
type broadcast struct {
	mu sync.Mutex
	c  chan struct{}
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		b.c = make(chan struct{})
	}
	return b.c
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c != nil {
		close(b.c)
		b.c = nil
	}
}
