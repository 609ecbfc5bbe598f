package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func newList(s streams, host *hostFlags) *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the sandboxes of this machine",
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

// sandboxes lists all, by the agent if there is one.
func sandboxes(cmd *cobra.Command, host *hostFlags) ([]sandboxView, error) {
	list := []sandboxView{}
	if c := agentOf(cmd); c != nil {
		defer c.Close()
		err := eachSandbox(cmd.Context(), c, func(s *pb.Sandbox) { list = append(list, viewSandbox(s)) })
		return list, err
	}
	parts, err := host.parts()
	if err != nil {
		return nil, err
	}
	records, err := parts.Manager.List()
	for _, r := range records {
		list = append(list, viewRecord(r))
	}
	return list, err
}

// eachSandbox goes through the agent's sandboxes, page by page.
func eachSandbox(ctx context.Context, c *client.Client, do func(*pb.Sandbox)) error {
	req := &pb.ListRequest{PageSize: 1000}
	for {
		resp, err := c.Sandboxes.List(ctx, connect.NewRequest(req))
		if err != nil {
			return err
		}
		for _, s := range resp.Msg.GetSandboxes() {
			do(s)
		}
		if req.PageToken = resp.Msg.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
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
		word := k + "=" + labels[k]
		if quoted := fmt.Sprintf("%q", word); quoted != `"`+word+`"` || strings.ContainsAny(word, " ,") {
			word = quoted
		}
		words = append(words, word)
	}
	return strings.Join(words, ",")
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

func getSandbox(cmd *cobra.Command, host *hostFlags, id string) (sandboxView, error) {
	if c := agentOf(cmd); c != nil {
		defer c.Close()
		resp, err := c.Sandboxes.Get(cmd.Context(), connect.NewRequest(&pb.GetRequest{Id: id}))
		if err != nil {
			return sandboxView{}, err
		}
		return viewSandbox(resp.Msg.GetSandbox()), nil
	}
	parts, err := host.parts()
	if err != nil {
		return sandboxView{}, err
	}
	r, err := parts.Manager.Get(id)
	return viewRecord(r), err
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
