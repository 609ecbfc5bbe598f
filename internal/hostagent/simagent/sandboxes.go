package simagent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/id"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// phases are those of an operation that took a time.
func phases(name string, began time.Time) []*pb.Phase {
	return []*pb.Phase{{Name: name, TookMicroseconds: uint64(time.Since(began).Microseconds())}}
}

// sandboxes implements SandboxesService.
type sandboxes struct{ h *Host }

// wanted is the sandbox that a request asks for, as it will be.
func (h *Host) wanted(m *pb.CreateRequest) (*pb.Sandbox, error) {
	is := &pb.Sandbox{Id: cmp.Or(m.GetId(), id.New()), Template: m.GetTemplate(), Vcpus: cmp.Or(m.GetVcpus(), defaultVCPUs),
		MemoryMib: cmp.Or(m.GetMemoryMib(), defaultMemoryMiB), DiskBytes: cmp.Or(m.GetDiskBytes(), defaultDiskBytes), Internet: m.GetInternet(),
		Labels: m.GetLabels(), TtlSeconds: m.GetTtlSeconds(), OnExpiry: cmp.Or(m.GetOnExpiry(), pb.Expiry_EXPIRY_DESTROY)}
	switch {
	case m.GetTemplate() == "" && m.GetSnapshot() == "":
		return nil, errs.Field("template", "it is missing", "give a template or a snapshot to start from")
	case m.GetTemplate() != "" && m.GetSnapshot() != "":
		return nil, errs.Field("snapshot", "it is given with a template", "give one of them")
	case is.GetMemoryMib() < minMemoryMiB:
		return nil, errs.Field("memory", fmt.Sprintf("%d MiB is too little", is.GetMemoryMib()), fmt.Sprintf("give at least %d", minMemoryMiB))
	case m.GetSnapshot() == "" && (m.GetTemplate() != h.cfg.Template || h.bare.Load()):
		return nil, fmt.Errorf("template %q: %w", m.GetTemplate(), errs.ErrNotFound)
	}
	if m.GetSnapshot() == "" {
		return is, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	snap := h.snapshots[m.GetSnapshot()]
	switch {
	case snap == nil:
		return nil, fmt.Errorf("snapshot %q: %w", m.GetSnapshot(), errs.ErrNotFound)
	case m.GetVcpus() != 0 || m.GetMemoryMib() != 0 || m.GetDiskBytes() != 0:
		return nil, errs.Field("snapshot", "a snapshot's sizes are fixed", "leave the sizes out")
	}
	is.Snapshot = m.GetSnapshot()
	is.Vcpus, is.MemoryMib, is.DiskBytes = snap.of.GetVcpus(), snap.of.GetMemoryMib(), snap.of.GetDiskBytes()
	return is, nil
}

// start makes a sandbox that runs.
func (h *Host) start(is *pb.Sandbox, reason string) (*pb.Sandbox, error) {
	b := &box{is: is}
	b.line.Lock()
	defer b.line.Unlock()
	h.mu.Lock()
	if h.boxes[is.GetId()] != nil {
		h.mu.Unlock()
		return nil, fmt.Errorf("sandbox %s: %w", is.GetId(), errs.ErrAlreadyExists)
	}
	if err := h.ledger.Reserve(is.GetId(), promise(is)); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	h.boxes[is.GetId()] = b
	h.mu.Unlock()
	h.turn(b, pb.State_STATE_STARTING, reason)
	h.work("create")
	return h.turn(b, pb.State_STATE_RUNNING, "the guest answers"), nil
}

// Create implements SandboxesService.
func (s *sandboxes) Create(ctx context.Context, req *connect.Request[pb.CreateRequest]) (*connect.Response[pb.CreateResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.CreateResponse, error) {
		began := time.Now()
		is, err := s.h.wanted(req.Msg)
		if err == nil {
			is, err = s.h.start(is, "asked for")
		}
		if err != nil {
			return nil, err
		}
		return &pb.CreateResponse{Sandbox: is, Phases: phases("create", began)}, nil
	})
}

// Get implements SandboxesService.
func (s *sandboxes) Get(_ context.Context, req *connect.Request[pb.GetRequest]) (*connect.Response[pb.GetResponse], error) {
	b, err := s.h.box(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetResponse{Sandbox: b.get()}), nil
}

// defaultPage is how many a page has unless another number is asked for.
const defaultPage = 100

// List implements SandboxesService.
func (s *sandboxes) List(_ context.Context, req *connect.Request[pb.ListRequest]) (*connect.Response[pb.ListResponse], error) {
	m := req.Msg
	s.h.mu.Lock()
	boxes := maps.Clone(s.h.boxes)
	s.h.mu.Unlock()
	resp := &pb.ListResponse{}
	limit := int(cmp.Or(m.GetPageSize(), defaultPage))
	for _, name := range slices.Sorted(maps.Keys(boxes)) {
		is := boxes[name].get()
		if name <= m.GetPageToken() || len(m.GetStates()) > 0 && !slices.Contains(m.GetStates(), is.GetState()) || !has(is.GetLabels(), m.GetLabels()) {
			continue
		}
		if len(resp.GetSandboxes()) == limit {
			resp.NextPageToken = resp.GetSandboxes()[limit-1].GetId()
			break
		}
		resp.Sandboxes = append(resp.Sandboxes, is)
	}
	return connect.NewResponse(resp), nil
}

