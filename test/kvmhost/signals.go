package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// untilSignal returns a context that ends at the first interrupt.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// passSignals hands interrupts on to a command. The second one, or one that no command takes, ends the context.
func passSignals(ctx context.Context) (context.Context, <-chan remote.Signal, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	caught := make(chan os.Signal, 2)
	signal.Notify(caught, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	passed := make(chan remote.Signal)
	go func() {
		defer signal.Stop(caught)
		select {
		case <-ctx.Done():
			return
		case s := <-caught:
			select {
			case passed <- signalName(s):
			default: // no command runs yet
				cancel()
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-caught:
			cancel()
		}
	}()
	return ctx, passed, cancel
}

func signalName(s os.Signal) remote.Signal {
	switch s {
	case syscall.SIGTERM:
		return "TERM"
	case syscall.SIGHUP:
		return "HUP"
	default:
		return "INT"
	}
}
