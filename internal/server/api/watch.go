package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

var fileChanges = map[pb.FileChange]rest.FileChangeType{
	pb.FileChange_FILE_CHANGE_CREATED: rest.FileCreated, pb.FileChange_FILE_CHANGE_WRITTEN: rest.FileWritten,
	pb.FileChange_FILE_CHANGE_REMOVED: rest.FileRemoved, pb.FileChange_FILE_CHANGE_RENAMED: rest.FileRenamed,
	pb.FileChange_FILE_CHANGE_CHMODDED: rest.FileChmodded,
}

// WatchFiles implements rest.StrictServerInterface.
func (s *server) WatchFiles(ctx context.Context, r rest.WatchFilesRequestObject) (rest.WatchFilesResponseObject, error) {
	sb, err := s.Control.Running(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	return watch{ctx, sb, &pb.WatchFilesRequest{Path: r.Params.Path, User: or(r.Params.User, ""), Recursive: or(r.Params.Recursive, false)}}, nil
}

// watch is an answer that tells of a folder until it is gone, its sandbox runs no more, or the caller leaves. It begins when the guest has begun
// to tell: what fails before is an error like any other.
type watch struct {
	ctx context.Context
	sb  *control.Running
	req *pb.WatchFilesRequest
}

// VisitWatchFilesResponse implements rest.WatchFilesResponseObject.
func (a watch) VisitWatchFilesResponse(w http.ResponseWriter) error {
	if headOnly(a.ctx, w, "text/event-stream") {
		return nil
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	e := &eventStream{w: w}
	var alive sync.WaitGroup
	begun := false
	err := a.sb.WatchFiles(ctx, a.req, func() {
		begun = true
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		if err := e.send("event: watching\ndata: {}\n\n"); err != nil {
			cancel(err)
		}
		alive.Go(func() { e.keepAlive(ctx, cancel) })
	}, func(c *pb.WatchFilesResponse_Changed) error {
		return e.event("change", rest.FileChange{Type: fileChanges[c.GetChange()], Name: c.GetName()})
	})
	cancel(nil)
	alive.Wait()
	if !begun || a.ctx.Err() != nil {
		return err
	}
	_, told := toError(requestID(ctx), err)
	return e.event("error", told)
}

// eventStream is an answer of server-sent events. Several goroutines may send.
type eventStream struct {
	mu sync.Mutex
	w  http.ResponseWriter
}

func (e *eventStream) send(text string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return http.NewResponseController(e.w).Flush()
}

func (e *eventStream) event(kind string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.send(fmt.Sprintf("event: %s\ndata: %s\n\n", kind, data))
}

// keepAlive shows both sides now and then that the other one is there.
func (e *eventStream) keepAlive(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := e.send(": alive\n\n"); err != nil {
			cancel(err)
			return
		}
	}
}
