package process

import (
	"context"
	"errors"
	"os"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

var errNoInput = fault.New(errs.ErrFailedPrecondition, "standard input is not enabled or was closed")

// input is the writing end of a process's standard input, or its terminal.
type input struct {
	turn chan struct{} // holds one token: who takes it may write
	gone chan struct{} // closed when the process is gone
	file *os.File
}

func newInput(file *os.File) *input {
	in := &input{turn: make(chan struct{}, 1), gone: make(chan struct{}), file: file}
	in.release()
	return in
}

// acquire waits for the turn to write.
func (in *input) acquire(ctx context.Context) error {
	select {
	case <-in.turn:
		return nil
	case <-in.gone:
		return errNoInput
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (in *input) release() { in.turn <- struct{}{} }

// write blocks while the process takes nothing.
func (in *input) write(ctx context.Context, data []byte) error {
	if err := in.acquire(ctx); err != nil {
		return err
	}
	defer in.release()
	// The file's deadline is how a blocked write is ended; it is taken back before the next one's turn.
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = in.file.SetWriteDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	_, err := in.file.Write(data)
	if !stop() {
		<-interrupted
		_ = in.file.SetWriteDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return errNoInput // one of the two ends was closed
}

// close lets earlier writes finish first.
func (in *input) close(ctx context.Context) error {
	if err := in.acquire(ctx); err != nil {
		if errors.Is(err, errNoInput) {
			return nil
		}
		return err
	}
	defer in.release()
	if err := in.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// abandon ends a write that is under way, and those that wait for their turn.
func (in *input) abandon() {
	close(in.gone)
	_ = in.file.Close() // ErrClosed when close came first
}
