package process

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

const (
	// chunkBytes is the most that is read from a process at once.
	chunkBytes = 32 << 10
	// queueChunks is how many chunks a subscription holds for its reader: with chunkBytes, 256 KiB.
	queueChunks = 8
)

// Stream says where output was written to.
type Stream int

// The streams of a process: two pipes, or one terminal.
const (
	Stdout Stream = iota
	Stderr
	Terminal
)

// String names the stream.
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return "terminal"
}

// Chunk is a piece of output. Its data is shared between subscriptions and never changed.
type Chunk struct {
	Stream Stream
	Data   []byte
}

// Subscription follows a process. Its reader receives from C until it is closed, and calls Close when it stops before.
type Subscription struct {
	pid     int
	hub     *hub
	queue   chan Chunk
	dropped chan struct{} // closed when the hub gives the reader up
	closed  chan struct{} // closed by Close
	once    sync.Once
	exit    Exit // written before queue is closed, read after
}

// PID is the process's.
func (s *Subscription) PID() int { return s.pid }

// C gives the output. It is closed when the process has ended and all was received.
func (s *Subscription) C() <-chan Chunk { return s.queue }

// Dropped is closed when the reader was so slow, for so long, that it held up another: what follows is lost to it.
func (s *Subscription) Dropped() <-chan struct{} { return s.dropped }

// Exit is how the process ended.
// Preconditions: C is closed.
func (s *Subscription) Exit() Exit { return s.exit }

// Close ends the subscription; the process lives on. It is idempotent.
func (s *Subscription) Close() {
	s.once.Do(func() {
		close(s.closed)
		if s.hub != nil {
			s.hub.remove(s)
		}
	})
}

// full says whether the reader has all that it may hold.
func (s *Subscription) full() bool { return len(s.queue) == cap(s.queue) }

// hub passes one process's output to its subscriptions.
type hub struct {
	pid      int
	stall    time.Duration
	maxSubs  int
	mu       sync.Mutex
	subs     map[*Subscription]struct{}
	finished bool
	exit     Exit
}

func newHub(pid int, limits Limits) *hub {
	return &hub{pid: pid, stall: limits.Stall, maxSubs: limits.Subscriptions, subs: map[*Subscription]struct{}{}}
}

// subscribe adds a subscription. One that comes after the end finds C closed.
func (h *hub) subscribe() (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.finished {
		return ended(h.pid, h.exit), nil
	}
	if len(h.subs) >= h.maxSubs {
		return nil, fault.New(errs.ErrResourceExhausted, "process %d is followed %d times already", h.pid, h.maxSubs)
	}
	s := &Subscription{pid: h.pid, hub: h, queue: make(chan Chunk, queueChunks),
		dropped: make(chan struct{}), closed: make(chan struct{})}
	h.subs[s] = struct{}{}
	return s, nil
}

// ended is a subscription to a process that is gone.
func ended(pid int, exit Exit) *Subscription {
	s := &Subscription{pid: pid, queue: make(chan Chunk), dropped: make(chan struct{}), closed: make(chan struct{}), exit: exit}
	close(s.queue)
	return s
}

func (h *hub) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *hub) drop(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.subs[s]; ok {
		delete(h.subs, s)
		close(s.dropped)
	}
}

func (h *hub) list() []*Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.subs))
}

// publish gives a copy of data to every subscription and waits while one has no room, until it has, is closed, or is dropped,
// or ctx ends.
func (h *hub) publish(ctx context.Context, stream Stream, data []byte) {
	subs := h.list()
	if len(subs) == 0 {
		return
	}
	c := Chunk{Stream: stream, Data: bytes.Clone(data)}
	var waiting []*Subscription
	for _, s := range subs {
		select {
		case s.queue <- c:
		default:
			waiting = append(waiting, s)
		}
	}
	for _, s := range waiting {
		h.await(ctx, s, c)
	}
}

// await gives a chunk to a subscription that has no room now.
func (h *hub) await(ctx context.Context, s *Subscription, c Chunk) {
	stalled := time.NewTicker(h.stall)
	defer stalled.Stop()
	for {
		select {
		case s.queue <- c:
			return
		case <-s.closed:
			return
		case <-ctx.Done():
			return
		case <-stalled.C:
			if slices.ContainsFunc(h.list(), func(other *Subscription) bool { return other != s && !other.full() }) {
				h.drop(s)
				return
			}
		}
	}
}

// finish closes every subscription.
// Preconditions: nobody publishes any more.
func (h *hub) finish(exit Exit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished, h.exit = true, exit
	for s := range h.subs {
		s.exit = exit
		close(s.queue)
	}
	clear(h.subs)
}
