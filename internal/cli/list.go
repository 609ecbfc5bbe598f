package cli

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newList(s streams, host *hostFlags) *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the sandboxes",
		Example: `  wrenn ls
  wrenn rm $(wrenn ls -q)                          remove them all
  wrenn ls --json | jq -r '.[] | select(.state == "paused") | .id'`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := sandboxes(cmd, host)
			switch {
			case err != nil:
				return err
			case asJSON:
				return printJSON(s.out, list)
			case quiet:
				for _, v := range list {
					fmt.Fprintln(s.out, v.ID)
				}
				return nil
			}
			return printList(s.out, list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids alone")
	return cmd
}

// sandboxes lists all, by a server or the agent if there is one.
func sandboxes(cmd *cobra.Command, host *hostFlags) (list []sandboxView, _ error) {
	list = []sandboxView{}
	return list, either(cmd, func(r remote) (err error) {
		list, err = collect(list, r.list(cmd.Context()))
		return err
	}, func() error {
		parts, err := host.parts()
		if err != nil {
			return err
		}
		records, err := parts.Manager.List()
		for _, r := range records {
			list = append(list, viewRecord(r))
		}
		return err
	})
}

// collect adds all of a sequence to a list, as far as it comes.
func collect[V any](list []V, seq iter.Seq2[V, error]) ([]V, error) {
	for v, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, v)
	}
	return list, nil
}

func printList(out io.Writer, list []sandboxView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tFROM\tVCPUS\tMEMORY\tSINCE\tLABELS")
	for _, v := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%dM\t%s\t%s\n", v.ID, v.State, v.origin(), v.VCPUs, v.MemoryMiB, clock(v.since()), labelText(v.Labels))
	}
	return w.Flush()
}

// labelText is labels in one word, quoted where they would look like something else.
func labelText(labels map[string]string) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, oneWord(k+"="+labels[k]))
	}
	return strings.Join(words, ",")
}

// oneWord is a text, quoted where it would look like something else.
func oneWord(text string) string {
	if quoted := fmt.Sprintf("%q", text); quoted != `"`+text+`"` || strings.ContainsAny(text, " ,") {
		return quoted
	}
	return text
}

func newGet(s streams, host *hostFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Tell all of one sandbox: its state, why it is in it, and how it came there",
		Example: `  wrenn get cl-0123456789abcdefghij
  wrenn get --json cl-0123456789abcdefghij | jq -r .state`,
		Args: usage(cobra.ExactArgs(1), giveID),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := getSandbox(cmd, host, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, v)
			}
			return printSandbox(s.out, v)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func getSandbox(cmd *cobra.Command, host *hostFlags, id string) (v sandboxView, _ error) {
	return v, either(cmd, func(r remote) (err error) {
		v, err = r.get(cmd.Context(), id)
		return err
	}, func() error {
		parts, err := host.parts()
		if err != nil {
			return err
		}
		r, err := parts.Manager.Get(id)
		v = viewRecord(r)
		return err
	})
}

func printSandbox(out io.Writer, v sandboxView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "id\t%s\n", v.ID)
	fmt.Fprintf(w, "state\t%s: %s\n", v.State, v.Reason)
	fmt.Fprintf(w, "from\t%s\n", v.origin())
	fmt.Fprintf(w, "size\t%d vcpus, %dM memory, %s disk\n", v.VCPUs, v.MemoryMiB, human(v.DiskBytes))
	fmt.Fprintf(w, "network\t%s\n", map[bool]string{true: "the public internet", false: "none but its own"}[v.Internet])
	if len(v.Labels) > 0 {
		fmt.Fprintf(w, "labels\t%s\n", labelText(v.Labels))
	}
	if v.TTLSeconds > 0 {
		fmt.Fprintf(w, "ttl\t%ds, then %s\n", v.TTLSeconds, v.OnExpiry)
	}
	if v.ExpiresAt != nil {
		fmt.Fprintf(w, "expires\t%s\n", clock(*v.ExpiresAt))
	}
	for i, c := range v.Changes {
		fmt.Fprintf(w, "%s\t%s  %s: %s\n", map[bool]string{true: "history"}[i == 0], clock(c.Time), c.State, c.Reason)
	}
	return w.Flush()
}
