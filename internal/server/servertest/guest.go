package servertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/guest/envd/envdtest"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/sandbox"
)

// OnThisMachine is a Config's Guest whose commands are real: a real envd runs them on this machine, as who runs the test, for all sandboxes. It is
// for commands that the test itself chooses.
func OnThisMachine(t testing.TB) func(sandbox.DialFunc, string) hostagent.Guest {
	envd := envdtest.Start(t)
	return func(sandbox.DialFunc, string) hostagent.Guest { return guest.New(envd.Dial, envd.Token) }
}

// Files is what a Config's Guest that does not run commands has files from: a folder of this machine, and nothing else of it.
func Files(t testing.TB) func(user string) *guest.Files {
	envd, dial := fenced(t)
	return guest.New(dial, envd.Token).Files
}

// programs are those of this machine that a guest runs.
var programs = []string{"bash", "cat", "echo", "env", "false", "id", "printf", "pwd", "seq", "sh", "sleep", "stty", "true"}

// shell is a guest: a real envd's, which runs some programs of this machine, and a few commands that behave as no program does.
type shell struct {
	*guest.Client
	fenced *guest.Client // who has the files
}

// Files are those inside of the fence.
func (g shell) Files(user string) *guest.Files { return g.fenced.Files(user) }

// Close closes the connections that no call uses.
func (g shell) Close() {
	g.Client.Close()
	g.fenced.Close()
}

// Run runs a program. Without arguments and a terminal, "cat" writes its input to both outputs and exits with 3, "flood" writes more than is kept,
// "break" fails in the midst, "none" before its start, and "sleep" ends at its timeout.
func (g shell) Run(ctx context.Context, cmd guest.Command) (guest.Result, error) {
	if cmd.PTY == nil && len(cmd.Args) == 0 {
		switch cmd.Cmd {
		case "none":
			return guest.Result{}, errors.New("no such command")
		case "cat", "flood", "break":
			cmd.Started(7)
			return play(cmd)
		case "sleep":
			cmd.Started(7)
			return wait(ctx, cmd)
		}
	}
	if !slices.Contains(programs, cmd.Cmd) {
		return guest.Result{}, fmt.Errorf("there is no program %.100q: %w", cmd.Cmd, errs.ErrInvalid)
	}
	return g.Client.Run(ctx, cmd)
}

// wait ends at the command's timeout or when it is left.
func wait(ctx context.Context, cmd guest.Command) (guest.Result, error) {
	if cmd.Timeout > 0 { // as the real client: the guest ends it
		return guest.Result{}, fmt.Errorf("it ran for %v: %w", cmd.Timeout, context.DeadlineExceeded)
	}
	<-ctx.Done()
	return guest.Result{}, context.Cause(ctx)
}

func play(cmd guest.Command) (guest.Result, error) {
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
	}
	_, err := cmd.Stdout.Write([]byte("so far"))
	return guest.Result{}, errors.Join(err, errors.New("the guest is confused"))
}
