package auth

import (
	"errors"
	"slices"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/store"
)

func limit(perSecond, burst int32) store.Limits {
	l := store.Limits{PerSecond: &perSecond}
	if burst > 0 {
		l.Burst = &burst
	}
	return l
}

// TestRetryAfterIsTrue: after the time that it names, and not before, a request passes.
func TestRetryAfterIsTrue(t *testing.T) {
	now := time.Now()
	r := newRates(func() time.Time { return now })
	team, key := owner{"team", "tm", limit(2, 3)}, owner{"API key", "ky", limit(10, 0)}
	for range 3 {
		if err := r.take(team, key); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		err := r.take(team, key)
		wait, known := errs.Wait(err)
		if !errors.Is(err, errs.ErrResourceExhausted) || !known || wait <= 0 || wait > 500*time.Millisecond {
			t.Fatalf("%v after %v", err, wait)
		}
		now = now.Add(wait - time.Millisecond)
		if r.take(team, key) == nil {
			t.Fatal("it passes before")
		}
		now = now.Add(time.Millisecond)
		if err := r.take(team, key); err != nil {
			t.Fatal("it does not pass after: ", err)
		}
	}
}

// TestWhatIsTurnedAwayTakesNothing: a key over its own limit does not eat its team's.
func TestWhatIsTurnedAwayTakesNothing(t *testing.T) {
	now := time.Now()
	r := newRates(func() time.Time { return now })
	team, greedy, other := owner{"team", "tm", limit(10, 0)}, owner{"API key", "ky", limit(1, 0)}, owner{"API key", "kz", store.Limits{}}
	passed := 0
	for range 100 {
		if r.take(team, greedy) == nil {
			passed++
		}
	}
	for range 20 {
		if r.take(team, other) == nil {
			passed++
		}
	}
	if passed != 10 {
		t.Errorf("%d passed, want the team's 10", passed)
	}
	if r.take(owner{"team", "free", store.Limits{}}, other) != nil {
		t.Error("one without a limit was turned away")
	}
	wider := owner{"team", "tm", limit(100, 0)}
	now = now.Add(100 * time.Millisecond)
	if r.take(wider, other) != nil {
		t.Error("a limit that has changed does not hold")
	}
}

func TestFullBucketsAreForgotten(t *testing.T) {
	now := time.Now()
	r := newRates(func() time.Time { return now })
	for i := range 2 * maxIdle {
		if err := r.take(owner{"team", time.Duration(i).String(), limit(1, 0)}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	if len(r.buckets) > maxIdle {
		t.Errorf("%d are kept", len(r.buckets))
	}
}

func TestRoles(t *testing.T) {
	for name, scopes := range Roles {
		if got := RoleOf(scopes); got != name {
			t.Errorf("%v is %q, want %q", scopes, got, name)
		}
		if err := checkScopes(scopes); err != nil {
			t.Error(err)
		}
	}
	if got := RoleOf([]string{Write}); got != "" {
		t.Errorf("write alone is %q", got)
	}
	if !slices.Equal(Roles["operator"], Scopes) {
		t.Error("an operator has not every scope")
	}
}
