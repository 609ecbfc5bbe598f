package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

const giveID = "give the id of a sandbox; 'wrenn ls' lists them"

func newExec(s streams, host *hostFlags) *cobra.Command {
	var f commandFlags
	cmd := &cobra.Command{
		Use:   "exec [flags] ID -- COMMAND [ARG...]",
		Short: "Run a command in a sandbox that runs",
		Long:  "Exec runs a command in a sandbox that was kept, as run does in a new one.\n\n" + exitHelp,
		Example: `  wrenn exec cl-0123456789abcdefghij -- ls -l
  wrenn exec -it cl-0123456789abcdefghij -- bash
  wrenn exec --user root --cwd /srv --timeout 1m cl-0123456789abcdefghij -- make install`,
		Args: usage(cobra.MinimumNArgs(2), giveID+", and the command after --"),
		RunE: func(cmd *cobra.Command, args []string) error {
			command, err := f.command(s, args[1:])
			if err != nil {
				return err
			}
			ctx, stopper, stop := newStopper(cmd.Context())
			defer stop()
			return adopted(ctx, host, args[0], func(sb *sandbox.Sandbox) error {
				return attached(ctx, s, sb, &f, command, stopper, progress{on: f.progress, w: s.err})
			})
		},
	}
	f.register(cmd)
	return cmd
}

// adopted takes a running sandbox for as long as fn takes.
func adopted(ctx context.Context, host *hostFlags, id string, fn func(*sandbox.Sandbox) error) error {
	parts, err := host.parts()
	if err != nil {
		return err
	}
	sb, err := parts.Manager.Adopt(ctx, id)
	if err != nil {
		return err
	}
	defer sb.Leave()
	return fn(sb)
}

// lifeFlags are what the commands of the life cycle take.
type lifeFlags struct{ progress bool }

func (f *lifeFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.progress, "progress", false, "say on standard error what each step took")
}

// tell prints the steps of an operation that is over, and what it took in all.
func (f *lifeFlags) tell(s streams, what string, began time.Time, steps []vmm.Step) {
	p := progress{on: f.progress, w: s.err}
	for _, step := range steps {
		p.step(step)
	}
	p.line("%s after %v", what, time.Since(began).Round(time.Millisecond))
}

func newPause(s streams, host *hostFlags) *cobra.Command {
	var f lifeFlags
	cmd := &cobra.Command{
		Use:   "pause ID",
		Short: "Freeze a sandbox with its memory to disk",
		Long: `Pause freezes a sandbox, with its memory, its disk and all its processes, and gives back what it had on the host: from
then on it takes disk space and nothing else. 'wrenn resume' lets it go on where it was.`,
		Example: `  wrenn pause cl-0123456789abcdefghij
  wrenn pause --progress cl-0123456789abcdefghij      what each step takes`,
		Args: usage(cobra.ExactArgs(1), giveID),
		RunE: interruptible(func(ctx context.Context, args []string) error {
			return adopted(ctx, host, args[0], func(sb *sandbox.Sandbox) error {
				began := time.Now()
				steps, err := sb.Pause(ctx, "wrenn pause")
				f.tell(s, "paused", began, steps)
				return err
			})
		}),
	}
	f.register(cmd)
	return cmd
}

func newResume(s streams, host *hostFlags) *cobra.Command {
	var f lifeFlags
	cmd := &cobra.Command{
		Use:   "resume ID",
		Short: "Let a paused sandbox go on",
		Example: `  wrenn resume cl-0123456789abcdefghij
  wrenn exec cl-0123456789abcdefghij -- uptime        it runs on where it was`,
		Args: usage(cobra.ExactArgs(1), giveID),
		RunE: interruptible(func(ctx context.Context, args []string) error {
			parts, err := host.ready()
			if err != nil {
				return err
			}
			began := time.Now()
			sb, err := parts.Manager.Resume(ctx, args[0], nil)
			if err != nil {
				return err
			}
			defer sb.Leave()
			f.tell(s, "resumed", began, sb.Steps)
			return nil
		}),
	}
	f.register(cmd)
	return cmd
}

