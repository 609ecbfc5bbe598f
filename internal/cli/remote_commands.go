package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	guest "wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/vmm"
)

// commandFlagsOf are the flags of a command that runs another one in a guest.
func commandFlagsOf(cmd *cobra.Command) commandFlags {
	fl, f := cmd.Flags(), commandFlags{}
	f.timeout, _ = fl.GetString("timeout") // each is registered, with this type
	f.env, _ = fl.GetStringArray("env")
	f.user, _ = fl.GetString("user")
	f.cwd, _ = fl.GetString("cwd")
	f.interactive, _ = fl.GetBool("interactive")
	f.tty, _ = fl.GetBool("tty")
	f.progress, _ = fl.GetBool("progress")
	return f
}

// progressOf is where a command says what steps took.
func progressOf(cmd *cobra.Command, s streams) progress {
	on, _ := cmd.Flags().GetBool("progress")
	return progress{on: on, w: s.err}
}

// steps tells what an operation took.
func (p progress) steps(what string, began time.Time, steps []vmm.Step) {
	for _, step := range steps {
		p.step(step)
	}
	p.line("%s after %v", what, time.Since(began).Round(time.Millisecond))
}

func remoteExec(cmd *cobra.Command, args []string, s streams, r remote) error {
	f := commandFlagsOf(cmd)
	return remoteAttached(cmd, s, r, args[0], &f, args[1:])
}

func remoteShell(cmd *cobra.Command, args []string, s streams, r remote) error {
	f := commandFlagsOf(cmd)
	f.interactive, f.tty = true, isTerminal(s.in)
	return remoteAttached(cmd, s, r, args[0], &f, []string{"sh", "-c", shellScript})
}

func remoteAttached(cmd *cobra.Command, s streams, r remote, id string, f *commandFlags, args []string) error {
	command, err := f.command(s, args)
	if err != nil {
		return err
	}
	ctx, stopper, stop := newStopper(cmd.Context())
	defer stop()
	return execThere(ctx, s, r, id, f, command, stopper)
}

// execThere runs a command by a remote on the process's own streams.
func execThere(ctx context.Context, s streams, r remote, id string, f *commandFlags, command guest.Command, stopper *stopper) error {
	if command.Timeout.Milliseconds() > math.MaxUint32 {
		return errs.Field("--timeout", fmt.Sprintf("%v is too long", command.Timeout), "give less than 49 days, or leave it out")
	}
	began := time.Now()
	command.Stdout, command.Stderr, command.Signals = s.out, s.err, stopper.signals
	if f.interactive {
		command.Stdin = s.in
	}
	if f.tty {
		restore, err := attachTerminal(ctx, s, &command)
		if err != nil {
			return err
		}
		defer restore()
	}
	stopper.running.Store(true)
	result, err := r.exec(ctx, id, command)
	tell := progress{on: f.progress, w: s.err}
	tell.step(vmm.Step{Name: "command", Took: time.Since(began)})
	if err == nil {
		tell.line("%s", ended(result))
	}
	return exit(result, err)
}

// abandoned is how long the sandbox of a run may be idle: it is destroyed then, because the program that made it was killed.
const abandoned = time.Minute

func remoteRun(cmd *cobra.Command, args []string, s streams, r remote) error {
	f := runFlags{commandFlags: commandFlagsOf(cmd)}
	f.readSpec(cmd)
	f.keep, _ = cmd.Flags().GetBool("keep")
	spec, err := f.spec()
	if err != nil {
		return err
	}
	command, err := f.command(s, args)
	if err != nil {
		return err
	}
	w := wish{Spec: spec}
	if !f.keep {
		w.ttl = abandoned
	}
	tell, began := progressOf(cmd, s), time.Now()
	ctx, stopper, stop := newStopper(cmd.Context())
	defer stop()
	made, steps, err := r.create(ctx, w)
	if err != nil {
		return originMissing(spec, err)
	}
	tell.steps(made.ID+" answers", began, steps)
	outcome := execThere(ctx, s, r, made.ID, &f.commandFlags, command, stopper)
	if f.keep {
		fmt.Fprintf(s.err, "wrenn: %s was kept; 'wrenn rm %s' removes it\n", made.ID, made.ID)
		return outcome
	}
	err = r.destroy(context.WithoutCancel(ctx), made.ID, "its command ended")
	if err == nil || errors.Is(err, errs.ErrNotFound) {
		return outcome
	}
	return errors.Join(err, outcome)
}

