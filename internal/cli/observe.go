package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"wrenn.dev/wrenn/internal/errs"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// logsView is the end of what a sandbox's machine has written.
type logsView struct {
	Console string `json:"console"`
	VMM     string `json:"vmm"`
}

func newLogs(s streams) *cobra.Command {
	var asJSON bool
	var only string
	var size int
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Show the end of what a sandbox's machine has written",
		Long: `Logs shows the end of the guest's console and of the log of its VMM. Of a machine that ended, it is what it was then. A sandbox
that did not boot with --console writes little to its console. What the guest wrote is shown with all control characters spelled out.

It needs an agent.`,
		Example: `  wrenn logs cl-0123456789abcdefghij
  wrenn logs --only console --bytes 65536 cl-0123456789abcdefghij`,
		Args: usage(cobra.ExactArgs(1), giveID),
		RunE: func(cmd *cobra.Command, args []string) error {
			if size < 1 || size > 64<<10 {
				return errs.Field("--bytes", fmt.Sprintf("%d is out of range", size), "give 1 to 65536")
			}
			if only != "" && only != "console" && only != "vmm" {
				return errs.Field("--only", fmt.Sprintf("%q is no log", only), "give console or vmm")
			}
			return withRemote(cmd, func(ctx context.Context, r remote) error {
				v, err := r.logs(ctx, args[0], size)
				switch {
				case err != nil:
					return err
				case asJSON:
					return printJSON(s.out, v)
				}
				return printLogs(s.out, only, v)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&only, "only", "", "one of the two: console or vmm")
	cmd.Flags().IntVar(&size, "bytes", 16<<10, "the most of each, at most 65536")
	return cmd
}

func printLogs(w io.Writer, only string, v logsView) error {
	for _, l := range []struct{ name, text string }{{"console", v.Console}, {"vmm", v.VMM}} {
		if only == "" {
			fmt.Fprintf(w, "==> %s <==\n", l.name)
		}
		if only == "" || only == l.name {
			if _, err := fmt.Fprintln(w, l.text); err != nil {
				return err
			}
		}
	}
	return nil
}

// statsView is what one sandbox takes of the host.
type statsView struct {
	ID                string     `json:"id"`
	Time              time.Time  `json:"time"`
	CPUMicroseconds   uint64     `json:"cpu_microseconds"`
	MemoryBytes       uint64     `json:"memory_bytes"`
	MemoryLimitBytes  uint64     `json:"memory_limit_bytes"`
	DiskUsedBytes     uint64     `json:"disk_used_bytes"`
	DiskCapacityBytes uint64     `json:"disk_capacity_bytes"`
	DiskHostBytes     uint64     `json:"disk_host_bytes"`
	Pager             *pagerView `json:"pager,omitempty"`
}

// pagerView is what the process takes that answers a machine's page faults, and what it did.
type pagerView struct {
	CPUMicroseconds uint64 `json:"cpu_microseconds"`
	MemoryBytes     uint64 `json:"memory_bytes"`
	Faults          uint64 `json:"faults"`
	ReadBytes       uint64 `json:"read_bytes"`
	PresentPages    uint64 `json:"present_pages,omitempty"`
	PrefetchedPages uint64 `json:"prefetched_pages,omitempty"`
	Ended           bool   `json:"ended"`
}

func viewStats(s *pb.Stats) statsView {
	v := statsView{ID: s.GetId(), Time: s.GetTime().AsTime(), CPUMicroseconds: s.GetCpuMicroseconds(), MemoryBytes: s.GetMemoryBytes(),
		MemoryLimitBytes: s.GetMemoryLimitBytes(), DiskUsedBytes: s.GetDiskUsedBytes(), DiskCapacityBytes: s.GetDiskCapacityBytes(),
		DiskHostBytes: s.GetDiskHostBytes()}
	if p := s.GetPager(); p != nil {
		v.Pager = &pagerView{p.GetCpuMicroseconds(), p.GetMemoryBytes(), p.GetFaults(), p.GetReadBytes(), p.GetPresentPages(), p.GetPrefetchedPages(), p.GetEnded()}
	}
	return v
}

func newStats(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "stats [ID...]",
		Short: "Show what sandboxes take of their host",
		Long: `Stats shows what each sandbox that has a machine takes of the host, now: processor time since its start, memory, how full the store of
its disk's changes is, and what the process did that brings its memory in from the build. Without an ID it shows all.

It needs an agent or a server. A server does not tell the pages that are present or were prefetched.`,
		Example: `  wrenn stats
  wrenn stats --json cl-0123456789abcdefghij | jq '.[0].memory_bytes'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withRemote(cmd, func(ctx context.Context, r remote) error {
				list, err := r.stats(ctx, args)
				switch {
				case err != nil:
					return err
				case asJSON:
					return printJSON(s.out, list)
				}
				return printStats(s.out, list)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStats(out io.Writer, list []statsView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCPU TIME\tMEMORY\tDISK CHANGES\tON HOST\tFAULTS\tREAD IN")
	of := func(used, most uint64) string {
		if most == 0 {
			return human(int64(used))
		}
		return fmt.Sprintf("%s of %s", human(int64(used)), human(int64(most)))
	}
	for _, v := range list {
		faults, in := "-", "-"
		if v.Pager != nil && !v.Pager.Ended {
			faults, in = fmt.Sprint(v.Pager.Faults), human(int64(v.Pager.ReadBytes))
		}
		fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%s\t%s\n", v.ID, (time.Duration(v.CPUMicroseconds) * time.Microsecond).Round(time.Millisecond),
			of(v.MemoryBytes, v.MemoryLimitBytes), of(v.DiskUsedBytes, v.DiskCapacityBytes), human(int64(v.DiskHostBytes)), faults, in)
	}
	return w.Flush()
}
