package simagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/events"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/version"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// snapshots implements SnapshotsService.
type snapshots struct{ h *Host }

var snapshotName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// CreateSnapshot implements SnapshotsService.
func (s *snapshots) CreateSnapshot(ctx context.Context, req *connect.Request[pb.CreateSnapshotRequest]) (*connect.Response[pb.CreateSnapshotResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.CreateSnapshotResponse, error) {
		began, name := time.Now(), req.Msg.GetName()
		b, done, err := s.h.in(req.Msg.GetId(), pb.State_STATE_RUNNING)
		if err != nil {
			return nil, err
		}
		defer done()
		if !snapshotName.MatchString(name) {
			return nil, errs.Field("snapshot", fmt.Sprintf("%.80q can't be a name", name), "give at most 64 of a-z, 0-9, dot, dash and underscore")
		}
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		if s.h.snapshots[name] != nil {
			return nil, fmt.Errorf("snapshot %q: %w", name, errs.ErrAlreadyExists)
		}
		snap := &snapshot{build: id.NewOf("bd-"), of: b.get()}
		s.h.snapshots[name] = snap
		return &pb.CreateSnapshotResponse{Snapshot: &pb.Snapshot{Name: name, Build: snap.build}, Phases: phases("snapshot", began)}, nil
	})
}

// ListSnapshots implements SnapshotsService.
func (s *snapshots) ListSnapshots(_ context.Context, req *connect.Request[pb.ListSnapshotsRequest]) (*connect.Response[pb.ListSnapshotsResponse], error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	resp := &pb.ListSnapshotsResponse{}
	limit := int(cmp.Or(req.Msg.GetPageSize(), defaultPage))
	for _, name := range slices.Sorted(maps.Keys(s.h.snapshots)) {
		if name <= req.Msg.GetPageToken() {
			continue
		}
		if len(resp.GetSnapshots()) == limit {
			resp.NextPageToken = resp.GetSnapshots()[limit-1].GetName()
			break
		}
		resp.Snapshots = append(resp.Snapshots, &pb.Snapshot{Name: name, Build: s.h.snapshots[name].build})
	}
	return connect.NewResponse(resp), nil
}

// DeleteSnapshot implements SnapshotsService.
func (s *snapshots) DeleteSnapshot(ctx context.Context, req *connect.Request[pb.DeleteSnapshotRequest]) (*connect.Response[pb.DeleteSnapshotResponse], error) {
	return once(ctx, s.h, req.Msg, func() (*pb.DeleteSnapshotResponse, error) {
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		name := req.Msg.GetName()
		if s.h.snapshots[name] == nil {
			return nil, fmt.Errorf("snapshot %q: %w", name, errs.ErrNotFound)
		}
		for _, b := range s.h.boxes {
			if b.get().GetSnapshot() == name {
				return nil, fmt.Errorf("snapshot %q is used by %s: %w", name, b.get().GetId(), errs.ErrFailedPrecondition)
			}
		}
		delete(s.h.snapshots, name)
		return &pb.DeleteSnapshotResponse{}, nil
	})
}

// host implements HostService.
type host struct{ *Host }

// Status implements HostService.
func (h *host) Status(context.Context, *connect.Request[pb.StatusRequest]) (*connect.Response[pb.StatusResponse], error) {
	resp := &pb.StatusResponse{Version: version.String(), StartedAt: timestamppb.New(h.started), Boot: "simulated", States: map[string]uint32{},
		Used: resources(h.ledger.Used()), Limits: resources(h.ledger.Limits()), LastEvent: h.Host.events.Last()}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.boxes {
		resp.States[stateName(b.state())]++
	}
	return connect.NewResponse(resp), nil
}

// stateName is a state as the agent writes it.
func stateName(s pb.State) string { return strings.ToLower(strings.TrimPrefix(s.String(), "STATE_")) }

func resources(a quota.Amount) *pb.Resources {
	return &pb.Resources{Sandboxes: uint32(a.Sandboxes), Vcpus: uint32(a.VCPUs), MemoryMib: uint64(a.MemoryMiB), DiskBytes: uint64(a.DiskBytes)}
}

// keepalive is how often a stream of events says that it is there.
const keepalive = 15 * time.Second

var errQuiet = errors.New("nothing happens")

// Events implements HostService.
func (h *host) Events(ctx context.Context, req *connect.Request[pb.EventsRequest], stream *connect.ServerStream[pb.EventsResponse]) error {
	at := cmp.Or(req.Msg.GetAfter(), h.Host.events.Last())
	quiet := func() error {
		return stream.Send(&pb.EventsResponse{Id: at, What: &pb.EventsResponse_KeepAlive_{KeepAlive: &pb.EventsResponse_KeepAlive{}}})
	}
	err := quiet()
	for err == nil {
		waiting, cancel := context.WithTimeoutCause(ctx, keepalive, errQuiet)
		var e events.Event[change]
		e, err = h.Host.events.Next(waiting, at)
		cancel()
		switch {
		case errors.Is(err, errQuiet):
			err = quiet()
		case err == nil:
			at = e.ID
			err = send(stream, e, req.Msg.GetId())
		}
	}
	return err
}

