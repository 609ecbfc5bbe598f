package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/hostagent/client"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// statusView is what the agent is doing.
type statusView struct {
	Version    string            `json:"version"`
	StartedAt  time.Time         `json:"started_at"`
	Boot       string            `json:"boot"`
	States     map[string]uint32 `json:"states"`
	Operations uint32            `json:"operations"`
	Adopting   uint32            `json:"adopting"`
	Used       amountView        `json:"used"`
	Limits     amountView        `json:"limits"`
	LastEvent  uint64            `json:"last_event"`
}

// amountView is what sandboxes take together, or may; a limit of 0 is none.
type amountView struct {
	Sandboxes uint32 `json:"sandboxes"`
	VCPUs     uint32 `json:"vcpus"`
	MemoryMiB uint64 `json:"memory_mib"`
	DiskBytes uint64 `json:"disk_bytes"`
}

func viewStatus(s *pb.StatusResponse) statusView {
	amount := func(r *pb.Resources) amountView {
		return amountView{r.GetSandboxes(), r.GetVcpus(), r.GetMemoryMib(), r.GetDiskBytes()}
	}
	return statusView{Version: s.GetVersion(), StartedAt: s.GetStartedAt().AsTime(), Boot: s.GetBoot(), States: s.GetStates(),
		Operations: s.GetOperations(), Adopting: s.GetAdopting(), Used: amount(s.GetUsed()), Limits: amount(s.GetLimits()), LastEvent: s.GetLastEvent()}
}

func newAgentStatus(s streams) *cobra.Command {
	var socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what the agent of this machine is doing",
		Example: `  wrenn agent status
  wrenn agent status --json | jq .used`,
		Args: usage(cobra.NoArgs, "give none"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := client.Unix(socket)
			defer c.Close()
			resp, err := c.Host.Status(cmd.Context(), connect.NewRequest(&pb.StatusRequest{}))
			if err != nil {
				return fmt.Errorf("%w (socket %s; 'wrenn agent' starts one)", err, socket)
			}
			if asJSON {
				return printJSON(s.out, viewStatus(resp.Msg))
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
