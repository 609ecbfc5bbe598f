package extend

import (
	"context"
	"time"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/server/store"
)

const (
	// atOnce is how many events are read at once.
	atOnce = 100
	// quiet is how long a read waits for an event.
	quiet = 15 * time.Second
)

// reader tells one extension of events.
type reader struct {
	store   *store.Store
	place   string
	onEvent func(context.Context, extension.Event) error
}

// read tells of every event after the last one that was handled. That one is written down after each event: an error, a panic or the end of this server
// has at most one told again.
func (r *reader) read(ctx context.Context, t store.Term) error {
	at, err := r.store.OpenPlace(ctx, t, r.place)
	if err != nil {
		return err
	}
	for {
		list, err := r.store.NextOfAll(ctx, at, atOnce, quiet)
		if err != nil {
			return err
		}
		for _, e := range list {
			next := store.PlaceOf(e)
			if err := r.onEvent(ctx, extension.Event{ID: next.String(), Team: e.TeamID, SandboxID: e.SandboxID, State: e.State, Reason: e.Reason, At: e.At}); err != nil {
				return err
			}
			if err := r.store.MovePlace(ctx, t, r.place, next); err != nil {
				return err
			}
			at = next
		}
	}
}
