// Package process starts the commands of a guest and keeps track of them. It knows nothing of the protocol that asks for them.
//
//	sub, err := manager.Start(spec)     // the command runs; sub gets its output from the first byte
//	for chunk := range sub.C() { … }    // until every writer of its output has closed it
//	exit := sub.Exit()                  // how it ended
//
// # Output
//
// Any number of subscriptions may follow one process; each gets what is written from the moment it joins. Without any, output is
// read and thrown away, so that a process never waits for a reader that isn't there: one whose client has gone, or was cut off
// because the machine is a clone now, goes on as if it had been started for nobody, and can be joined. With one that does not read, the
// process waits, as it would at a pipe: each subscription holds a bounded number of chunks, and reading from the process
// stops while one is full. So that a dead reader can't hold up the others for ever, a subscription that took nothing
// for Limits.Stall, while another could have taken more, is dropped.
//
// # Death
//
// Every command leads a session of its own. At its deadline, and at SIGKILL, all processes of the session are killed; one that
// left the session on purpose stays. What a killed process wrote is still read, for Limits.Grace at most:
// who left the session may hold its output open for ever.
package process

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/envd/fault"
)

// Exit is how a process ended.
type Exit struct {
	// Code is the exit status, -1 when a signal ended the process.
	Code int
	// Exited is false when a signal ended the process.
	Exited bool
	// Status is "exit status N" or "signal: NAME".
	Status string
	// Expired says that the process was killed because its deadline came.
	Expired bool
}

// Process is a command that runs, or whose output is still open.
type Process struct {
	spec   Spec
	pid    int
	leader *os.Process
	tty    *os.File // the terminal's master, nil without a terminal
	input  *input   // nil when standard input was not asked for
	hub    *hub

	// output ends when what is still unread of the process's output is given up.
	output  context.Context
	give    context.CancelFunc
	readers []*os.File

	expired atomic.Bool
	reaped  atomic.Bool
	ending  atomic.Bool // a terminal whose command has ended
	killing sync.Once
	grace   time.Duration
	timer   *time.Timer // the deadline; nil when there is none
}

// PID is the process's id, and that of its session and process group.
func (p *Process) PID() int { return p.pid }

// Spec is what the process was started with.
func (p *Process) Spec() Spec { return p.spec }

// Write gives data to the process's standard input, or to its terminal if terminal is set, and returns when all of it was
// taken. Writes do not mix. ErrInvalid for the wrong one of the two, ErrFailedPrecondition when the process takes no input any
// more; the context's error when it ended first, and then a part may have been taken.
func (p *Process) Write(ctx context.Context, data []byte, terminal bool) error {
	switch {
	case terminal && p.tty == nil:
		return fault.New(errs.ErrInvalid, "the process has no terminal: send its input as stdin")
	case !terminal && p.tty != nil:
		return fault.New(errs.ErrInvalid, "the process has a terminal: send its input as pty")
	case p.input == nil:
		return errNoInput
	}
	return p.input.write(ctx, data)
}

// CloseInput gives the process the end of its standard input, once what was written before has been taken. It is
// idempotent. ErrFailedPrecondition for a process with a terminal.
func (p *Process) CloseInput(ctx context.Context) error {
	if p.tty != nil {
		return fault.New(errs.ErrFailedPrecondition, "the input of a terminal can't be closed: send Ctrl-D (0x04)")
	}
	if p.input == nil {
		return nil
	}
	return p.input.close(ctx)
}

// Resize changes the size of the process's terminal. ErrFailedPrecondition when it has none.
func (p *Process) Resize(size Size) error {
	if p.tty == nil {
		return fault.New(errs.ErrFailedPrecondition, "the process has no terminal")
	}
	if err := size.validate(); err != nil {
		return err
	}
	return setSize(p.tty, size)
}

// Signal sends SIGKILL to all processes of the session, or another signal to the command alone.
func (p *Process) Signal(sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		p.kill()
		return nil
	}
	if err := p.leader.Signal(sig); err != nil {
		return fault.New(errs.ErrNotFound, "process %d has ended", p.pid)
	}
	return nil
}

// kill ends the session, and after a while the wait for its output. It may be called again.
func (p *Process) kill() {
	// A number can't be given to a new process while a member of its group or session lives. So if the leader is gone and
	// a process has its number, the session is gone too, and the process is somebody else.
	if !p.reaped.Load() || unix.Kill(p.pid, 0) == unix.ESRCH {
		killSession(p.pid)
	}
	p.killing.Do(p.giveUpLater)
}

// expire is called at the deadline.
func (p *Process) expire() {
	p.expired.Store(true)
	p.kill()
}

// wait returns when the process has ended and its output is closed or given up, with everything released. Pipes stay open as
// long as a child of the command holds them; a terminal ends with its command, as a login does.
func (p *Process) wait() Exit {
	var readers sync.WaitGroup
	for i, r := range p.readers {
		readers.Go(func() { p.pump(r, p.stream(i)) })
	}
	state, err := p.leader.Wait()
	p.reaped.Store(true)
	if p.tty != nil {
		p.lastLook()
	}
	readers.Wait()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.give()
	if p.input != nil {
		p.input.abandon()
	}
	for _, r := range p.readers {
		_ = r.Close()
	}
	if err != nil { // nobody else may reap it, so this can't be
		return Exit{Code: -1, Status: err.Error(), Expired: p.expired.Load()}
	}
	return Exit{Code: state.ExitCode(), Exited: state.Exited(), Status: state.String(), Expired: p.expired.Load()}
}
