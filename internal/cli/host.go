package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostcheck"
	"wrenn.dev/wrenn/internal/leftovers"
)

func newHost(s streams, host *hostFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "host", Short: "Look after this machine: check what it needs, sweep what a crash left"}
	cmd.AddCommand(newHostCheck(s, host), newHostSweep(s, host))
	return cmd
}

// requireRun is what --require takes: that sandboxes can run.
const requireRun = "run"

func newHostCheck(s streams, host *hostFlags) *cobra.Command {
	var asJSON bool
	var require string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether this machine can run sandboxes, and what to do if not",
		Long: `Check looks at every requirement of a host: a KVM that really runs a guest, device-mapper, loop devices, namespaces,
nftables, cgroups, Firecracker and its jailer with the known holes of their version, disk space, clock, and more. Each
item is ok, a warning, or a failure with its fix. It leaves nothing behind.

Without --require the exit code is 0 whatever it finds; with '--require run' it is 1 when sandboxes can't run.`,
		Example: `  wrenn host check
  wrenn host check --require run && wrenn run -- true
  wrenn host check --json | jq '.items[] | select(.state != "ok")'`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if require != "" && require != requireRun {
				return errs.Field("--require", fmt.Sprintf("%q is nothing to require", require), "give "+requireRun)
			}
			report := hostcheck.Check(cmd.Context(), host.checkOptions())
			if err := printReport(s.out, report, asJSON); err != nil {
				return err
			}
			if require == requireRun && !report.Fit {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&require, "require", "", "fail unless the machine is fit for this: run")
	return cmd
}

func printReport(w io.Writer, report hostcheck.Report, asJSON bool) error {
	if !asJSON {
		return report.Text(w)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

func newHostSweep(s streams, host *hostFlags) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Remove what a crash left: sandboxes that no living process works on",
		Long: `Sweep finds every sandbox of this machine whose owner has ended, and removes exactly what is its: process, network
namespace, links, device-mapper and loop devices, cgroup, chroot, files. What a living process works on is never touched.
What was paused stays; a sandbox made with --keep stays while its machine runs, and if it failed or was lost, its record
stays for a day and says why; one whose record can't be read is left alone. With --all they are removed as well.`,
		Example: `  wrenn host sweep
  wrenn host sweep --all                   before the state folder is deleted`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error { return sweep(cmd.Context(), s, host, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove kept, paused and unreadable sandboxes too")
	return cmd
}

func sweep(ctx context.Context, s streams, host *hostFlags, all bool) error {
	parts, err := host.parts()
	if err != nil {
		return err
	}
	done, err := parts.Manager.Sweep(ctx, all)
	for _, d := range done {
		what := "removed"
		switch {
		case d.Err != "":
			what = "not removed"
		case d.InUse:
			what = "in use"
		case d.Kept:
			what = "kept"
		}
		fmt.Fprintf(s.out, "%s  %s: %s\n", d.ID, what, d.Reason)
	}
	if len(done) == 0 {
		fmt.Fprintln(s.out, "nothing to sweep")
	}
	return errors.Join(err, host.sayLeft(ctx, s.out))
}

func newRemove(s streams, host *hostFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm ID...",
		Short: "Remove sandboxes, in any state, with all they have",
		Example: `  wrenn rm cl-0123456789abcdefghij
  wrenn rm $(wrenn ls -q)`,
		Args: usage(cobra.MinimumNArgs(1), giveID),
		RunE: func(cmd *cobra.Command, args []string) error {
			parts, err := host.parts()
			if err != nil {
				return err
			}
			return each(cmd, args, s, func(id string) error { return parts.Manager.Destroy(cmd.Context(), id, "wrenn rm") })
		},
	}
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}

// sayLeft prints what of ours is on the host that no living sandbox owns.
func (h *hostFlags) sayLeft(ctx context.Context, w io.Writer) error {
	left, err := leftovers.Left(ctx, h.stateDir)
	if err != nil {
		return err
	}
	if len(left) == 0 {
		fmt.Fprintln(w, "left behind: nothing")
		return nil
	}
	for _, o := range left {
		fmt.Fprintf(w, "left behind: %s\n", o)
	}
	return nil
}
