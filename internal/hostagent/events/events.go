// Package events keeps the last events of a host, for any number of readers at their own pace.
//
// There is one buffer, of a fixed size, and no queue for each reader: a reader has a place in the buffer and takes what comes after it.
// Nobody who tells of an event ever waits, and a reader that is too slow learns that it missed some.
//
// It is a leaf package.
package events

import (
	"context"
	"sync"
	"time"
)

// Event is something that happened, with its place in the order of all.
type Event[T any] struct {
	ID   uint64
	What T
	// Gap says that events before this one are missing: the reader was too slow, or asked for what is kept no longer.
	Gap bool
}

// Log is the buffer. Make one by New.
type Log[T any] struct {
	mu    sync.Mutex
	ring  []T
	first uint64        // the id of the oldest that is kept
	next  uint64        // the id of the next one
	more  chan struct{} // closed and made anew when there is one
}

// New returns a log that keeps the last size events. Ids begin with the time, in microseconds, so that they rise across restarts of the
// program as well: no host has a million events a second for long.
func New[T any](size int) *Log[T] {
	start := uint64(time.Now().UnixMicro())
	return &Log[T]{ring: make([]T, size), first: start, next: start, more: make(chan struct{})}
}

// Add tells of an event.
func (l *Log[T]) Add(what T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring[l.next%uint64(len(l.ring))] = what
	l.next++
	if l.next-l.first > uint64(len(l.ring)) {
		l.first = l.next - uint64(len(l.ring))
	}
	close(l.more)
	l.more = make(chan struct{})
}

// Last is the id of the newest event. Next begins after it.
func (l *Log[T]) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next - 1
}

// Next returns the first event after the one with the id, and waits until there is one. An id that is none of this log's gives
// the oldest that is kept, with Gap. It fails with the context's cause.
func (l *Log[T]) Next(ctx context.Context, after uint64) (Event[T], error) {
	for {
		e, ok, more := l.look(after)
		if ok {
			return e, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return Event[T]{}, context.Cause(ctx)
		}
	}
}

func (l *Log[T]) look(after uint64) (e Event[T], ok bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := after + 1
	gap := at < l.first || at > l.next
	if gap {
		at = l.first
	}
	if at == l.next {
		return e, false, l.more
	}
	return Event[T]{ID: at, What: l.ring[at%uint64(len(l.ring))], Gap: gap}, true, nil
}
