package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"connectrpc.com/connect"

	filesystempb "wrenn.dev/wrenn/proto/envd/filesystem"
)

// Change is what happened to an entry of a folder that is watched.
type Change int

// The changes. An entry that gets another name is Renamed under the old one and Created under the new one.
const (
	Created Change = iota + 1
	Written
	Removed
	Renamed
	Chmodded
)

// Event is a change in a folder that is watched. Name is relative to the folder and the guest's, made fit to be shown; "." is the folder.
type Event struct {
	Name   string
	Change Change
}

// Watch is a folder that is watched. Its methods are for one goroutine, but Close.
type Watch struct {
	stream   *connect.ServerStreamForClient[filesystempb.WatchDirResponse]
	ctx      context.Context
	cancel   context.CancelCauseFunc
	watchdog *time.Timer
}

// Watch watches a folder, with all that are below it if recursive: when it returns, the guest tells what happens from then on. It lasts
// until Close, the end of ctx, or the guest's end; the caller calls Close.
func (f *Files) Watch(ctx context.Context, path string, recursive bool) (*Watch, error) {
	if err := f.check(path); err != nil {
		return nil, err
	}
	w := &Watch{}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.watchdog = time.AfterFunc(silence, func() { w.cancel(broken(fmt.Errorf("envd was silent for %v", silence))) })
	req := ask(f, &filesystempb.WatchDirRequest{Path: path, Recursive: recursive})
	req.Header().Set("Keepalive-Ping-Interval", keepaliveHeader())
	var err error
	if w.stream, err = f.rpc.WatchDir(w.ctx, req); err == nil {
		if !w.stream.Receive() {
			err = w.stream.Err()
			if err == nil {
				err = unsound("the stream ended before its start")
			}
		} else if w.stream.Msg().GetStart() == nil {
			err = unsound("an event before the start")
		}
	}
	if err != nil {
		err = w.why(err)
		w.Close()
		return nil, err
	}
	w.watchdog.Reset(silence)
	return w, nil
}

// errClosed is the cause of a watch's end that its caller wanted.
var errClosed = errors.New("the watch was closed")

// Close ends the watch.
func (w *Watch) Close() {
	w.watchdog.Stop()
	w.cancel(errClosed)
}

// Events tells what happens, as it comes. It ends without an error when the watch is closed, and otherwise with one: ErrNotFound when the
// folder was removed or moved, ErrResourceExhausted when changes were lost, the cause of ctx, ErrUnavailable when the guest is gone.
// Who stops it early closes the watch.
func (w *Watch) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		defer func() { _ = w.stream.Close() }() // what it says is known by then
		defer w.Close()
		for w.stream.Receive() {
			w.watchdog.Stop() // the caller may take its time
			e, some, err := change(w.stream.Msg())
			if err != nil {
				yield(Event{}, err)
				return
			}
			if some && !yield(e, nil) {
				return
			}
			w.watchdog.Reset(silence)
		}
		err := w.stream.Err()
		if err == nil {
			err = unsound("the stream ended without a reason")
		}
		if err = w.why(err); err != errClosed {
			yield(Event{}, err)
		}
	}
}

// why is the reason of the stream's end: this side's, if it has one.
func (w *Watch) why(err error) error {
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	var known *guestError
	if errors.As(err, &known) {
		return err
	}
	return broken(err)
}

var changes = map[filesystempb.EventType]Change{
	filesystempb.EventType_EVENT_TYPE_CREATE: Created, filesystempb.EventType_EVENT_TYPE_WRITE: Written,
	filesystempb.EventType_EVENT_TYPE_REMOVE: Removed, filesystempb.EventType_EVENT_TYPE_RENAME: Renamed, filesystempb.EventType_EVENT_TYPE_CHMOD: Chmodded,
}

// change reads a message of the stream; a keepalive has no event.
func change(m *filesystempb.WatchDirResponse) (e Event, some bool, err error) {
	switch {
	case m.GetKeepalive() != nil:
		return Event{}, false, nil
	case m.GetFilesystem() == nil:
		return Event{}, false, unsound("no event")
	}
	name, what := m.GetFilesystem().GetName(), changes[m.GetFilesystem().GetType()]
	if name == "" || strings.HasPrefix(name, "/") || what == 0 {
		return Event{}, false, unsound("the event %d of %.100q", m.GetFilesystem().GetType(), name)
	}
	return Event{Name: cleanPath(name), Change: what}, true, nil
}

// String is the change in one word.
func (c Change) String() string {
	if c < Created || c > Chmodded {
		return fmt.Sprintf("change %d", int(c))
	}
	return [...]string{"created", "written", "removed", "renamed", "chmodded"}[c-1]
}
