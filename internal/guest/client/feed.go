package client

import (
	"context"
	"errors"

	"wrenn.dev/wrenn/internal/errs"
)

// feedBytes is how much of the input is sent at once.
const feedBytes = 32 << 10

// endOfTerminal is what a terminal takes for the end of its input: Ctrl-D.
var endOfTerminal = []byte{4}

// feed gives the command its input until one of the two ends. Input that could not be given, although the command wants some, ends
// the run: nothing is lost silently.
func (r *run) feed(ctx context.Context) {
	if r.cmd.Stdin == nil {
		return
	}
	buf := make([]byte, feedBytes)
	for ctx.Err() == nil {
		n, rerr := r.cmd.Stdin.Read(buf)
		if n > 0 {
			if err := r.send(ctx, buf[:n]); err != nil {
				r.unfed(err)
				return
			}
		}
		if rerr != nil {
			r.unfed(r.sendEnd(ctx))
			return
		}
	}
}

// unfed decides what a failed input means. A command that ended or closed its input is free to do so, and the run may be over.
func (r *run) unfed(err error) {
	for _, fine := range []error{nil, errs.ErrNotFound, errs.ErrFailedPrecondition, context.Canceled} {
		if errors.Is(err, fine) {
			return
		}
	}
	r.wrong(err)
}

func (r *run) send(ctx context.Context, data []byte) error {
	return r.client.send(ctx, r.pid, data, r.cmd.PTY != nil)
}

// sendEnd tells the command that there is no more input.
func (r *run) sendEnd(ctx context.Context) error {
	if r.cmd.PTY != nil {
		return r.send(ctx, endOfTerminal)
	}
	return r.client.closeInput(ctx, r.pid)
}

// steer passes on sizes and signals. One that can't be passed on, because the command just ended, is not missed.
func (r *run) steer(ctx context.Context) {
	resize, signals := r.cmd.Resize, r.cmd.Signals
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			r.unfed(r.client.Resize(ctx, r.pid, size))
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			r.unfed(r.client.Signal(ctx, r.pid, sig))
		}
	}
}
