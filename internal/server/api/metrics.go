package api

import (
	"context"
	"math"

	"wrenn.dev/wrenn/internal/server/rest"
)

// number is a count as JSON has it.
func number(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// GetSandboxMetrics implements rest.StrictServerInterface.
func (s *server) GetSandboxMetrics(ctx context.Context, r rest.GetSandboxMetricsRequestObject) (rest.GetSandboxMetricsResponseObject, error) {
	is, err := s.Control.Stats(ctx, team(ctx), r.ID)
	if err != nil {
		return nil, err
	}
	out := rest.GetSandboxMetrics200JSONResponse{SandboxID: r.ID, At: is.GetTime().AsTime(), CPUMicroseconds: number(is.GetCpuMicroseconds()),
		MemoryBytes: number(is.GetMemoryBytes()), MemoryLimitBytes: number(is.GetMemoryLimitBytes()), DiskUsedBytes: number(is.GetDiskUsedBytes()),
		DiskCapacityBytes: number(is.GetDiskCapacityBytes()), DiskHostBytes: number(is.GetDiskHostBytes())}
	if n := is.GetNetwork(); n != nil {
		received, sent := number(n.GetReceivedBytes()), number(n.GetSentBytes())
		out.NetworkReceivedBytes, out.NetworkSentBytes = &received, &sent
	}
	if p := is.GetPager(); p != nil {
		out.Pager = &rest.PagerMetrics{CPUMicroseconds: number(p.GetCpuMicroseconds()), MemoryBytes: number(p.GetMemoryBytes()),
			Faults:    number(p.GetFaults()),
			ReadBytes: number(p.GetReadBytes()), Ended: p.GetEnded()}
	}
	return out, nil
}
