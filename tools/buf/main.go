// Buf runs the pinned version of buf, which it gets from PyPI and keeps in the build cache.
//
//	go run ./tools/buf lint
//	go run ./tools/buf format -d
//	go run ./tools/buf generate
//	go run ./tools/buf baseline   # what is new in the protos goes into the baseline, which no later change may break
//	go run ./tools/buf check      # lint, format, breaking changes, and whether baseline and generated code are up to date
//
// It runs in the folder of buf.yaml, the top of the repository.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "buf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if _, err := os.Stat("buf.yaml"); err != nil {
		return fmt.Errorf("run it at the top of the repository: %w", err)
	}
	buf, err := install(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "check":
		return check(ctx, buf)
	case len(args) == 1 && args[0] == "baseline":
		return move(ctx, buf)
	}
	return command(ctx, buf, args...)
}

// command runs buf with this process's streams.
func command(ctx context.Context, buf string, args ...string) error {
	cmd := exec.CommandContext(ctx, buf, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
