// Package cli is the command line: it reads flags, calls the parts, prints what they say, and maps errors to exit codes.
package cli

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/extension"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/version"
)

// streams are the process's own, so that a test can stand in for them.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// Main runs the command line, with what extensions add to a server, and returns the process's exit code.
func Main(args []string, extensions ...extension.Extension) int {
	return execute(context.Background(), args, streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, extensions...)
}

func execute(ctx context.Context, args []string, s streams, extensions ...extension.Extension) int {
	root := newRoot(s, extensions...)
	root.SetArgs(args)
	root.SetOut(s.out)
	root.SetErr(s.err)
	return report(root.ExecuteContext(ctx), s.err)
}

func newRoot(s streams, extensions ...extension.Extension) *cobra.Command {
	var host hostFlags
	root := &cobra.Command{
		Use:   "wrenn",
		Short: "Run untrusted code in Firecracker microVMs on your own machine",
		Long: `Wrenn runs code that nobody trusts in Firecracker microVMs on your own machine: each sandbox is a virtual
machine with a kernel, disk and network of its own, made in moments and removed without a trace.

` + exitHelp,
		Example: `  wrenn host check                      can this machine run sandboxes?
  wrenn run -- uname -a                 run one command in a fresh microVM
  wrenn run -it -- bash                 a shell in one`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return errs.Field("flags", err.Error(), "see --help")
	})
	host.register(root)
	new(targetFlags).register(root)
	root.AddCommand(newRun(s, &host), newCreate(s, &host), newGet(s, &host), newExec(s, &host), newShell(s, &host), newCopy(s),
		newPause(s, &host), newResume(s, &host), newFork(s, &host), newSnapshot(s, &host), newList(s, &host), newRemove(s, &host),
		newLogs(s), newStats(s), newURL(s), newEvents(s), newHost(s, &host), newAgent(s, &host), newServer(s, extensions), newUp(s, &host, extensions))
	root.AddCommand(newTemplate(s), newLogin(s), newLogout(s), newContext(s), newKey(s))
	throughRemotes(root, s)
	completion(root)
	return root
}

// usage makes an argument count error of cobra's one that names its field.
func usage(check cobra.PositionalArgs, fix string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return errs.Field("arguments", err.Error(), fix)
		}
		return nil
	}
}
