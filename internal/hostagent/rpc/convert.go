package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// states are the states' numbers on the wire.
var states = map[sandbox.State]pb.State{
	sandbox.Starting: pb.State_STATE_STARTING, sandbox.Running: pb.State_STATE_RUNNING, sandbox.Pausing: pb.State_STATE_PAUSING,
	sandbox.Paused: pb.State_STATE_PAUSED, sandbox.Resuming: pb.State_STATE_RESUMING, sandbox.Stopping: pb.State_STATE_STOPPING,
	sandbox.Stopped: pb.State_STATE_STOPPED, sandbox.Failed: pb.State_STATE_FAILED, sandbox.Lost: pb.State_STATE_LOST,
	sandbox.Unreadable: pb.State_STATE_UNREADABLE,
}

func fromStates(list []pb.State) map[sandbox.State]bool {
	set := map[sandbox.State]bool{}
	for _, asked := range list {
		for s, number := range states {
			if number == asked {
				set[s] = true
			}
		}
	}
	return set
}

func toExpiry(e hostagent.Expiry) pb.Expiry {
	switch e {
	case hostagent.ExpiryPause:
		return pb.Expiry_EXPIRY_PAUSE
	case hostagent.ExpiryDestroy:
		return pb.Expiry_EXPIRY_DESTROY
	}
	return pb.Expiry_EXPIRY_UNSPECIFIED
}

func fromExpiry(e pb.Expiry) hostagent.Expiry {
	if e == pb.Expiry_EXPIRY_PAUSE {
		return hostagent.ExpiryPause
	}
	return hostagent.ExpiryDestroy
}

func toChange(c sandbox.Change) *pb.Change {
	return &pb.Change{State: states[c.State], Time: timestamppb.New(c.Time), Reason: c.Reason}
}

func toSandbox(i hostagent.Info) *pb.Sandbox {
	sb := &pb.Sandbox{
		Id: i.ID, State: states[i.State], Template: i.Template, Snapshot: i.Snapshot, Vcpus: uint32(i.Parts.VCPUs),
		MemoryMib: uint32(i.Parts.MemoryMiB), DiskBytes: uint64(i.Parts.DiskBytes), Internet: i.Policy.Internet, Labels: i.Labels,
		TtlSeconds: uint32(i.TTL / time.Second), OnExpiry: toExpiry(i.OnExpiry),
	}
	for _, c := range i.Changes {
		sb.Changes = append(sb.Changes, toChange(c))
		sb.Reason = c.Reason
	}
	if !i.ExpiresAt.IsZero() {
		sb.ExpiresAt = timestamppb.New(i.ExpiresAt)
	}
	return sb
}

func toPhases(steps []vmm.Step) []*pb.Phase {
	var phases []*pb.Phase
	for _, s := range steps {
		phases = append(phases, &pb.Phase{Name: s.Name, TookMicroseconds: uint64(max(s.Took, 0).Microseconds())})
	}
	return phases
}

func toResources(a quota.Amount) *pb.Resources {
	return &pb.Resources{Sandboxes: uint32(a.Sandboxes), Vcpus: uint32(a.VCPUs), MemoryMib: uint64(a.MemoryMiB), DiskBytes: uint64(a.DiskBytes)}
}

func toStats(s hostagent.Stats) *pb.Stats {
	out := &pb.Stats{Id: s.ID, Time: timestamppb.New(s.Time), CpuMicroseconds: uint64(s.Machine.CPU.Microseconds()),
		MemoryBytes: uint64(s.Machine.MemoryBytes), MemoryLimitBytes: uint64(s.Machine.MemoryMaxBytes),
		DiskUsedBytes: uint64(s.Disk.UsedBytes), DiskCapacityBytes: uint64(s.Disk.CapacityBytes), DiskHostBytes: uint64(s.Disk.HostBytes)}
	if n := s.Network; n != nil {
		out.Network = &pb.Stats_Network{ReceivedBytes: n.ReceivedBytes, SentBytes: n.SentBytes}
	}
	if p := s.Pager; p != nil {
		out.Pager = &pb.Stats_Pager{CpuMicroseconds: uint64(p.CPU.Microseconds()), MemoryBytes: uint64(p.MemoryBytes), Ended: p.Stats == nil}
		if c := p.Stats; c != nil {
			out.Pager.Faults, out.Pager.ReadBytes, out.Pager.PresentPages, out.Pager.PrefetchedPages = c.Faults, c.InBytes, c.Present, c.Prefetched
		}
	}
	return out
}
