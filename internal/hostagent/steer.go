package hostagent

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
)

// command is a stream that is open for one and gives it input.
type command struct {
	caller context.Context // of who opened the stream
	in     *inbox
}

// feeding is the newest stream that gives a process input, nil when there is none: then the guest is asked without one. A stream whose caller
// has left is none: what it is given might be lost with it.
func (b *box) feeding(pid uint32) *command {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.commands[pid]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].caller.Err() == nil {
			return list[i]
		}
	}
	return nil
}

// steer does something to a process, whether a stream is open for it or not.
func (a *Agent) steer(ctx context.Context, id string, do func(context.Context, Guest) error) error {
	_, u, err := a.use(ctx, id)
	if err != nil {
		return err
	}
	defer u.done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(u.live, func() { cancel(context.Cause(u.live)) })()
	defer context.AfterFunc(a.life, func() { cancel(context.Cause(a.life)) })()
	err = do(ctx, u.guest)
	if gone := context.Cause(u.live); err != nil && gone != nil {
		return gone
	}
	return err
}

// SendInput gives a command input, and with end the end of it. It returns when the command has taken it. ErrNotFound when there is no such
// command, ErrFailedPrecondition when it takes no input.
func (a *Agent) SendInput(ctx context.Context, id string, pid uint32, data []byte, end bool) error {
	b, err := a.box(id)
	if err != nil {
		return err
	}
	c := b.feeding(pid)
	if c == nil {
		return a.steer(ctx, id, func(ctx context.Context, g Guest) error { return g.Input(ctx, pid, data, end) })
	}
	if len(data) > 0 {
		if err := c.in.put(ctx, data); err != nil {
			return err
		}
	}
	if end {
		c.in.close()
	}
	return nil
}

// Signal sends SIGTERM to a command, or SIGKILL to it and all that it started. ErrNotFound when there is no such command.
func (a *Agent) Signal(ctx context.Context, id string, pid uint32, sig syscall.Signal) error {
	if sig != syscall.SIGTERM && sig != syscall.SIGKILL {
		return errs.Field("signal", fmt.Sprintf("%d can't be sent", sig), "give 15 (SIGTERM) or 9 (SIGKILL)")
	}
	return a.steer(ctx, id, func(ctx context.Context, g Guest) error { return g.Signal(ctx, pid, sig) })
}

// Resize changes the size of a command's terminal. ErrNotFound when there is no such command, ErrFailedPrecondition when it has none.
func (a *Agent) Resize(ctx context.Context, id string, pid uint32, size client.Size) error {
	return a.steer(ctx, id, func(ctx context.Context, g Guest) error { return g.Resize(ctx, pid, size) })
}

// inbox is an input that is given by calls.
type inbox struct {
	data chan piece
	once sync.Once
	end  chan struct{}
	// These are the reader's alone: what is left of a piece, and who is told once more is wanted.
	rest  []byte
	taken chan<- struct{}
}

// piece is a part of an input, and who waits until it is taken.
type piece struct {
	data  []byte
	taken chan<- struct{}
}

func newInbox() *inbox { return &inbox{data: make(chan piece), end: make(chan struct{})} }

func (i *inbox) close() { i.once.Do(func() { close(i.end) }) }

// put returns when the reader has passed the data on: it wants more, or its stream has ended.
func (i *inbox) put(ctx context.Context, data []byte) error {
	ended := fmt.Errorf("the command's input has ended: %w", errs.ErrFailedPrecondition)
	select {
	case <-i.end:
		return ended
	default:
	}
	taken := make(chan struct{})
	select {
	case i.data <- piece{data, taken}:
	case <-i.end:
		return ended
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-taken:
		return nil
	case <-i.end:
		return ended
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Read implements io.Reader.
func (i *inbox) Read(p []byte) (int, error) {
	if len(i.rest) == 0 {
		if i.taken != nil {
			close(i.taken)
			i.taken = nil
		}
		select {
		case next := <-i.data:
			i.rest, i.taken = next.data, next.taken
		case <-i.end:
			return 0, io.EOF
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
