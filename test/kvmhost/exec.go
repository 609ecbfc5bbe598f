package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/remote"
	"wrenn.dev/wrenn/test/kvmhost/standing"
)

func newExec() *cobra.Command {
	var env []string
	cmd := &cobra.Command{
		Use:   "exec [NAME] -- COMMAND [ARG…]",
		Short: "Run a command in a host that is up",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, command, err := splitName(cmd, args)
			if err != nil {
				return err
			}
			ctx, signals, stop := passSignals(cmd.Context())
			defer stop()
			client, err := standing.Connect(ctx, name)
			if err != nil {
				return err
			}
			defer client.Close()
			code, err := client.Run(ctx, remote.Command{Args: command, Env: append(standingEnvironment(), env...),
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals})
			return finished(name, code, err)
		},
	}
	cmd.Flags().StringArrayVar(&env, "env", nil, "K=V for the command (may be repeated)")
	return cmd
}

// standingEnvironment is the environment of commands in a host that is up: what was put in it is at the usual places.
func standingEnvironment() []string {
	all := hostFlags{bin: "set", images: "set"}
	return all.insideEnvironment()
}

// finished turns what a command ended with into this process's end. A host that was lost meanwhile says how.
func finished(name string, code int, err error) error {
	switch {
	case errors.Is(err, remote.ErrGone):
		return errors.Join(err, standing.Lost(name))
	case err != nil:
		return err
	}
	return exitCode(code)
}

func newShell() *cobra.Command {
	var flags hostFlags
	cmd := &cobra.Command{
		Use:   "shell [NAME]",
		Short: "A shell in a host: in one that is up, else in a fresh one",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			return shell(ctx, nameArg(args), len(args) == 0, &flags)
		},
	}
	flags.register(cmd.Flags())
	return cmd
}

func shell(ctx context.Context, name string, fresh bool, flags *hostFlags) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return errs.Field("stdin", "it is not a terminal", "use 'exec' or 'run'")
	}
	client, err := standing.Connect(ctx, name)
	if err == nil {
		defer client.Close()
		code, err := onTerminal(ctx, client.Run, standingEnvironment())
		return finished(name, code, err)
	}
	if !fresh || !errors.Is(err, errs.ErrNotFound) {
		return err
	}
	booting, stop := untilSignal(ctx)
	h, env, err := openHost(booting, false, flags, os.Stderr)
	stop()
	if err != nil {
		return err
	}
	defer h.Close()
	code, err := onTerminal(ctx, h.Run, env)
	if err != nil {
		return err
	}
	return exitCode(code)
}

// onTerminal runs a shell with this process's terminal as its own.
func onTerminal(ctx context.Context, run func(context.Context, remote.Command) (int, error), env []string) (int, error) {
	fd := int(os.Stdin.Fd())
	saved, err := term.MakeRaw(fd)
	if err != nil {
		return 0, err
	}
	defer func() { _ = term.Restore(fd, saved) }()
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	sizes := make(chan remote.Size)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			select {
			case sizes <- sizeOf(fd):
			case <-ctx.Done():
				return
			}
		}
	}()
	terminal := &remote.Terminal{Term: os.Getenv("TERM"), Size: sizeOf(fd), Resize: sizes}
	return run(ctx, remote.Command{Args: []string{"bash", "-i"}, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Terminal: terminal})
}

func sizeOf(fd int) remote.Size {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return remote.Size{Columns: 80, Rows: 24}
	}
	return remote.Size{Columns: columns, Rows: rows}
}
