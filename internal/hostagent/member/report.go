package member

import (
	"context"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/proc"
	"wrenn.dev/wrenn/internal/version"
	pb "wrenn.dev/wrenn/proto/hosts/v1"
)

// Reporter is what Run tells of an agent that listens at an address; see ReportRequest.
func Reporter(a *hostagent.Agent, address string) func(context.Context) (*pb.ReportRequest, error) {
	return func(context.Context) (*pb.ReportRequest, error) {
		boot, err := proc.BootID()
		if err != nil {
			return nil, err
		}
		templates, err := a.Templates()
		if err != nil {
			return nil, err
		}
		s := a.Status()
		r := &pb.ReportRequest{Address: address, Version: version.String(), Boot: boot, MaxSandboxes: uint32(s.Limits.Sandboxes),
			MaxVcpus: uint32(s.Limits.VCPUs), MaxMemoryMib: uint64(s.Limits.MemoryMiB), MaxDiskBytes: uint64(s.Limits.DiskBytes)}
		if s.Limits.DiskBytes > 0 { // what is left of it when snapshots have theirs
			r.MaxDiskBytes = uint64(max(s.Limits.DiskBytes-s.Stored, 1))
		}
		for _, t := range templates {
			r.Templates = append(r.Templates, &pb.Template{Name: t.Name, Id: t.ID, Vcpus: uint32(t.VCPUs), MemoryMib: uint32(t.MemoryMiB),
				DiskBytes: uint64(t.Rootfs.Size)})
		}
		return r, nil
	}
}
