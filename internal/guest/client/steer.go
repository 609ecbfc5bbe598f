package client

import (
	"context"
	"errors"
	"syscall"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	processpb "wrenn.dev/wrenn/proto/envd/process"
)

func selector(pid uint32) *processpb.ProcessSelector {
	return &processpb.ProcessSelector{Selector: &processpb.ProcessSelector_Pid{Pid: pid}}
}

// Input gives a command that runs input, and with end the end of it, whoever started it and follows it. It returns when the command's pipe
// or terminal has taken all of it; when ctx ends before, a part may have been taken. ErrNotFound when there is no such process,
// ErrFailedPrecondition when it takes no input.
func (c *Client) Input(ctx context.Context, pid uint32, data []byte, end bool) error {
	for len(data) > 0 {
		some := data[:min(len(data), feedBytes)]
		if err := c.either(ctx, pid, some); err != nil {
			return err
		}
		data = data[len(some):]
	}
	if !end {
		return nil
	}
	err := c.closeInput(ctx, pid)
	if errors.Is(err, errs.ErrFailedPrecondition) { // only a terminal's can't be closed
		err = c.send(ctx, pid, endOfTerminal, true)
	}
	return err
}

// either sends a command what it takes in one of the two ways: which it is, envd alone knows.
func (c *Client) either(ctx context.Context, pid uint32, data []byte) error {
	err := c.send(ctx, pid, data, false)
	if errors.Is(err, errs.ErrInvalid) {
		err = c.send(ctx, pid, data, true)
	}
	return err
}

// send gives data to the standard input of a command, or to its terminal.
func (c *Client) send(ctx context.Context, pid uint32, data []byte, terminal bool) error {
	in := &processpb.ProcessInput{Input: &processpb.ProcessInput_Stdin{Stdin: data}}
	if terminal {
		in = &processpb.ProcessInput{Input: &processpb.ProcessInput_Pty{Pty: data}}
	}
	_, err := c.rpc.SendInput(ctx, connect.NewRequest(&processpb.SendInputRequest{Process: selector(pid), Input: in}))
	return broken(err)
}

func (c *Client) closeInput(ctx context.Context, pid uint32) error {
	_, err := c.rpc.CloseStdin(ctx, connect.NewRequest(&processpb.CloseStdinRequest{Process: selector(pid)}))
	return broken(err)
}

// Signal sends SIGTERM to a command, or SIGKILL to it and all that it started in its session. ErrNotFound when there is no such process.
func (c *Client) Signal(ctx context.Context, pid uint32, sig syscall.Signal) error {
	_, err := c.rpc.SendSignal(ctx, connect.NewRequest(&processpb.SendSignalRequest{Process: selector(pid), Signal: processpb.Signal(sig)}))
	return broken(err)
}

// Resize changes the size of a command's terminal. ErrNotFound when there is no such process, ErrFailedPrecondition when it has no terminal.
func (c *Client) Resize(ctx context.Context, pid uint32, size Size) error {
	_, err := c.rpc.Update(ctx, connect.NewRequest(&processpb.UpdateRequest{Process: selector(pid), Pty: size.message()}))
	return broken(err)
}