// has says whether labels have all that are wanted.
func has(labels, wanted map[string]string) bool {
	for k, v := range wanted {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Destroy implements SandboxesService.
func (s *sandboxes) Destroy(ctx context.Context, req *connect.Request[pb.DestroyRequest]) (*connect.Response[pb.DestroyResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.DestroyResponse, error) {
		began := time.Now()
		b, err := s.h.box(req.Msg.GetId())
		if err != nil {
			return nil, err
		}
		b.line.Lock()
		defer b.line.Unlock()
		if b.ended() {
			return nil, fmt.Errorf("sandbox %s: %w", req.Msg.GetId(), errs.ErrNotFound)
		}
		s.h.destroy(b, cmp.Or(req.Msg.GetReason(), "asked for"))
		return &pb.DestroyResponse{Phases: phases("destroy", began)}, nil
	})
}

// Pause implements SandboxesService.
func (s *sandboxes) Pause(ctx context.Context, req *connect.Request[pb.PauseRequest]) (*connect.Response[pb.PauseResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.PauseResponse, error) {
		began := time.Now()
		b, done, err := s.h.in(req.Msg.GetId(), pb.State_STATE_RUNNING)
		if err != nil {
			return nil, err
		}
		defer done()
		return &pb.PauseResponse{Sandbox: s.h.pause(b, cmp.Or(req.Msg.GetReason(), "asked for")), Phases: phases("pause", began)}, nil
	})
}

// Resume implements SandboxesService.
func (s *sandboxes) Resume(ctx context.Context, req *connect.Request[pb.ResumeRequest]) (*connect.Response[pb.ResumeResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.ResumeResponse, error) {
		began := time.Now()
		b, done, err := s.h.in(req.Msg.GetId(), pb.State_STATE_PAUSED)
		if err != nil {
			return nil, err
		}
		defer done()
		if err := s.h.ledger.Reserve(req.Msg.GetId(), promise(b.get())); err != nil {
			return nil, err
		}
		s.h.turn(b, pb.State_STATE_RESUMING, "asked for")
		s.h.work("resume")
		return &pb.ResumeResponse{Sandbox: s.h.turn(b, pb.State_STATE_RUNNING, "the guest answers"), Phases: phases("resume", began)}, nil
	})
}

// Fork implements SandboxesService.
func (s *sandboxes) Fork(ctx context.Context, req *connect.Request[pb.ForkRequest]) (*connect.Response[pb.ForkResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.ForkResponse, error) {
		began := time.Now()
		b, done, err := s.h.in(req.Msg.GetId(), pb.State_STATE_RUNNING)
		if err != nil {
			return nil, err
		}
		defer done()
		of, ids := b.get(), req.Msg.GetIds()
		for len(ids) < int(max(req.Msg.GetCount(), 1)) && len(req.Msg.GetIds()) == 0 {
			ids = append(ids, id.New())
		}
		all := "fork of " + of.GetId()
		if err := s.h.ledger.Reserve(all, promise(of).Times(len(ids))); err != nil {
			return nil, err
		}
		s.h.ledger.Set(all, quota.Amount{}) // each clone takes its own
		resp := &pb.ForkResponse{}
		for _, name := range ids {
			is := proto.CloneOf(of)
			is.Id, is.Changes, is.ExpiresAt = name, nil, nil
			clone, err := s.h.start(is, "forked from "+of.GetId())
			if err != nil {
				resp.Clones = append(resp.Clones, &pb.Clone{Error: err.Error()})
				continue
			}
			resp.Clones = append(resp.Clones, &pb.Clone{Sandbox: clone})
		}
		resp.Phases = phases("fork", began)
		return resp, nil
	})
}

// SetTTL implements SandboxesService.
func (s *sandboxes) SetTTL(_ context.Context, req *connect.Request[pb.SetTTLRequest]) (*connect.Response[pb.SetTTLResponse], error) {
	b, err := s.h.box(req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	b.line.Lock()
	defer b.line.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disarm()
	is := proto.CloneOf(b.is)
	is.TtlSeconds, is.OnExpiry, is.ExpiresAt = req.Msg.GetTtlSeconds(), cmp.Or(req.Msg.GetOnExpiry(), pb.Expiry_EXPIRY_DESTROY), nil
	if is.GetState() == pb.State_STATE_RUNNING {
		s.h.arm(b, is)
	}
	b.is = is
	return connect.NewResponse(&pb.SetTTLResponse{Sandbox: is}), nil
}
