package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// templateView is a template as it is printed.
type templateView struct {
	Name      string `json:"name"`
	ID        string `json:"id"`
	VCPUs     int    `json:"vcpus"`
	MemoryMiB int    `json:"memory_mib"`
}

func newTemplate(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "template", Short: "See what sandboxes start from"}
	var asJSON bool
	ls := &cobra.Command{
		Use:   "ls",
		Short: "List the templates, with what a sandbox gets unless it asks for something else",
		Long: `Ls lists the templates by name. An id changes with what is in a template.

It needs an agent or a server.`,
		Example: `  wrenn template ls
  wrenn template ls --json | jq -r '.[].name'`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withRemote(cmd, func(ctx context.Context, r remote) error {
				list, err := r.templates(ctx)
				switch {
				case err != nil:
					return err
				case asJSON:
					return printJSON(s.out, list)
				}
				w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tVCPUS\tMEMORY\tID")
				for _, t := range list {
					fmt.Fprintf(w, "%s\t%d\t%dM\t%s\n", t.Name, t.VCPUs, t.MemoryMiB, t.ID)
				}
				return w.Flush()
			})
		},
	}
	ls.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(ls)
	return cmd
}
