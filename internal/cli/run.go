package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// specFlags say what a sandbox is made of.
type specFlags struct {
	template, snapshot, memory, disk string
	vcpus                            int
	cold, stream                     bool
	console, noInternet              bool
}

// runFlags are what `wrenn run` takes.
type runFlags struct {
	commandFlags
	specFlags
	keep bool
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
	f.commandFlags.register(cmd)
	f.specFlags.register(cmd)
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the sandbox when the command has ended; 'wrenn rm' removes it")
}

func (f *specFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.template, "template", "", "template to start from (default: base)")
	fl.StringVar(&f.snapshot, "snapshot", "", "snapshot to start from, instead of a template")
	fl.IntVar(&f.vcpus, "vcpus", 0, "virtual CPUs (default: the template's; other than that, it boots)")
	fl.StringVar(&f.memory, "memory", "", "memory, such as 512M or 2G (default: the template's; other than that, it boots)")
	fl.StringVar(&f.disk, "disk", "", "size of the root disk, such as 10G (default: the template's; other than that, it boots)")
	fl.BoolVar(&f.cold, "cold", false, "boot, although the template has a warm snapshot")
	fl.BoolVar(&f.stream, "stream", false, "bring in all of its memory when it is idle, instead of each page when it is first touched")
	fl.BoolVar(&f.console, "console", false, "record the guest's serial console; it boots then, slowly")
	fl.BoolVar(&f.noInternet, "no-internet", false, "give the guest no network but its own")
}

// spec turns the flags into what the sandbox takes.
func (f *specFlags) spec() (sandbox.Spec, error) {
	var spec sandbox.Spec
	memory, err := parseSize("--memory", f.memory)
	if err != nil {
		return spec, err
	}
	disk, err := parseSize("--disk", f.disk)
	if err != nil {
		return spec, err
	}
	if f.vcpus < 0 {
		return spec, errs.Field("--vcpus", fmt.Sprintf("%d is out of range", f.vcpus), "give 1 or more")
	}
	spec = sandbox.Spec{Template: f.template, Snapshot: f.snapshot, VCPUs: f.vcpus, MemoryMiB: int(memory >> 20), DiskBytes: disk,
		Policy: network.Policy{Internet: !f.noInternet}, Cold: f.cold, Stream: f.stream, Console: f.console}
	if spec.Template == "" && spec.Snapshot == "" {
		spec.Template = "base"
	}
	if memory > 0 && spec.MemoryMiB == 0 {
		spec.MemoryMiB = 1 // below any minimum, so that it is refused and not taken for "the default"
	}
	return spec, nil
}

func run(ctx context.Context, s streams, host *hostFlags, f *runFlags, args []string) error {
	spec, err := f.spec()
	if err != nil {
		return err
	}
	spec.Keep = f.keep
	command, err := f.command(s, args)
	if err != nil {
		return err
	}
	parts, err := host.ready()
	if err != nil {
		return err
	}
	if err := parts.Manager.Check(ctx, &spec); errors.Is(err, errs.ErrNotFound) {
		return originMissing(spec, err)
	}
	tell := progress{on: f.progress, w: s.err}
	ctx, stopper, stop := newStopper(ctx)
	defer stop()
	sb, err := create(ctx, parts, spec, tell)
	if err != nil {
		return err
	}
	outcome := attached(ctx, s, sb, &f.commandFlags, command, stopper, tell)
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

// create starts the sandbox and says what it takes.
func create(ctx context.Context, parts *assembly.Parts, spec sandbox.Spec, tell progress) (*sandbox.Sandbox, error) {
	began := time.Now()
	tell.line("start a sandbox from %s", cmp.Or(spec.Snapshot, spec.Template))
	done := tell.waiting("it starts")
	sb, err := parts.Manager.Create(ctx, spec, tell.step)
	done()
	if err != nil {
		return nil, err
	}
	tell.line("%s answers after %v", sb.ID, time.Since(began).Round(time.Millisecond))
	return sb, nil
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
