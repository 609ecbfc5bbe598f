package servertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	guest "wrenn.dev/wrenn/internal/guest/client"
)

// shell is a guest with a few commands.
type shell struct{}

func (g shell) Run(ctx context.Context, cmd guest.Command) (guest.Result, error) {
	if cmd.Cmd == "none" {
		return guest.Result{}, errors.New("no such command")
	}
	cmd.Started(7)
	switch cmd.Cmd {
	case "cat":
		if cmd.Stdin != nil {
			if _, err := io.Copy(io.MultiWriter(cmd.Stdout, cmd.Stderr), cmd.Stdin); err != nil {
				return guest.Result{}, err
			}
		}
		return guest.Result{ExitCode: 3, Status: "exit status 3"}, nil
	case "flood":
		for range 3 * 32 {
			if _, err := cmd.Stdout.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
				return guest.Result{}, err
			}
		}
		return guest.Result{Status: "exit status 0"}, nil
	case "break":
		_, err := cmd.Stdout.Write([]byte("so far"))
		return guest.Result{}, errors.Join(err, errors.New("the guest is confused"))
	}
	if cmd.Timeout > 0 { // as the real client: the guest ends it
		return guest.Result{}, fmt.Errorf("it ran for %v: %w", cmd.Timeout, context.DeadlineExceeded)
	}
	<-ctx.Done()
	return guest.Result{}, context.Cause(ctx)
}

func (g shell) Attach(ctx context.Context, _ uint32, cmd guest.Command) (guest.Result, error) {
	return g.Run(ctx, cmd)
}

func (g shell) List(context.Context) ([]guest.Process, error) { return nil, nil }

func (g shell) Files(string) *guest.Files { return nil } // the API asks for none

func (g shell) Close() {}
