package cli

import (
	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/sandbox"
)

// shellScript becomes the best shell that the guest has, as a login shell.
const shellScript = `command -v bash >/dev/null && exec bash -l; exec sh -l`

func newShell(s streams, host *hostFlags) *cobra.Command {
	var f commandFlags
	cmd := &cobra.Command{
		Use:   "shell ID",
		Short: "Open a shell in a sandbox that runs",
		Long: `Shell is 'wrenn exec -it ID -- bash', or sh where there is no bash. Where standard input is no terminal, it is the shell's script.

` + exitHelp,
		Example: `  wrenn shell cl-0123456789abcdefghij
  wrenn shell --user root cl-0123456789abcdefghij
  wrenn shell cl-0123456789abcdefghij < setup.sh`,
		Args: usage(cobra.ExactArgs(1), giveID),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.interactive, f.tty = true, isTerminal(s.in)
			command, err := f.command(s, []string{"sh", "-c", shellScript})
			if err != nil {
				return err
			}
			ctx, stopper, stop := newStopper(cmd.Context())
			defer stop()
			return adopted(ctx, host, args[0], func(sb *sandbox.Sandbox) error {
				return attached(ctx, s, sb, &f, command, stopper, progress{})
			})
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.env, "env", nil, "set a variable, NAME=VALUE; may be given again")
	fl.StringVar(&f.user, "user", "", "as this user of the guest (default: user)")
	fl.StringVar(&f.cwd, "cwd", "", "in this folder of the guest (default: the user's home)")
	return cmd
}
