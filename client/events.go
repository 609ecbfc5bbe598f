package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"wrenn.dev/wrenn/client/internal/rest"
)

// maxEvent bounds one line of server-sent events, in bytes.
const maxEvent = 1 << 20

// silence is how long a stream of events may say nothing before it counts as broken: a server says something every quarter of a minute.
const silence = time.Minute

// eventTries is how often a stream of events is asked for again, before it comes further: that takes about a minute, which is longer than a
// server needs to be started again.
const eventTries = 15

// Event is a change of state of a sandbox.
type Event struct {
	ID        string // names the place after it among the events
	SandboxID string
	State     State
	Reason    string
	At        time.Time
}

// EventOptions choose events.
type EventOptions struct {
	Sandbox string // only those of one sandbox; empty is all
	// After is the ID of the last event that was read, to go on after it; empty begins with what happens from now on, and FromOldest with the
	// oldest that the server keeps.
	After string
	// NoFollow ends with the last event that there is now.
	NoFollow bool
}

// FromOldest is before all events.
const FromOldest = "0.0"

// Events goes through the changes of state as they happen, until the loop is left or ctx ends; that, or what else went wrong, is an error
// in the last pair. When the connection breaks, or the server is restarted, it goes on after the last event, so that none is missed; it
// gives up after about a minute.
func (c *Client) Events(ctx context.Context, o EventOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		params := rest.StreamEventsParams{Sandbox: given(o.Sandbox), LastEventID: given(o.After)}
		most := eventTries
		if c.send.retries == 0 {
			most = 0
		}
		if o.NoFollow {
			params.Until = new(rest.UntilNow)
		}
		for try := 0; ; try++ {
			err := c.followEvents(ctx, &params, func(e Event) bool {
				try = 0 // it came further
				return yield(e, nil)
			})
			if err == nil || o.NoFollow && errors.Is(err, errComplete) {
				return
			}
			if !errors.Is(err, ErrUnavailable) || try >= most || !pause(ctx, try, err) {
				if cause := context.Cause(ctx); cause != nil {
					err = cause
				}
				yield(Event{}, err)
				return
			}
		}
	}
}

// followEvents reads one stream of events, and leaves in params where another goes on. It returns nil when more wants no more.
func (c *Client) followEvents(ctx context.Context, params *rest.StreamEventsParams, more func(Event) bool) error {
	in, err := c.messages(ctx, unsent, func(ctx context.Context) (*http.Response, error) { return c.rest.StreamEvents(ctx, params) })
	if err != nil {
		return err
	}
	defer in.close()
	for {
		m, err := in.next()
		if err != nil {
			return err
		}
		params.LastEventID = given(m.id)
		if m.data == nil {
			continue
		}
		event, err := toEvent(m)
		if err != nil {
			return err
		}
		if !more(event) {
			return nil
		}
	}
}

func toEvent(m message) (Event, error) {
	var e rest.Event
	if err := json.Unmarshal(m.data, &e); err != nil {
		return Event{}, fmt.Errorf("the server sent the event %.200q: %w: %w", m.data, err, ErrInternal)
	}
	return Event{ID: m.id, SandboxID: e.SandboxID, State: State(e.State), Reason: e.Reason, At: e.At}, nil
}

// message is one server-sent event; without data it only tells a place.
type message struct {
	id, kind string
	data     []byte
}

// errComplete is that a stream of events ended as a stream should. One that goes on for ever was cut off all the same.
var errComplete = fmt.Errorf("%w: the server has ended the stream", ErrUnavailable)

// messages are server-sent events as they come.
type messages struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	body   io.Closer
	lines  *bufio.Scanner
	quiet  *time.Timer
	id     string
}

// messages opens a stream of them.
func (c *Client) messages(ctx context.Context, opening safe, open func(context.Context) (*http.Response, error)) (*messages, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := open(sent(ctx, manner{stream: true, safe: opening}))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	m := &messages{ctx: ctx, cancel: cancel, body: resp.Body, lines: bufio.NewScanner(resp.Body)}
	m.lines.Buffer(nil, maxEvent)
	m.quiet = time.AfterFunc(silence, func() { cancel(fmt.Errorf("%w: the server says nothing any more", ErrUnavailable)) })
	return m, nil
}

func (s *messages) close() {
	s.quiet.Stop()
	s.cancel(nil)
	_ = s.body.Close() // nothing more is wanted of it
}

// next is the next message. A stream that breaks off or ends is ErrUnavailable.
func (s *messages) next() (message, error) {
	defer s.quiet.Stop() // what the reader does with it may take its time
	m := message{id: s.id}
	told := false
	for s.quiet.Reset(silence); s.lines.Scan(); s.quiet.Reset(silence) {
		line := s.lines.Bytes()
		if len(line) == 0 { // the end of a message
			if told {
				s.id = m.id
				return m, nil
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			m.id, told = string(value), true
		case "event":
			m.kind, told = string(value), true
		case "data":
			if m.data != nil {
				m.data = append(m.data, '\n')
			}
			if m.data, told = append(m.data, value...), true; len(m.data) > maxEvent {
				return m, fmt.Errorf("the server sent an event of more than %d bytes: %w", maxEvent, ErrInternal)
			}
		}
	}
	if cause := context.Cause(s.ctx); cause != nil {
		return m, cause
	}
	switch err := s.lines.Err(); {
	case err == nil:
		return m, errComplete
	case errors.Is(err, bufio.ErrTooLong):
		return m, fmt.Errorf("the server sent a line of more than %d bytes: %w", maxEvent, ErrInternal)
	default:
		return m, fmt.Errorf("%w: the stream broke off: %w", ErrUnavailable, err)
	}
}
