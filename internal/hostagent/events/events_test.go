package events

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadersAtTheirOwnPace(t *testing.T) {
	l := New[int](4)
	start := l.Last()
	for i := range 3 {
		l.Add(i)
	}
	at := start
	for i := range 3 {
		e, err := l.Next(t.Context(), at)
		if err != nil || e.What != i || e.Gap || e.ID != start+1+uint64(i) {
			t.Fatalf("%+v, %v", e, err)
		}
		at = e.ID
	}
	for i := range 10 {
		l.Add(100 + i)
	}
	e, err := l.Next(t.Context(), at)
	if err != nil || !e.Gap || e.What != 106 {
		t.Errorf("a slow reader got %+v, %v", e, err)
	}
	if e, err = l.Next(t.Context(), e.ID); err != nil || e.Gap || e.What != 107 {
		t.Errorf("and then %+v, %v", e, err)
	}
	if e, err = l.Next(t.Context(), l.Last()+50); err != nil || !e.Gap {
		t.Errorf("an id of the future got %+v, %v", e, err)
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New[string](2)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if e, err := l.Next(t.Context(), l.Last()); err != nil || e.What != "x" {
					t.Errorf("%+v, %v", e, err)
				}
			})
		}
		synctest.Wait()
		l.Add("x")
		wg.Wait()
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		if _, err := l.Next(ctx, l.Last()); !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

// TestIDsRiseAcrossRestarts is why a cursor of an earlier program shows a gap and not silence.
func TestIDsRiseAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := New[int](2)
		for i := range 1000 {
			first.Add(i)
		}
		cursor := first.Last()
		time.Sleep(time.Second)
		second := New[int](2)
		if second.Last() <= cursor {
			t.Fatalf("%d after %d", second.Last(), cursor)
		}
		second.Add(7)
		if e, err := second.Next(t.Context(), cursor); err != nil || !e.Gap || e.What != 7 {
			t.Errorf("%+v, %v", e, err)
		}
	})
}
