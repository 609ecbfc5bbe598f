package main

import (
	"context"
	"fmt"
	"io"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/emulated"
	"wrenn.dev/wrenn/test/kvmhost/native"
	"wrenn.dev/wrenn/test/kvmhost/remote"
)

// The values of --where.
const (
	whereAuto     = "auto"
	whereNative   = "native"
	whereEmulated = "emulated"
)

const whereHelp = "where to run: auto (on this machine if it can, else emulated), native, emulated"

// host is where commands run: this machine or an emulated one.
type host interface {
	Run(ctx context.Context, cmd remote.Command) (int, error)
	Close() error
}

// useNative decides by the flag, or by asking the built wrenn, and says in one line what was decided and why.
func useNative(ctx context.Context, where, bin string, log io.Writer) (bool, error) {
	switch where {
	case whereNative:
		fmt.Fprintln(log, "kvmhost: running on this machine: asked for with --where")
		return true, nil
	case whereEmulated:
		fmt.Fprintln(log, "kvmhost: running in the emulated KVM host: asked for with --where")
		return false, nil
	case whereAuto:
	default:
		return false, errs.Field("--where", fmt.Sprintf("%q is no place", where), "give auto, native or emulated")
	}
	fit, why, err := native.Fit(ctx, bin)
	if err != nil {
		return false, err
	}
	place := "in the emulated KVM host"
	if fit {
		place = "on this machine"
	}
	fmt.Fprintf(log, "kvmhost: running %s: %s\n", place, why)
	return fit, nil
}

// openHost returns a host and the environment that commands get in it.
func openHost(ctx context.Context, isNative bool, flags *hostFlags, log io.Writer) (host, []string, error) {
	if isNative {
		h, err := native.New(ctx, flags.bin)
		return h, environment(flags.bin, flags.images), err
	}
	o, err := flags.options(log)
	if err != nil {
		return nil, nil, err
	}
	h, err := boot(ctx, o, "", log)
	return h, flags.insideEnvironment(), err
}

// boot boots an emulated host and says how long it took.
func boot(ctx context.Context, o emulated.Options, name string, log io.Writer) (host, error) {
	stop := stopwatch(log, "boot the emulated KVM host"+name)
	h, err := emulated.Boot(ctx, o)
	stop(err)
	if err != nil {
		return nil, err
	}
	return h, nil
}
