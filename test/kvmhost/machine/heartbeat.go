package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A beat is sent every beatInterval. A machine that has never answered is given bootBeats of them, one that has answered
// liveBeats. They are counted, not timed: when this process itself is held up, no beat is sent and none is missed.
const (
	beatInterval = time.Second
	bootBeats    = 180
	liveBeats    = 60
)

// errHung is the end of a machine that no longer answers.
var errHung = errors.New("no sign of life")

// watch sends a byte into port at each tick and expects one back for it. It calls alive at the first answer. It returns
// errHung when too many beats were missed, and nil when ctx ends or the port does: that the machine ended is for others to
// find. The byte's interrupt also wakes a machine whose emulation has lost a timer interrupt.
func watch(ctx context.Context, port io.ReadWriter, ticks <-chan time.Time, alive func()) error {
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		buf := make([]byte, 256)
		for {
			if _, err := port.Read(buf); err != nil {
				return
			}
			select {
			case answers <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	missed, limit := 0, bootBeats
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-answers:
			if !ok {
				return nil
			}
			if limit == bootBeats {
				limit = liveBeats
				alive()
			}
			missed = 0
		case <-ticks:
			if missed >= limit {
				return fmt.Errorf("%w for %v", errHung, time.Duration(missed)*beatInterval)
			}
			missed++
			if _, err := port.Write([]byte{'.'}); err != nil {
				return nil
			}
		}
	}
}
