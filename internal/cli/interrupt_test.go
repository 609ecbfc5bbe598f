package cli

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

func TestInterruptBeforeTheCommandEndsTheStart(t *testing.T) {
	ctx, _, stop := newStopper(t.Context())
	defer stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) || report(err, t.Output()) != 130 {
		t.Errorf("cause %v", err)
	}
}

func TestFirstInterruptAsksAndTheSecondEnds(t *testing.T) {
	ctx, s, stop := newStopper(t.Context())
	defer stop()
	s.running.Store(true)
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := <-s.signals; got != syscall.SIGTERM || ctx.Err() != nil {
		t.Fatalf("the command got %v, the context %v", got, ctx.Err())
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
}
