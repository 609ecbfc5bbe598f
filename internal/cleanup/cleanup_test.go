package cleanup

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestCleanRunsInReverseAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := New(ctx)
	var order []string
	boom := errors.New("boom")
	for _, name := range []string{"a", "b", "c"} {
		s.Add(name, func(ctx context.Context) error {
			order = append(order, name)
			if ctx.Err() != nil {
				t.Errorf("step %s was given an ended context", name)
			}
			if name == "b" {
				return boom
			}
			return nil
		})
	}
	cancel()
	first := errors.New("first")
	err := first
	s.Clean(&err)
	if !slices.Equal(order, []string{"c", "b", "a"}) {
		t.Fatalf("order %v", order)
	}
	if !errors.Is(err, boom) || !errors.Is(err, first) {
		t.Fatalf("err = %v", err)
	}
	s.Clean(&err)
	if len(order) != 3 {
		t.Fatal("steps ran twice")
	}
}

func TestReleaseKeeps(t *testing.T) {
	s := New(t.Context())
	s.Add("never", func(context.Context) error { t.Error("ran"); return nil })
	s.Release()
	var err error
	s.Clean(&err)
	if err != nil {
		t.Fatal(err)
	}
}
