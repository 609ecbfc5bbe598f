package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/lease"
	"wrenn.dev/wrenn/internal/server/store"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), postgrestest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func config(ttl time.Duration) lease.Config {
	return lease.Config{Name: "work", TTL: ttl, Log: slog.New(slog.DiscardHandler)}
}

// run runs work under the lease until stop or the test ends it.
func run(t *testing.T, s lease.Store, c lease.Config, work lease.Work) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { lease.Run(ctx, s, c, work) })
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return stop
}

// TestOneHolderAtATime has servers, which come and go, do work that must never be done twice at once.
func TestOneHolderAtATime(t *testing.T) {
	s := open(t)
	var at, most atomic.Int64
	began := make(chan store.Term, 100)
	work := func(ctx context.Context, term store.Term) error {
		if n := at.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer at.Add(-1)
		began <- term
		<-ctx.Done()
		return nil
	}
	var last store.Term
	for range 2 {
		stop := run(t, s, config(300*time.Millisecond), work)
		term := <-began // the first at once; each other when the one before it is stopped
		if term.Number <= last.Number || term.Holder == last.Holder {
			t.Errorf("%v after %v", term, last)
		}
		last = term
		next := run(t, s, config(300*time.Millisecond), work)
		select {
		case term := <-began:
			t.Errorf("%v began beside %v", term, last)
		case <-time.After(500 * time.Millisecond): // longer than the lease: it is renewed
		}
		stop()
		last = <-began // the other one
		next()
	}
	if most.Load() != 1 {
		t.Errorf("%d worked at once", most.Load())
	}
}

// cutOff is a store that can't be reached while it is told so.
type cutOff struct {
	lease.Store
	down atomic.Bool
}

func (c *cutOff) RenewLease(ctx context.Context, t store.Term, ttl time.Duration) error {
	if c.down.Load() {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return c.Store.RenewLease(ctx, t, ttl)
}

func (c *cutOff) GiveLeaseBack(ctx context.Context, t store.Term) error {
	if c.down.Load() {
		return errors.New("cut off")
	}
	return c.Store.GiveLeaseBack(ctx, t)
}

func (c *cutOff) TakeLease(ctx context.Context, name, holder string, ttl time.Duration) (store.Term, bool, error) {
	if c.down.Load() {
		return store.Term{}, false, errors.New("cut off")
	}
	return c.Store.TakeLease(ctx, name, holder, ttl)
}

// TestAHolderThatIsCutOffStops: its context ends before the next one's work begins, and what it writes after that is refused.
func TestAHolderThatIsCutOffStops(t *testing.T) {
	s := open(t)
	first := &cutOff{Store: s}
	ended, term := make(chan error, 1), make(chan store.Term, 1)
	run(t, first, config(2*time.Second), func(ctx context.Context, mine store.Term) error {
		if _, err := s.QueueDeliveries(ctx, mine, 1); err != nil {
			t.Error(err)
		}
		term <- mine
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil
	})
	mine := <-term
	first.down.Store(true)
	second := make(chan store.Term, 1)
	run(t, s, config(time.Second), func(ctx context.Context, t store.Term) error {
		second <- t
		<-ctx.Done()
		return nil
	})
	theirs := <-second
	select {
	case err := <-ended:
		if !errors.Is(err, store.ErrLeaseLost) {
			t.Error(err)
		}
	default:
		t.Error("the second began before the first was stopped")
	}
	if theirs.Number != mine.Number+1 {
		t.Errorf("%v after %v", theirs, mine)
	}
	if _, err := s.QueueDeliveries(t.Context(), mine, 1); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("the first wrote: %v", err)
	}
	if err := s.RenewLease(t.Context(), mine, time.Second); !errors.Is(err, store.ErrLeaseLost) {
		t.Errorf("the first renewed: %v", err)
	}
	if err := s.GiveLeaseBack(t.Context(), mine); err != nil {
		t.Error(err)
	}
	if _, err := s.QueueDeliveries(t.Context(), theirs, 1); err != nil {
		t.Errorf("the first took the second's lease away: %v", err)
	}
}

// TestAnEndedLeaseIsNobodys: a holder that stood still past its end may not go on, even if nobody has taken its place.
func TestAnEndedLeaseIsNobodys(t *testing.T) {
	s := open(t)
	term, ok, err := s.TakeLease(t.Context(), "work", "one", 50*time.Millisecond)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if _, ok, err := s.TakeLease(t.Context(), "work", "two", time.Second); ok || err != nil {
		t.Error(ok, err)
	}
	if _, ok, err := s.TakeLease(t.Context(), "work", "one", time.Second); ok || err != nil {
		t.Errorf("it was taken twice by one: %v", err)
	}
	time.Sleep(60 * time.Millisecond)
	if _, err := s.QueueDeliveries(t.Context(), term, 1); !errors.Is(err, store.ErrLeaseLost) {
		t.Error(err)
	}
	if err := s.RenewLease(t.Context(), term, time.Second); !errors.Is(err, store.ErrLeaseLost) {
		t.Error(err)
	}
	if next, ok, err := s.TakeLease(t.Context(), "work", "one", time.Second); !ok || err != nil || next.Number != term.Number+1 {
		t.Error(next, ok, err)
	}
}

// TestWorkThatFailsIsBegunAgain, also when it panics.
func TestWorkThatFailsIsBegunAgain(t *testing.T) {
	s := open(t)
	c := config(time.Second)
	var held []bool
	c.Held = func(on bool) { held = append(held, on) }
	n := 0
	done := make(chan struct{})
	stop := run(t, s, c, func(context.Context, store.Term) error {
		n++
		switch n {
		case 1:
			panic("a mistake")
		case 2:
			close(done)
		}
		return nil
	})
	<-done
	stop()
	if n < 2 || len(held) < 4 || !held[0] || held[1] {
		t.Error(n, held)
	}
}
