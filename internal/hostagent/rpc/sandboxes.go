package rpc

import (
	"cmp"
	"context"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/sandbox"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// pageSize is how many a page has unless another number is asked for.
const pageSize = 100

func limit(asked uint32) int { return int(cmp.Or(asked, pageSize)) }

// sandboxes implements SandboxesService.
type sandboxes struct{ a *hostagent.Agent }

// Create implements SandboxesService.
func (s *sandboxes) Create(ctx context.Context, req *connect.Request[pb.CreateRequest]) (*connect.Response[pb.CreateResponse], error) {
	m := req.Msg
	return once(ctx, s.a, m, func(ctx context.Context, key string) (*pb.CreateResponse, error) {
		info, steps, err := s.a.Create(ctx, hostagent.Spec{
			Spec: sandbox.Spec{ID: m.GetId(), Template: m.GetTemplate(), Snapshot: m.GetSnapshot(), VCPUs: int(m.GetVcpus()), MemoryMiB: int(m.GetMemoryMib()),
				DiskBytes: int64(m.GetDiskBytes()), Policy: network.Policy{Internet: m.GetInternet()}, Cold: m.GetCold(), Stream: m.GetStream()},
			TTL: time.Duration(m.GetTtlSeconds()) * time.Second, OnExpiry: fromExpiry(m.GetOnExpiry()), Labels: m.GetLabels(), Key: key,
		})
		if err != nil {
			return nil, err
		}
		return &pb.CreateResponse{Sandbox: toSandbox(info), Phases: toPhases(steps)}, nil
	})
}

// Get implements SandboxesService.
func (s *sandboxes) Get(_ context.Context, req *connect.Request[pb.GetRequest]) (*connect.Response[pb.GetResponse], error) {
	info, err := s.a.Get(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetResponse{Sandbox: toSandbox(info)}), nil
}

// List implements SandboxesService.
func (s *sandboxes) List(_ context.Context, req *connect.Request[pb.ListRequest]) (*connect.Response[pb.ListResponse], error) {
	m := req.Msg
	filter := hostagent.Filter{States: fromStates(m.GetStates()), Labels: m.GetLabels()}
	list, more, err := s.a.List(filter, m.GetPageToken(), limit(m.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &pb.ListResponse{}
	for _, info := range list {
		resp.Sandboxes = append(resp.Sandboxes, toSandbox(info))
		if more {
			resp.NextPageToken = info.ID
		}
	}
	return connect.NewResponse(resp), nil
}

// Destroy implements SandboxesService.
func (s *sandboxes) Destroy(ctx context.Context, req *connect.Request[pb.DestroyRequest]) (*connect.Response[pb.DestroyResponse], error) {
	return once(ctx, s.a, req.Msg, func(ctx context.Context, _ string) (*pb.DestroyResponse, error) {
		steps, err := s.a.Destroy(ctx, req.Msg.GetId(), cmp.Or(req.Msg.GetReason(), "asked for"))
		if err != nil {
			return nil, err
		}
		return &pb.DestroyResponse{Phases: toPhases(steps)}, nil
	})
}

// Pause implements SandboxesService.
func (s *sandboxes) Pause(ctx context.Context, req *connect.Request[pb.PauseRequest]) (*connect.Response[pb.PauseResponse], error) {
	return once(ctx, s.a, req.Msg, func(ctx context.Context, _ string) (*pb.PauseResponse, error) {
		info, steps, err := s.a.Pause(ctx, req.Msg.GetId(), cmp.Or(req.Msg.GetReason(), "asked for"))
		if err != nil {
			return nil, err
		}
		return &pb.PauseResponse{Sandbox: toSandbox(info), Phases: toPhases(steps)}, nil
	})
}

// Resume implements SandboxesService.
func (s *sandboxes) Resume(ctx context.Context, req *connect.Request[pb.ResumeRequest]) (*connect.Response[pb.ResumeResponse], error) {
	return once(ctx, s.a, req.Msg, func(ctx context.Context, _ string) (*pb.ResumeResponse, error) {
		info, steps, err := s.a.Resume(ctx, req.Msg.GetId())
		if err != nil {
			return nil, err
		}
		return &pb.ResumeResponse{Sandbox: toSandbox(info), Phases: toPhases(steps)}, nil
	})
}

// Fork implements SandboxesService.
func (s *sandboxes) Fork(ctx context.Context, req *connect.Request[pb.ForkRequest]) (*connect.Response[pb.ForkResponse], error) {
	return once(ctx, s.a, req.Msg, func(ctx context.Context, key string) (*pb.ForkResponse, error) {
		ids, count := req.Msg.GetIds(), int(req.Msg.GetCount())
		clones, steps, err := s.a.Fork(ctx, req.Msg.GetId(), hostagent.Forks{Count: cmp.Or(count, len(ids), 1), IDs: ids, Key: key})
		if err != nil {
			return nil, err
		}
		resp := &pb.ForkResponse{Phases: toPhases(steps)}
		for _, c := range clones {
			if c.Err != nil {
				resp.Clones = append(resp.Clones, &pb.Clone{Error: c.Err.Error()})
				continue
			}
			resp.Clones = append(resp.Clones, &pb.Clone{Sandbox: toSandbox(c.Info)})
		}
		return resp, nil
	})
}

// SetTTL implements SandboxesService.
func (s *sandboxes) SetTTL(ctx context.Context, req *connect.Request[pb.SetTTLRequest]) (*connect.Response[pb.SetTTLResponse], error) {
	m := req.Msg
	info, err := s.a.SetTTL(ctx, m.GetId(), time.Duration(m.GetTtlSeconds())*time.Second, fromExpiry(m.GetOnExpiry()))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SetTTLResponse{Sandbox: toSandbox(info)}), nil
}

// snapshots implements SnapshotsService.
type snapshots struct{ a *hostagent.Agent }

// CreateSnapshot implements SnapshotsService.
func (s *snapshots) CreateSnapshot(ctx context.Context, req *connect.Request[pb.CreateSnapshotRequest]) (*connect.Response[pb.CreateSnapshotResponse], error) {
	return once(ctx, s.a, req.Msg, func(ctx context.Context, _ string) (*pb.CreateSnapshotResponse, error) {
		snap, steps, err := s.a.CreateSnapshot(ctx, req.Msg.GetId(), req.Msg.GetName())
		if err != nil {
			return nil, err
		}
		return &pb.CreateSnapshotResponse{Snapshot: &pb.Snapshot{Name: snap.Name, Build: snap.Build}, Phases: toPhases(steps)}, nil
	})
}

// ListSnapshots implements SnapshotsService.
func (s *snapshots) ListSnapshots(_ context.Context, req *connect.Request[pb.ListSnapshotsRequest]) (*connect.Response[pb.ListSnapshotsResponse], error) {
	list, more, err := s.a.ListSnapshots(req.Msg.GetPageToken(), limit(req.Msg.GetPageSize()))
	if err != nil {
		return nil, err
	}
	resp := &pb.ListSnapshotsResponse{}
	for _, snap := range list {
		resp.Snapshots = append(resp.Snapshots, &pb.Snapshot{Name: snap.Name, Build: snap.Build})
		if more {
			resp.NextPageToken = snap.Name
		}
	}
	return connect.NewResponse(resp), nil
}

// DeleteSnapshot implements SnapshotsService.
func (s *snapshots) DeleteSnapshot(ctx context.Context, req *connect.Request[pb.DeleteSnapshotRequest]) (*connect.Response[pb.DeleteSnapshotResponse], error) {
	return once(ctx, s.a, req.Msg, func(ctx context.Context, _ string) (*pb.DeleteSnapshotResponse, error) {
		return &pb.DeleteSnapshotResponse{}, s.a.DeleteSnapshot(ctx, req.Msg.GetName())
	})
}
