// Kvmhost runs commands and tests in an emulated KVM host, on machines that have no KVM for Linux guests of their own. See
// `go run ./test/kvmhost --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/test/kvmhost/machine"
)

// The tool's own exit codes. A command that ran passes its own through instead.
const (
	exitTestsFailed = 1
	exitUsage       = 2
	exitFailed      = 125
	exitInterrupted = 130
)

const longHelp = `Kvmhost is a Linux machine with KVM and device-mapper where there is none: QEMU emulates it in software, with AMD's
virtualization, so that the real kernel, the real Firecracker and the real device-mapper run in it, unchanged. It is made from
Debian packages in under a minute, once, and boots in some seconds.

Inside: root, Debian 13's cloud kernel and tools; KVM, device-mapper, loop, tun, nftables, cgroup v2 ready; and

  /opt/wrenn/bin   the folder given with --bin, read-only, first on the PATH
  /images          the folder given with --images, read-only
  /var/lib/wrenn   an empty XFS disk with reflinks (--scratch), or one that is kept (--state)

Commands find WRENN_BIN and WRENN_IMAGES set to the first two. Nothing written inside outlives the host but what is in the
file of --state, and nothing of the host outlives the tool, except between 'up' and 'down'.

Everything is 10 to 100 times slower inside than on real hardware. If the emulated machine dies or hangs, which QEMU's
emulation does rarely, that is reported with the end of its console.`

const examples = `  kvmhost run -- ls -l /dev/kvm                      boot, run one command, power off
  kvmhost run --bin bin --images DIR -- wrenn run -- uname -a
  kvmhost shell --bin bin                            a shell in a fresh one
  kvmhost up --bin bin --forward 8080:80             one that stays up
  kvmhost exec -- dmesg                              a command in it
  kvmhost down
  kvmhost test --bin bin ./internal/disk/...         host tests, on two hosts side by side`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	root := &cobra.Command{
		Use:           "kvmhost",
		Short:         "Run commands and tests in an emulated KVM host",
		Long:          longHelp,
		Example:       examples,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errs.Field("flags", err.Error(), "see --help") })
	root.AddCommand(newBuild(), newRun(), newUp(), newExec(), newShell(), newDown(), newList(), newServe(), newTest())
	root.SetArgs(args)
	return report(root.ExecuteContext(context.Background()))
}

// exitCode carries the exit code of a command that ran: there is nothing to print.
type exitCode int

// Error is never shown.
func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// report prints an error, if it is one to print, and returns the process's exit code.
func report(err error) int {
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	var lost *machine.Lost
	if errors.As(err, &lost) {
		fmt.Fprint(os.Stderr, "kvmhost: ", lost.Report())
		return exitFailed
	}
	fmt.Fprintln(os.Stderr, "kvmhost:", strings.TrimSpace(err.Error()))
	switch {
	case errors.Is(err, errs.ErrInvalid):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}
