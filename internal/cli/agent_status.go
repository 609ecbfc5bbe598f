package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

func newAgentStatus(s streams) *cobra.Command {
	var socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what the agent of this machine is doing",
		Args:  usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := client.Unix(socket)
			defer c.Close()
			resp, err := c.Host.Status(cmd.Context(), connect.NewRequest(&pb.StatusRequest{}))
			if err != nil {
				return fmt.Errorf("%w (socket %s; 'wrenn agent' starts one)", err, socket)
			}
			if asJSON {
				data, err := protojson.Marshal(resp.Msg)
				if err != nil {
					return err
				}
				return json.NewEncoder(s.out).Encode(json.RawMessage(data))
			}
			return printStatus(s.out, resp.Msg)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", env("WRENN_AGENT_SOCKET", defaultSocket), "the agent's socket ($WRENN_AGENT_SOCKET)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(out io.Writer, s *pb.StatusResponse) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "version\t%s\n", s.GetVersion())
	fmt.Fprintf(w, "up\t%v\n", time.Since(s.GetStartedAt().AsTime()).Round(time.Second))
	fmt.Fprintf(w, "operations\t%d under way, %d sandboxes to be taken over\n", s.GetOperations(), s.GetAdopting())
	for _, state := range slices.Sorted(maps.Keys(s.GetStates())) {
		fmt.Fprintf(w, "%s\t%d\n", state, s.GetStates()[state])
	}
	used, limits := s.GetUsed(), s.GetLimits()
	for _, r := range []struct {
		what       string
		used, most uint64
		unit       string
	}{
		{"sandboxes", uint64(used.GetSandboxes()), uint64(limits.GetSandboxes()), ""},
		{"vcpus", uint64(used.GetVcpus()), uint64(limits.GetVcpus()), ""},
		{"memory", used.GetMemoryMib(), limits.GetMemoryMib(), " MiB"},
		{"disk", used.GetDiskBytes() >> 20, limits.GetDiskBytes() >> 20, " MiB"},
	} {
		most := fmt.Sprintf("of %d%s", r.most, r.unit)
		if r.most == 0 {
			most = "no limit"
		}
		fmt.Fprintf(w, "%s used\t%d%s\t%s\n", r.what, r.used, r.unit, most)
	}
	return w.Flush()
}
