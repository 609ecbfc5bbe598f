package rpc

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/types/known/timestamppb"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/events"
	"wrenn.dev/wrenn/internal/proc"
	"wrenn.dev/wrenn/internal/version"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// host implements HostService.
type host struct{ a *hostagent.Agent }

// Status implements HostService.
func (h *host) Status(context.Context, *connect.Request[pb.StatusRequest]) (*connect.Response[pb.StatusResponse], error) {
	s := h.a.Status()
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	resp := &pb.StatusResponse{Version: version.String(), StartedAt: timestamppb.New(s.Started), Boot: boot, States: map[string]uint32{},
		Operations: uint32(s.Operations), Adopting: uint32(s.Adopting), Used: toResources(s.Used), Limits: toResources(s.Limits),
		LastEvent: s.LastEvent, StoredBytes: uint64(s.Stored)}
	for state, n := range s.States {
		resp.States[string(state)] = uint32(n)
	}
	return connect.NewResponse(resp), nil
}

// Events implements HostService.
func (h *host) Events(ctx context.Context, req *connect.Request[pb.EventsRequest], stream *connect.ServerStream[pb.EventsResponse]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(h.a.Stopping(), func() { cancel(context.Cause(h.a.Stopping())) })()
	at := cmp.Or(req.Msg.GetAfter(), h.a.LastEvent())
	if err := stream.Send(quiet(at)); err != nil {
		return err
	}
	for {
		e, err := h.next(ctx, at)
		switch {
		case errors.Is(err, errQuiet):
			err = stream.Send(quiet(at))
		case err == nil:
			at = e.ID
			err = sendEvent(stream, e, req.Msg.GetId())
		}
		if err != nil {
			return err
		}
	}
}

var errQuiet = errors.New("nothing happens")

func quiet(at uint64) *pb.EventsResponse {
	return &pb.EventsResponse{Id: at, What: &pb.EventsResponse_KeepAlive_{KeepAlive: &pb.EventsResponse_KeepAlive{}}}
}

// next waits for an event, but not for ever: errQuiet then.
func (h *host) next(ctx context.Context, after uint64) (events.Event[hostagent.Event], error) {
	ctx, cancel := context.WithTimeoutCause(ctx, keepalive, errQuiet)
	defer cancel()
	return h.a.Next(ctx, after)
}

// sendEvent sends an event, and before it that some are missing, if so.
func sendEvent(stream *connect.ServerStream[pb.EventsResponse], e events.Event[hostagent.Event], only string) error {
	if e.Gap {
		if err := stream.Send(&pb.EventsResponse{Id: e.ID - 1, What: &pb.EventsResponse_Gap_{Gap: &pb.EventsResponse_Gap{}}}); err != nil {
			return err
		}
	}
	if only != "" && e.What.Sandbox != only {
		return nil
	}
	return stream.Send(&pb.EventsResponse{Id: e.ID, What: &pb.EventsResponse_StateChanged_{StateChanged: &pb.EventsResponse_StateChanged{
		Sandbox: e.What.Sandbox, Change: toChange(e.What.Change)}}})
}

// defaultLogBytes is how much of each log there is unless another number is asked for.
const defaultLogBytes = 16 << 10

// Logs implements HostService.
func (h *host) Logs(ctx context.Context, req *connect.Request[pb.LogsRequest]) (*connect.Response[pb.LogsResponse], error) {
	l, err := h.a.Logs(ctx, req.Msg.GetId(), int(cmp.Or(req.Msg.GetMaxBytes(), defaultLogBytes)))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.LogsResponse{Vmm: strings.ToValidUTF8(l.VMM, ""), Console: strings.ToValidUTF8(l.Console, "")}), nil
}

// Stats implements HostService.
func (h *host) Stats(ctx context.Context, req *connect.Request[pb.StatsRequest]) (*connect.Response[pb.StatsResponse], error) {
	list, err := h.a.Stats(ctx, req.Msg.GetIds())
	if err != nil {
		return nil, err
	}
	resp := &pb.StatsResponse{}
	for _, s := range list {
		resp.Stats = append(resp.Stats, toStats(s))
	}
	return connect.NewResponse(resp), nil
}

// Metrics implements HostService.
func (h *host) Metrics(context.Context, *connect.Request[pb.MetricsRequest]) (*connect.Response[pb.MetricsResponse], error) {
	families, err := h.a.Metrics().Gather()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	enc := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&pb.MetricsResponse{Text: text.String()}), nil
}

// scrapeTime bounds one scrape of the metrics.
const scrapeTime = 10 * time.Second

// Metrics serves the agent's metrics to Prometheus.
func Metrics(a *hostagent.Agent) http.Handler {
	return promhttp.HandlerFor(a.Metrics(), promhttp.HandlerOpts{Timeout: scrapeTime, MaxRequestsInFlight: 4})
}

// ListTemplates implements HostService.
func (h *host) ListTemplates(context.Context, *connect.Request[pb.ListTemplatesRequest]) (*connect.Response[pb.ListTemplatesResponse], error) {
	list, err := h.a.Templates()
	if err != nil {
		return nil, err
	}
	resp := &pb.ListTemplatesResponse{}
	for _, t := range list {
		resp.Templates = append(resp.Templates, &pb.Template{Name: t.Name, Id: t.ID, Vcpus: uint32(t.VCPUs), MemoryMib: uint32(t.MemoryMiB),
			DiskBytes: uint64(t.Rootfs.Size)})
	}
	return connect.NewResponse(resp), nil
}

// DeleteTemplate implements HostService.
func (h *host) DeleteTemplate(ctx context.Context, req *connect.Request[pb.DeleteTemplateRequest]) (*connect.Response[pb.DeleteTemplateResponse], error) {
	if err := h.a.DeleteTemplate(ctx, req.Msg.GetName()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.DeleteTemplateResponse{}), nil
}
