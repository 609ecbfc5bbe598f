package auth

import (
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

// maxIdle is how many buckets there are before those that are full, and so say nothing, are thrown away.
const maxIdle = 4096

// rates are the token buckets of teams and keys that have a limit of requests. They are in memory, and each server has its own: in the database they
// would cost a write for each request, which is what a limit is to save. So with two servers side by side a caller gets up to twice as much.
type rates struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[string]*rate.Limiter // by the id of the team or the key
}

func newRates(now func() time.Time) *rates {
	return &rates{now: now, buckets: map[string]*rate.Limiter{}}
}

// owner is whose bucket it is, and how large.
type owner struct {
	what, id string
	limits   store.Limits
}

// take takes a token of each bucket, or of none: then the error is an ErrResourceExhausted with the time after which there is one in all, unless
// another request is faster.
func (r *rates) take(owners ...owner) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.forget(now)
	var short error
	var longest time.Duration
	for _, o := range owners {
		b := r.bucket(now, o)
		if b == nil || b.TokensAt(now) >= 1 {
			continue
		}
		wait := time.Duration(math.Ceil((1 - b.TokensAt(now)) / float64(b.Limit()) * float64(time.Second)))
		if wait >= longest {
			longest = wait
			short = fmt.Errorf("the %s may ask %d times a second: %w", o.what, *o.limits.PerSecond, errs.ErrResourceExhausted)
		}
	}
	if short != nil {
		return errs.After(longest, short)
	}
	for _, o := range owners {
		if b := r.bucket(now, o); b != nil {
			b.AllowN(now, 1)
		}
	}
	return nil
}

// bucket is an owner's, nil when it has no limit. A limit that has changed holds from now on.
func (r *rates) bucket(now time.Time, o owner) *rate.Limiter {
	if o.limits.PerSecond == nil {
		return nil
	}
	burst := *o.limits.PerSecond
	if o.limits.Burst != nil {
		burst = *o.limits.Burst
	}
	most := rate.Limit(*o.limits.PerSecond)
	b := r.buckets[o.id]
	switch {
	case b == nil:
		b = rate.NewLimiter(most, int(burst))
		r.buckets[o.id] = b
	case b.Limit() != most || b.Burst() != int(burst):
		b.SetLimitAt(now, most)
		b.SetBurstAt(now, int(burst))
	}
	return b
}

// forget throws full buckets away when there are many.
func (r *rates) forget(now time.Time) {
	if len(r.buckets) < maxIdle {
		return
	}
	for id, b := range r.buckets {
		if b.TokensAt(now) >= float64(b.Burst()) {
			delete(r.buckets, id)
		}
	}
}
