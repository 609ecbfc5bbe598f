// Package schedule shares a queue of work among hosts that may be lost: each host takes the next item when it is done with
// one. An item whose host was lost under it is run again on a new host, a bounded number of times in all. Nothing is run again
// for any other reason.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// MaxRepeats is how many items are run again in a whole run.
const MaxRepeats = 2

// ErrLost is wrapped by the error of Host.Do when the host was lost under the item.
var ErrLost = errors.New("the host was lost")

// Host does items, one at a time.
type Host[Item, Result any] interface {
	// Do does one item. The error wraps ErrLost when the host ended before the item did; any other error is the item's own.
	Do(ctx context.Context, item Item) (Result, error)
	Close() error
}

// Outcome is how an item ended.
type Outcome[Item, Result any] struct {
	Item   Item
	Result Result
	Err    error // Do's last error; ctx's when there was no time for the item; Boot's when there was no host

	Host  int // which host did it last, from 0
	Time  time.Duration
	Again int // how often it was run again
}

// Queue is a run.
type Queue[Item, Result any] struct {
	Items []Item
	Hosts int // how many hosts at most

	// Boot makes host number n. It is called when there is work for it: at the start and after a loss. Its error wraps ErrLost
	// when the host ended before it was up.
	Boot func(ctx context.Context, n int) (Host[Item, Result], error)

	// OnLoss, when set, is told of each lost host at once.
	OnLoss func(item Item, err error, again bool)
}

// Run runs the queue to its end and returns an outcome for each item, in the items' order. Every host is closed.
func (q *Queue[Item, Result]) Run(ctx context.Context) []Outcome[Item, Result] {
	r := &run[Item, Result]{Queue: q, outcomes: make([]Outcome[Item, Result], len(q.Items))}
	for i, item := range q.Items {
		r.outcomes[i].Item = item
		r.waiting = append(r.waiting, i)
	}
	var wg sync.WaitGroup
	for n := range max(1, min(q.Hosts, len(q.Items))) {
		wg.Go(func() { r.work(ctx, n) })
	}
	wg.Wait()
	return r.outcomes
}

// run is the state of a run.
type run[Item, Result any] struct {
	*Queue[Item, Result]

	mu       sync.Mutex
	waiting  []int // indices of items
	repeats  int
	outcomes []Outcome[Item, Result]
}

// work does items on host number n, and on its successors, until none are left.
func (r *run[Item, Result]) work(ctx context.Context, n int) {
	var host Host[Item, Result]
	defer func() {
		if host != nil {
			_ = host.Close()
		}
	}()
	for {
		i, ok := r.next()
		if !ok {
			return
		}
		o := &r.outcomes[i] // this worker's alone while it has the item
		o.Host = n
		if o.Err = ctx.Err(); o.Err != nil {
			continue
		}
		if host == nil {
			booted, err := r.Boot(ctx, n)
			if err != nil {
				o.Err = fmt.Errorf("boot a host for it: %w", err)
				r.lost(i)
				continue
			}
			host = booted
		}
		if lost := r.do(ctx, host, i); lost {
			_ = host.Close()
			host = nil
		}
	}
}

// do does an item on a host and says whether that was lost.
func (r *run[Item, Result]) do(ctx context.Context, host Host[Item, Result], i int) (lost bool) {
	o := &r.outcomes[i]
	began := time.Now()
	o.Result, o.Err = host.Do(ctx, o.Item)
	o.Time = time.Since(began)
	return r.lost(i)
}

// lost says whether an item ended with the loss of its host. If so the item waits again, if that may be.
func (r *run[Item, Result]) lost(i int) bool {
	item, err := r.outcomes[i].Item, r.outcomes[i].Err
	if !errors.Is(err, ErrLost) {
		return false
	}
	again := r.repeat(i) // from here on another worker may have the item
	if r.OnLoss != nil {
		r.OnLoss(item, err, again)
	}
	return true
}

// repeat puts an item back as the next one, unless too many were already.
func (r *run[Item, Result]) repeat(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.repeats == MaxRepeats {
		return false
	}
	r.repeats++
	r.outcomes[i].Again++
	r.waiting = append([]int{i}, r.waiting...)
	return true
}

func (r *run[Item, Result]) next() (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		return 0, false
	}
	i := r.waiting[0]
	r.waiting = r.waiting[1:]
	return i, true
}
