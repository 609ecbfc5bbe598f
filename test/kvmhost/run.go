package main

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/layout"
	"wrenn.dev/wrenn/test/kvmhost/remote"
	"wrenn.dev/wrenn/test/kvmhost/rootdisk"
)

func newBuild() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Make what a host boots from, unless it is in the cache",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			done := stopwatch(os.Stderr, "make the emulated KVM host")
			_, err := rootdisk.Make(ctx, os.Stderr)
			done(err)
			return err
		},
	}
}

func newRun() *cobra.Command {
	var flags hostFlags
	var where, out string
	var env []string
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG…]",
		Short: "Boot a host, run a command in it, and power it off",
		Long: `Run boots a host, runs a command in it with this process's stdin, stdout and stderr, powers the host off, and exits with the
command's exit code. An interrupt is passed to the command; a second one ends the host.`,
		Args: needCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return runOnce(cmd.Context(), &flags, where, out, remote.Command{Args: args, Env: env})
		},
	}
	flags.register(cmd.Flags())
	cmd.Flags().StringVar(&where, "where", whereAuto, whereHelp)
	cmd.Flags().StringVar(&out, "out", "", "folder for what the command leaves in its working directory, which is empty at its start")
	cmd.Flags().StringArrayVar(&env, "env", nil, "K=V for the command (may be repeated)")
	return cmd
}

func needCommand(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errs.Field("COMMAND", "there is none", "give one after --")
	}
	return nil
}

func runOnce(ctx context.Context, flags *hostFlags, where, out string, command remote.Command) error {
	ctx, signals, stop := passSignals(ctx)
	defer stop()
	isNative, err := useNative(ctx, where, flags.bin, os.Stderr)
	if err != nil {
		return err
	}
	h, env, err := openHost(ctx, isNative, flags, os.Stderr)
	if err != nil {
		return err
	}
	defer h.Close()
	command.Env = append(env, command.Env...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Signals = signals
	switch {
	case out != "" && isNative:
		command.Dir = out
	case out != "":
		command.Dir = layout.Out
	case isNative:
		command.Dir, _ = os.Getwd()
	}
	code, err := h.Run(ctx, command)
	if err != nil {
		return err
	}
	if out != "" && !isNative {
		if err := fetch(ctx, h, layout.Out, out); err != nil {
			return err
		}
	}
	return exitCode(code)
}

// fetch copies the files of a folder inside to a folder here.
func fetch(ctx context.Context, h host, from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := untar(root, r)
		_ = r.CloseWithError(err)
		unpacked <- err
	}()
	_, err = h.Run(ctx, remote.Command{Args: []string{"tar", "-C", filepath.Clean(from), "-c", "."}, Stdout: w, Stderr: os.Stderr})
	_ = w.CloseWithError(err)
	if unpackErr := <-unpacked; err == nil {
		err = unpackErr
	}
	return err
}
