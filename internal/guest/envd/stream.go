package envd

import (
	"context"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
	"wrenn.dev/wrenn/internal/guest/envd/process"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

// stream sends what happens to a process to one client.
type stream struct {
	sub     *process.Subscription
	send    func(*processpb.ProcessEvent) error
	silence time.Duration // how long before a keepalive is due
}

// run sends the start, the output and the keepalives until the output ends, and returns how the process ended. It leaves the last
// word to its caller. It fails when the client is gone, too slow for others, or done ends.
func (s *stream) run(done <-chan struct{}) (process.Exit, error) {
	if err := s.send(startEvent(s.sub.PID())); err != nil {
		return process.Exit{}, err
	}
	silent := time.NewTicker(s.silence)
	defer silent.Stop()
	for {
		var event *processpb.ProcessEvent
		select {
		case chunk, ok := <-s.sub.C():
			if !ok {
				return s.sub.Exit(), nil
			}
			event = dataEvent(chunk)
		case <-silent.C:
			event = keepaliveEvent()
		case <-s.sub.Dropped():
			return process.Exit{}, fault.New(errs.ErrResourceExhausted, "output was not taken for so long that others had to wait")
		case <-done:
			return process.Exit{}, context.Canceled
		}
		if err := s.send(event); err != nil {
			return process.Exit{}, err
		}
		silent.Reset(s.silence)
	}
}

// abandoned is closed when the client goes away, but not when the request's deadline comes: then the process is killed, and what it
// wrote before is still sent. stop releases it.
func abandoned(ctx context.Context) (done <-chan struct{}, stop func()) {
	gone := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		if ctx.Err() != context.DeadlineExceeded {
			close(gone)
		}
	})
	return gone, func() { cancel() }
}
