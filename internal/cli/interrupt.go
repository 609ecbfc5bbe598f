package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"
)

// errInterrupted is why a context ended when the user pressed Ctrl-C.
var errInterrupted = fmt.Errorf("interrupted: %w", context.Canceled)

// stopper turns Ctrl-C into what fits the moment. Before the command runs, it ends the start. Once the command runs, the first
// one asks it to end, and a second ends everything.
type stopper struct {
	cancel  context.CancelCauseFunc
	signals chan syscall.Signal // for the command
	running atomic.Bool
}

// newStopper listens until the returned function is called.
func newStopper(ctx context.Context) (context.Context, *stopper, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stopper{cancel: cancel, signals: make(chan syscall.Signal, 1)}
	pressed := make(chan os.Signal, 2)
	signal.Notify(pressed, os.Interrupt, syscall.SIGTERM)
	go s.watch(ctx, pressed)
	return ctx, s, func() {
		signal.Stop(pressed)
		cancel(nil)
	}
}

// interruptible is a command's work on which Ctrl-C and SIGTERM end the context: what can't be left half done goes on to its end,
// and the rest is undone.
func interruptible(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, _, stop := newStopper(cmd.Context())
		defer stop()
		return work(ctx, args)
	}
}

func (s *stopper) watch(ctx context.Context, pressed <-chan os.Signal) {
	asked := false
	for {
		select {
		case <-pressed:
			if s.running.Load() && !asked {
				asked = true
				s.signals <- syscall.SIGTERM
				continue
			}
			s.cancel(errInterrupted)
		case <-ctx.Done():
			return
		}
	}
}
