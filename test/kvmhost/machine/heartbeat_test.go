package machine

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// link is a machine's heartbeat port: it counts beats and answers those that it is told to.
type link struct {
	beats   chan struct{}
	answers chan struct{}
}

func newLink() *link { return &link{beats: make(chan struct{}), answers: make(chan struct{})} }

func (l *link) Write(p []byte) (int, error) {
	l.beats <- struct{}{}
	return len(p), nil
}

func (l *link) Read(p []byte) (int, error) {
	if _, ok := <-l.answers; !ok {
		return 0, io.EOF
	}
	p[0] = '.'
	return 1, nil
}

// watched is a watch on a link, with ticks by hand.
type watched struct {
	*link
	ticks  chan time.Time
	alive  chan struct{}
	result chan error
	cancel context.CancelFunc
}

func startWatch(t *testing.T) *watched {
	w := &watched{link: newLink(), ticks: make(chan time.Time), alive: make(chan struct{}), result: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { w.result <- watch(ctx, w.link, w.ticks, func() { close(w.alive) }) }()
	return w
}

// beat lets one interval pass. It returns false when the watch has ended instead of sending a beat.
func (w *watched) beat() bool {
	w.ticks <- time.Time{}
	select {
	case <-w.beats:
		return true
	case err := <-w.result:
		w.result <- err
		return false
	}
}

func TestWatchSilenceAfterLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t)
		w.beat()
		w.answers <- struct{}{}
		<-w.alive
		synctest.Wait()
		sent := 0
		for w.beat() {
			sent++
		}
		if err := <-w.result; !errors.Is(err, errHung) || sent != liveBeats {
			t.Errorf("after %d beats: %v", sent, err)
		}
		close(w.answers)
	})
}

func TestWatchBootHasMorePatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t)
		sent := 0
		for w.beat() {
			sent++
		}
		if err := <-w.result; !errors.Is(err, errHung) || sent != bootBeats {
			t.Errorf("after %d beats: %v", sent, err)
		}
		close(w.answers)
	})
}

func TestWatchForgivesWhatIsAnsweredInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t)
		for range 3 {
			for range liveBeats - 1 {
				if !w.beat() {
					t.Fatal("it gave up on a machine that answers")
				}
			}
			w.answers <- struct{}{}
			synctest.Wait()
		}
		w.cancel()
		if err := <-w.result; err != nil {
			t.Errorf("err = %v", err)
		}
		close(w.answers)
	})
}

func TestWatchLeavesTheEndToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWatch(t)
		close(w.answers)
		if err := <-w.result; err != nil {
			t.Errorf("err = %v", err)
		}
	})
}