// readSpec reads the flags that say what the sandbox is made of.
func (f *specFlags) readSpec(cmd *cobra.Command) {
	fl := cmd.Flags()
	f.template, _ = fl.GetString("template")
	f.snapshot, _ = fl.GetString("snapshot")
	f.memory, _ = fl.GetString("memory")
	f.disk, _ = fl.GetString("disk")
	f.vcpus, _ = fl.GetInt("vcpus")
	f.cold, _ = fl.GetBool("cold")
	f.stream, _ = fl.GetBool("stream")
	f.console, _ = fl.GetBool("console")
	f.noInternet, _ = fl.GetBool("no-internet")
}

func remotePause(cmd *cobra.Command, args []string, s streams, r remote) error {
	began := time.Now()
	steps, err := r.pause(cmd.Context(), args[0], "wrenn pause")
	if err != nil {
		return err
	}
	progressOf(cmd, s).steps("paused", began, steps)
	return nil
}

func remoteResume(cmd *cobra.Command, args []string, s streams, r remote) error {
	began := time.Now()
	steps, err := r.resume(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	progressOf(cmd, s).steps("resumed", began, steps)
	return nil
}

// maxForks is how many clones one fork makes: the proto's bound.
const maxForks = 100

func remoteFork(cmd *cobra.Command, args []string, s streams, r remote) error {
	count, err := cmd.Flags().GetInt("count")
	if err != nil {
		return err
	}
	if count < 1 || count > maxForks {
		return errs.Field("--count", fmt.Sprintf("%d is out of range", count), fmt.Sprintf("give 1 to %d", maxForks))
	}
	began := time.Now()
	list, steps, err := r.fork(cmd.Context(), args[0], count)
	if err != nil {
		return err
	}
	forked := 0
	for _, o := range list {
		if o.err == nil {
			forked++
		}
	}
	progressOf(cmd, s).steps(fmt.Sprintf("%d forked", forked), began, steps)
	asJSON, _ := cmd.Flags().GetBool("json")
	return printOutcomes(s, asJSON, list)
}

func remoteRemove(cmd *cobra.Command, args []string, s streams, r remote) error {
	return each(cmd, args, s, func(id string) error { return r.destroy(cmd.Context(), id, "wrenn rm") })
}

// outcomeView is what became of one of several things that a command was to do something with.
type outcomeView struct {
	Name  string `json:"name,omitempty"`  // an id, or a snapshot's name; empty for a clone that there is none of
	Error string `json:"error,omitempty"` // why it failed
	err   error
}

// each does something with every name and prints what became of it. Its error joins those of all.
func each(cmd *cobra.Command, names []string, s streams, do func(string) error) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	var list []outcomeView
	for _, name := range names {
		list = append(list, outcomeView{Name: name, err: do(name)})
	}
	return printOutcomes(s, asJSON, list)
}

// printOutcomes prints the names of what was done, or everything as JSON. Its error joins those of what was not done.
func printOutcomes(s streams, asJSON bool, list []outcomeView) error {
	var failed []error
	for i, o := range list {
		switch {
		case o.err != nil:
			failed = append(failed, o.err)
			list[i].Error = o.err.Error()
		case !asJSON:
			fmt.Fprintln(s.out, o.Name)
		}
	}
	if asJSON {
		failed = append(failed, printJSON(s.out, list))
	}
	return errors.Join(failed...)
}

func remoteSnapshotCreate(cmd *cobra.Command, args []string, s streams, r remote) error {
	began := time.Now()
	steps, err := r.snapshot(cmd.Context(), args[0], args[1])
	if err != nil {
		return err
	}
	progressOf(cmd, s).steps("frozen as "+args[1], began, steps)
	return nil
}

func remoteSnapshotRemove(cmd *cobra.Command, args []string, s streams, r remote) error {
	return each(cmd, args, s, func(name string) error { return r.deleteSnapshot(cmd.Context(), name) })
}
