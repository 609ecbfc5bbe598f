package hosts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/wire"
	"wrenn.dev/wrenn/internal/pki"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hosts/v1"
	"wrenn.dev/wrenn/proto/hosts/v1/hostspbconnect"
)

// What who connects may take.
const (
	headerTime     = 10 * time.Second
	requestTime    = 30 * time.Second
	idleTime       = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	maxMessage     = 4 << 20
	grace          = 2 * time.Second
)

// peerKey is where a request's context has who sent it.
type peerKey struct{}

// peer is who sent a request.
type peer struct {
	host string // its certificate's name; empty without one
	ip   string
}

// Serve has hosts join and report at a listener, which it gives TLS, until ctx ends. It closes the listener. As long as it serves, it is
// also this server's business which of them are lost.
func (h *Hosts) Serve(ctx context.Context, l net.Listener) error {
	path, calls := hostspbconnect.NewHostsServiceHandler(h, connect.WithReadMaxBytes(maxMessage), connect.WithInterceptors(checked()))
	mux := http.NewServeMux()
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ip, _, _ := net.SplitHostPort(r.RemoteAddr)
		calls.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer{pki.Name(r.TLS), ip})))
	}))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(h.cfg.Log.Handler(), slog.LevelDebug)}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(tls.NewListener(l, h.current.ListenAny(h.authority.Roots()))) }()
	swept, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); h.sweep(swept, store.Joined) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop()
	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if s.Shutdown(shut) != nil {
		_ = s.Close()
	}
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// checked refuses requests outside the bounds in the proto, and gives errors their kinds on the wire.
func checked() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if msg, ok := req.Any().(proto.Message); ok {
				if err := wire.Check(msg); err != nil {
					return nil, wire.Encode(err)
				}
			}
			resp, err := next(ctx, req)
			return resp, wire.Encode(err)
		}
	}
}

// Join implements hostspbconnect.HostsServiceHandler.
func (h *Hosts) Join(ctx context.Context, req *connect.Request[pb.JoinRequest]) (*connect.Response[pb.JoinResponse], error) {
	public, err := pki.CheckRequest(req.Msg.GetRequest())
	if err != nil {
		return nil, err
	}
	hash, err := public.Hash()
	if err != nil {
		return nil, err
	}
	var t pki.Token
	if copy(t.Secret[:], req.Msg.GetSecret()) != len(t.Secret) || len(req.Msg.GetSecret()) != len(t.Secret) {
		return nil, fmt.Errorf("the token is none: %w", errs.ErrUnauthenticated)
	}
	host, err := h.cfg.Store.Join(ctx, t.Hash(), hash, h.cfg.Lease)
	if err != nil {
		h.cfg.Log.Warn("a machine was not let join", "from", from(ctx).ip, "error", err)
		return nil, err
	}
	h.cfg.Log.Info("a host has joined", "host", host.ID, "from", from(ctx).ip)
	chain, err := h.authority.Issue(public, host.ID, h.cfg.Now(), h.cfg.CertTime)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.JoinResponse{Host: host.ID, Chain: chain}), nil
}

// Renew implements hostspbconnect.HostsServiceHandler.
func (h *Hosts) Renew(ctx context.Context, req *connect.Request[pb.RenewRequest]) (*connect.Response[pb.RenewResponse], error) {
	public, err := pki.CheckRequest(req.Msg.GetRequest())
	if err != nil {
		return nil, err
	}
	hash, err := public.Hash()
	if err != nil {
		return nil, err
	}
	host, err := h.cfg.Store.HostOfKey(ctx, hash)
	if err != nil {
		return nil, err
	}
	chain, err := h.authority.Issue(public, host.ID, h.cfg.Now(), h.cfg.CertTime)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RenewResponse{Chain: chain}), nil
}

// Report implements hostspbconnect.HostsServiceHandler.
func (h *Hosts) Report(ctx context.Context, req *connect.Request[pb.ReportRequest]) (*connect.Response[pb.ReportResponse], error) {
	who, m := from(ctx), req.Msg
	if who.host == "" || who.host == pki.Server {
		return nil, fmt.Errorf("this needs a host's certificate: %w", errs.ErrPermissionDenied)
	}
	host, port, err := net.SplitHostPort(m.GetAddress())
	if err != nil {
		return nil, errs.Field("address", err.Error(), "give host:port")
	}
	if host == "" {
		host = who.ip
	}
	address := net.JoinHostPort(host, port)
	if err := pki.CheckAddress("address", address); err != nil {
		return nil, err
	}
	r := store.Report{Address: address, Version: m.GetVersion(), Boot: m.GetBoot(), MaxSandboxes: int32(m.GetMaxSandboxes()),
		MaxVCPUs: int32(m.GetMaxVcpus()), MaxMemoryMiB: int64(m.GetMaxMemoryMib()), MaxDiskBytes: int64(m.GetMaxDiskBytes())}
	for _, t := range m.GetTemplates() {
		r.Templates = append(r.Templates, store.Template{Name: t.GetName(), TemplateID: t.GetId(), Vcpus: int32(t.GetVcpus()),
			MemoryMib: int32(t.GetMemoryMib()), DiskBytes: int64(t.GetDiskBytes())})
	}
	if _, err := h.cfg.Store.Report(ctx, who.host, r, h.cfg.Lease); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ReportResponse{LeaseMilliseconds: uint64(h.cfg.Lease / time.Millisecond)}), nil
}

func from(ctx context.Context) peer {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p
}
