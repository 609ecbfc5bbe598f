package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// commandFlags are what every command that runs another one in a guest takes.
type commandFlags struct {
	timeout, user, cwd         string
	env                        []string
	interactive, tty, progress bool
}

func (f *commandFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.timeout, "timeout", "", "end the command after this long, such as 90s (default: never)")
	fl.StringArrayVar(&f.env, "env", nil, "set a variable, NAME=VALUE; may be given again")
	fl.StringVar(&f.user, "user", "", "run as this user of the guest (default: user)")
	fl.StringVar(&f.cwd, "cwd", "", "run in this folder of the guest (default: the user's home)")
	fl.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input to the command")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fl.BoolVar(&f.progress, "progress", false, "say on standard error what each step took and what was left behind")
}

// command turns the flags into what the guest's agent takes.
func (f *commandFlags) command(s streams, args []string) (client.Command, error) {
	timeout, err := parseDuration("--timeout", f.timeout)
	if err != nil {
		return client.Command{}, err
	}
	env, err := parseEnv("--env", f.env)
	if err != nil {
		return client.Command{}, err
	}
	if f.tty && !isTerminal(s.in) {
		return client.Command{}, errs.Field("--tty", "standard input is no terminal", "leave -t out, or run it in a terminal")
	}
	return client.Command{Cmd: args[0], Args: args[1:], Env: env, Cwd: f.cwd, User: f.user, Timeout: timeout}, nil
}

// attached runs the command on the process's own streams and says how it ended.
func attached(ctx context.Context, s streams, sb *sandbox.Sandbox, f *commandFlags, command client.Command, stopper *stopper, tell progress) error {
	command.Signals = stopper.signals
	stopper.running.Store(true)
	began := time.Now()
	result, err := runIn(ctx, s, sb, f, command)
	tell.step(vmm.Step{Name: "command", Took: time.Since(began)})
	if err == nil {
		tell.line("%s", ended(result))
	}
	return exit(result, err)
}

// exit turns how a command ended into the error that report turns into the exit code.
func exit(r client.Result, err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return exitCode(exitTimeout)
	case errors.Is(err, errs.ErrUnauthenticated):
		return errs.Field("--user", err.Error(), "give a user that the template has")
	case err != nil:
		return err
	case r.Signal > 0:
		return exitCode(exitSignal + int(r.Signal))
	case r.ExitCode != 0:
		return exitCode(r.ExitCode & 0xff)
	}
	return nil
}

// ended says in words how a command ended.
func ended(r client.Result) string {
	if r.Signal > 0 {
		return fmt.Sprintf("signal %d ended the command", r.Signal)
	}
	return fmt.Sprintf("exit code %d", r.ExitCode)
}
