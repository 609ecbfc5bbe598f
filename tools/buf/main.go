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

	"wrenn.dev/wrenn/tools/wheel"
)

const version = "1.75.0"

var program = wheel.Program{Package: "buf-bin", Version: version, Path: "buf_bin-" + version + ".data/scripts/buf", Wheels: map[string]wheel.Wheel{
	"amd64": {Platform: "manylinux2014_x86_64", SHA256: "6fd3ecb1694b6f5bcdfb9bef5297b330ffb9731b95445a42944c1b6158428101"},
	"arm64": {Platform: "manylinux2014_aarch64", SHA256: "159e994efa072a7f3c84e5b90cf57f7b9a5e9f6387121bfc70e82ec7167d5694"},
}}

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
	buf, err := program.Install(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "check":
		return check(ctx, buf)
	case len(args) == 1 && args[0] == "baseline":
		return move(ctx, buf)
	}
	return wheel.Run(ctx, buf, args...)
}
