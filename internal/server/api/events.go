package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
)

const (
	// quiet is how long a stream says nothing before it shows both sides that it is there.
	quiet = 15 * time.Second
	// eventsAtOnce is how many events are read at once.
	eventsAtOnce = 500
)

// StreamEvents implements rest.StrictServerInterface.
func (s *server) StreamEvents(ctx context.Context, r rest.StreamEventsRequestObject) (rest.StreamEventsResponseObject, error) {
	place, err := s.Store.Now(ctx)
	if last := or(r.Params.LastEventID, ""); last != "" && err == nil {
		if place, err = store.ParsePlace(last); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	return events{ctx, s, or(r.Params.Sandbox, ""), r.Params.Until == nil, place}, nil
}

// events are an answer that goes on until the caller leaves or the server stops; or until there are no more, of one that does not follow.
type events struct {
	ctx     context.Context
	s       *server
	sandbox string
	follow  bool
	place   store.Place
}

// VisitStreamEventsResponse implements rest.StreamEventsResponseObject.
func (e events) VisitStreamEventsResponse(w http.ResponseWriter) error {
	if headOnly(e.ctx, w, "text/event-stream") {
		return nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	flush, patience := http.NewResponseController(w).Flush, quiet
	if !e.follow {
		patience = 0
	}
	if err := e.mark(w); err != nil {
		return err
	}
	for {
		if err := flush(); err != nil {
			return err
		}
		list, err := e.s.Store.Next(e.ctx, team(e.ctx), e.sandbox, e.place, eventsAtOnce, patience)
		if err != nil {
			return err
		}
		if len(list) == 0 && !e.follow {
			return nil
		}
		if len(list) == 0 {
			if err := e.mark(w); err != nil {
				return err
			}
		}
		for _, event := range list {
			data, err := json.Marshal(rest.Event{SandboxID: event.SandboxID, State: rest.State(event.State), Reason: event.Reason, At: event.At.UTC()})
			if err != nil {
				return err
			}
			e.place = store.PlaceOf(event)
			if _, err := fmt.Fprintf(w, "id: %s\nevent: state\ndata: %s\n\n", e.place, data); err != nil {
				return err
			}
		}
	}
}

// mark tells the reader its place without an event: one that comes back before the first event has missed nothing, too.
func (e events) mark(w io.Writer) error {
	_, err := fmt.Fprintf(w, "id: %s\n\n", e.place)
	return err
}