// send sends an event, and before it that some are missing, if so.
func send(stream *connect.ServerStream[pb.EventsResponse], e events.Event[change], only string) error {
	if e.Gap {
		if err := stream.Send(&pb.EventsResponse{Id: e.ID - 1, What: &pb.EventsResponse_Gap_{Gap: &pb.EventsResponse_Gap{}}}); err != nil {
			return err
		}
	}
	if only != "" && e.What.sandbox != only {
		return nil
	}
	return stream.Send(&pb.EventsResponse{Id: e.ID, What: &pb.EventsResponse_StateChanged_{
		StateChanged: &pb.EventsResponse_StateChanged{Sandbox: e.What.sandbox, Change: e.What.what}}})
}

// ListTemplates implements HostService.
func (h *host) ListTemplates(context.Context, *connect.Request[pb.ListTemplatesRequest]) (*connect.Response[pb.ListTemplatesResponse], error) {
	resp := &pb.ListTemplatesResponse{}
	if !h.bare.Load() {
		resp.Templates = []*pb.Template{{Name: h.cfg.Template, Id: "tp-" + h.cfg.Template, Vcpus: defaultVCPUs, MemoryMib: defaultMemoryMiB, DiskBytes: defaultDiskBytes}}
	}
	return connect.NewResponse(resp), nil
}

// DeleteTemplate implements HostService.
func (h *host) DeleteTemplate(_ context.Context, req *connect.Request[pb.DeleteTemplateRequest]) (*connect.Response[pb.DeleteTemplateResponse], error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := req.Msg.GetName()
	if name != h.cfg.Template || h.bare.Load() {
		return nil, fmt.Errorf("template %q: %w", name, errs.ErrNotFound)
	}
	for id := range h.boxes {
		return nil, fmt.Errorf("template %q is used by %s: %w", name, id, errs.ErrFailedPrecondition)
	}
	h.bare.Store(true)
	return connect.NewResponse(&pb.DeleteTemplateResponse{}), nil
}

// Logs implements HostService.
func (h *host) Logs(_ context.Context, req *connect.Request[pb.LogsRequest]) (*connect.Response[pb.LogsResponse], error) {
	if _, err := h.box(req.Msg.GetId()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.LogsResponse{}), nil
}

// Stats implements HostService: a machine has used a hundredth of a CPU since its start, and half of its memory.
func (h *host) Stats(_ context.Context, req *connect.Request[pb.StatsRequest]) (*connect.Response[pb.StatsResponse], error) {
	for _, one := range req.Msg.GetIds() {
		if _, err := h.box(one); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	boxes := maps.Clone(h.boxes)
	h.mu.Unlock()
	resp, now := &pb.StatsResponse{}, time.Now()
	for _, name := range slices.Sorted(maps.Keys(boxes)) {
		b := boxes[name]
		if len(req.Msg.GetIds()) > 0 && !slices.Contains(req.Msg.GetIds(), name) || b.state() != pb.State_STATE_RUNNING {
			continue
		}
		b.mu.Lock()
		used, is := now.Sub(b.cpu)/100, b.is
		b.mu.Unlock()
		memory := uint64(is.GetMemoryMib()) << 20
		resp.Stats = append(resp.Stats, &pb.Stats{Id: name, Time: timestamppb.New(now), CpuMicroseconds: uint64(max(used, 0).Microseconds()),
			MemoryBytes: memory / 2, MemoryLimitBytes: memory, DiskCapacityBytes: is.GetDiskBytes(),
			Network: &pb.Stats_Network{}})
	}
	return connect.NewResponse(resp), nil
}

// Metrics implements HostService.
func (h *host) Metrics(context.Context, *connect.Request[pb.MetricsRequest]) (*connect.Response[pb.MetricsResponse], error) {
	counts := map[pb.State]int{}
	h.mu.Lock()
	for _, b := range h.boxes {
		counts[b.state()]++
	}
	h.mu.Unlock()
	var text strings.Builder
	text.WriteString("# HELP wrenn_sandboxes Sandboxes by state.\n# TYPE wrenn_sandboxes gauge\n")
	for s, n := range counts {
		fmt.Fprintf(&text, "wrenn_sandboxes{state=%q} %d\n", stateName(s), n)
	}
	return connect.NewResponse(&pb.MetricsResponse{Text: text.String()}), nil
}