func newFork(s streams, host *hostFlags) *cobra.Command {
	var f lifeFlags
	var count int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fork ID",
		Short: "Start others that begin where a sandbox is now",
		Long: `Fork freezes a sandbox for a moment and starts others from there, with its memory, its disk and its processes, each with an
identity, an address, a token and randomness of its own. It prints their ids.`,
		Example: `  wrenn fork cl-0123456789abcdefghij
  for id in $(wrenn fork --count 3 cl-0123456789abcdefghij); do wrenn exec $id -- ./try; done`,
		Args: usage(cobra.ExactArgs(1), giveID),
		RunE: interruptible(func(ctx context.Context, args []string) error {
			return adopted(ctx, host, args[0], func(sb *sandbox.Sandbox) error {
				began := time.Now()
				clones, steps, err := sb.Fork(ctx, count, nil)
				var list []outcomeView
				for _, c := range clones {
					if c.Err != nil {
						list = append(list, outcomeView{err: c.Err})
						continue
					}
					steps = append(steps, c.Sandbox.Steps...)
					c.Sandbox.Leave()
					list = append(list, outcomeView{Name: c.Sandbox.ID})
				}
				f.tell(s, fmt.Sprintf("%d forked", len(clones)), began, steps)
				return errors.Join(err, printOutcomes(s, asJSON, list))
			})
		}),
	}
	cmd.Flags().IntVar(&count, "count", 1, "how many")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	f.register(cmd)
	return cmd
}

func newSnapshot(s streams, host *hostFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Freeze sandboxes under names; 'wrenn run --snapshot NAME' starts others from one",
	}
	cmd.AddCommand(newSnapshotCreate(s, host), newSnapshotList(s, host), newSnapshotRemove(s, host))
	return cmd
}

func newSnapshotCreate(s streams, host *hostFlags) *cobra.Command {
	var f lifeFlags
	cmd := &cobra.Command{
		Use:   "create ID NAME",
		Short: "Freeze a sandbox under a name; it runs on",
		Example: `  wrenn snapshot create cl-0123456789abcdefghij ready
  wrenn run --snapshot ready -- ./test                starts where the sandbox was`,
		Args: usage(cobra.ExactArgs(2), giveID+", and a name"),
		RunE: interruptible(func(ctx context.Context, args []string) error {
			return adopted(ctx, host, args[0], func(sb *sandbox.Sandbox) error {
				began := time.Now()
				steps, err := sb.Snapshot(ctx, args[1])
				f.tell(s, "frozen as "+args[1], began, steps)
				return err
			})
		}),
	}
	f.register(cmd)
	return cmd
}

// snapshotView is a snapshot as it is printed. What it is on the host, the host knows; where it comes from, a server.
type snapshotView struct {
	Name      string     `json:"name"`
	Build     string     `json:"build,omitempty"`
	Sandbox   string     `json:"sandbox,omitempty"`
	Template  string     `json:"template,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
}

func (v snapshotView) created() time.Time {
	if v.CreatedAt == nil {
		return time.Time{}
	}
	return *v.CreatedAt
}

func newSnapshotList(s streams, host *hostFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the snapshots",
		Example: `  wrenn snapshot ls
  wrenn snapshot ls --json | jq -r '.[].name'`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := snapshots(cmd, host)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, list)
			}
			w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tBUILD\tSANDBOX\tSINCE")
			for _, v := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Name, cmp.Or(v.Build, "-"), cmp.Or(v.Sandbox, "-"), clock(v.created()))
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// snapshots lists all, by a server or the agent if there is one.
func snapshots(cmd *cobra.Command, host *hostFlags) (list []snapshotView, _ error) {
	list = []snapshotView{}
	return list, either(cmd, func(r remote) (err error) {
		list, err = collect(list, r.snapshots(cmd.Context()))
		return err
	}, func() error {
		parts, err := host.parts()
		if err != nil {
			return err
		}
		names, err := parts.Manager.Snapshots()
		for _, name := range slices.Sorted(maps.Keys(names)) {
			list = append(list, snapshotView{Name: name, Build: names[name]})
		}
		return err
	})
}

func newSnapshotRemove(s streams, host *hostFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Short:   "Remove snapshots that no sandbox uses",
		Example: "  wrenn snapshot rm ready",
		Args:    usage(cobra.MinimumNArgs(1), "give the name of a snapshot; 'wrenn snapshot ls' lists them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			parts, err := host.parts()
			if err != nil {
				return err
			}
			return each(cmd, args, s, func(name string) error { return parts.Manager.DeleteSnapshot(cmd.Context(), name) })
		},
	}
	cmd.Flags().Bool("json", false, "print JSON")
	return cmd
}
