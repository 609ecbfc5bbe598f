package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// runFlags are what `wrenn run` takes.
type runFlags struct {
	template, memory, disk, timeout, user, cwd string
	vcpus                                      int
	env                                        []string
	interactive, tty                           bool
	keep, console, progress, noInternet        bool
}

func newRun(s streams, host *hostFlags) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG...]",
		Short: "Boot a microVM, run one command in it, remove it",
		Long: `Run boots a microVM from a template, runs the command in it as an ordinary user, streams its output, and removes
the machine with all that it had. The guest reaches the public internet and nothing else: no private network, no
metadata service, not this host, no other sandbox.

Ctrl-C asks the command to end (SIGTERM); a second one removes the sandbox at once.

` + exitHelp,
		Example: `  wrenn run -- python3 -c 'print(6 * 7)'
  wrenn run --memory 1G --vcpus 2 --timeout 5m -- make -j2
  wrenn run -i -- sh < script.sh
  wrenn run -it -- bash`,
		Args: usage(cobra.MinimumNArgs(1), "give the command after --"),
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), s, host, &f, args) },
	}
	f.register(cmd)
	return cmd
}

func (f *runFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.template, "template", "base", "template to start from")
	fl.IntVar(&f.vcpus, "vcpus", 0, "virtual CPUs (default: the template's)")
	fl.StringVar(&f.memory, "memory", "", "memory, such as 512M or 2G (default: the template's)")
	fl.StringVar(&f.disk, "disk", "", "size of the root disk, such as 10G (default: the template's)")
	fl.StringVar(&f.timeout, "timeout", "", "end the command after this long, such as 90s (default: never)")
	fl.StringArrayVar(&f.env, "env", nil, "set a variable, NAME=VALUE; may be given again")
	fl.StringVar(&f.user, "user", "", "run as this user of the guest (default: user)")
	fl.StringVar(&f.cwd, "cwd", "", "run in this folder of the guest (default: the user's home)")
	fl.BoolVarP(&f.interactive, "interactive", "i", false, "pass standard input to the command")
	fl.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	fl.BoolVar(&f.keep, "keep", false, "leave the sandbox when the command has ended; 'wrenn rm' removes it")
	fl.BoolVar(&f.console, "console", false, "record the guest's serial console; it slows the boot")
	fl.BoolVar(&f.progress, "progress", false, "say on standard error what each step took and what was left behind")
	fl.BoolVar(&f.noInternet, "no-internet", false, "give the guest no network but its own")
}

// spec turns the flags into what the sandbox and the guest's agent take.
func (f *runFlags) spec(args []string) (sandbox.Spec, client.Command, error) {
	var spec sandbox.Spec
	var command client.Command
	memory, err := parseSize("--memory", f.memory)
	if err != nil {
		return spec, command, err
	}
	disk, err := parseSize("--disk", f.disk)
	if err != nil {
		return spec, command, err
	}
	timeout, err := parseDuration("--timeout", f.timeout)
	if err != nil {
		return spec, command, err
	}
	env, err := parseEnv("--env", f.env)
	if err != nil {
		return spec, command, err
	}
	if f.vcpus < 0 {
		return spec, command, errs.Field("--vcpus", fmt.Sprintf("%d is out of range", f.vcpus), "give 1 or more")
	}
	spec = sandbox.Spec{Template: f.template, VCPUs: f.vcpus, MemoryMiB: int(memory >> 20), DiskBytes: disk,
		Policy: network.Policy{Internet: !f.noInternet}, Keep: f.keep, Console: f.console}
	if memory > 0 && spec.MemoryMiB == 0 {
		spec.MemoryMiB = 1 // below any minimum, so that it is refused and not taken for "the default"
	}
	command = client.Command{Cmd: args[0], Args: args[1:], Env: env, Cwd: f.cwd, User: f.user, Timeout: timeout}
	return spec, command, nil
}

func run(ctx context.Context, s streams, host *hostFlags, f *runFlags, args []string) error {
	spec, command, err := f.spec(args)
	if err != nil {
		return err
	}
	if f.tty && !isTerminal(s.in) {
		return errs.Field("--tty", "standard input is no terminal", "leave -t out, or run it in a terminal")
	}
	if err := host.canRun(); err != nil {
		return err
	}
	parts, err := host.parts()
	if err != nil {
		return err
	}
	if err := parts.Manager.Check(ctx, &spec); errors.Is(err, errs.ErrNotFound) {
		return errs.Field("--template", err.Error(), "give one that is there")
	}
	began := time.Now()
	tell := progress{on: f.progress, w: s.err}
	ctx, stopper, stop := newStopper(ctx)
	defer stop()
	tell.line("start a sandbox from template %s", spec.Template)
	started := tell.waiting("the guest boots")
	sb, err := parts.Manager.Create(ctx, spec, tell.step)
	started()
	if err != nil {
		return err
	}
	tell.line("%s answers after %v", sb.ID, time.Since(began).Round(time.Millisecond))
	command.Signals = stopper.signals
	stopper.running.Store(true)
	began = time.Now()
	result, err := runIn(ctx, s, sb, f, command)
	tell.step(vmm.Step{Name: "command", Took: time.Since(began)})
	outcome := exit(result, err)
	if err == nil {
		tell.line("%s", ended(result))
	}
	if f.keep {
		sb.Leave()
		fmt.Fprintf(s.err, "wrenn: %s was kept; 'wrenn rm %s' removes it\n", sb.ID, sb.ID)
		return outcome
	}
	if err := destroy(ctx, sb, tell); err != nil {
		return errors.Join(err, outcome)
	}
	if f.progress {
		if err := host.sayLeft(ctx, s.err); err != nil {
			return err
		}
	}
	return outcome
}

// destroy removes the sandbox although the caller may have hung up.
func destroy(ctx context.Context, sb *sandbox.Sandbox, tell progress) error {
	began := time.Now()
	err := cleanup.Do(ctx, func(ctx context.Context) error { return sb.Destroy(ctx, "its command ended") })
	tell.step(vmm.Step{Name: "destroy", Took: time.Since(began)})
	if err != nil {
		return fmt.Errorf("%w; 'wrenn host sweep' tries again", err)
	}
	return nil
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

// progress prints a line a step, if it is asked for. Steps that run side by side may tell of their ends at once.
type progress struct {
	on bool
	w  io.Writer
}

func (p progress) step(s vmm.Step) { p.line("  %-24s %8.3fs", s.Name, s.Took.Seconds()) }

func (p progress) line(format string, args ...any) {
	if p.on {
		fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// sayEvery is how often work that takes long says that it goes on.
const sayEvery = 2 * time.Second

// waiting says from time to time that the work goes on, until the returned function is called.
func (p progress) waiting(what string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(sayEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.line("  … %s, %.0f s", what, time.Since(began).Seconds())
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}
