package hosts

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/server/store"
	agentpb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// The parts of a lease: how often a host says how it is, and how long nobody may have looked at the leases before it counts as that no
// server was there. Between the two there is time left for a host to find a server again.
const (
	reportsPerLease = 3
	gapsPerLease    = 3
	looksPerLease   = 10
	minPause        = 50 * time.Millisecond
	maxPause        = time.Second
)

// Run replaces the server's certificate before it ends, and tells of the server's own host, until ctx ends.
func (h *Hosts) Run(ctx context.Context) {
	var running sync.WaitGroup
	if h.own != "" {
		running.Go(func() { every(ctx, h.cfg.Lease/reportsPerLease, h.reportOwn) })
		running.Go(func() { h.sweep(ctx, h.own) })
	}
	every(ctx, refreshTime, func(context.Context) {
		if h.current.Due() {
			if err := h.renew(); err != nil {
				h.cfg.Log.Error("the server's certificate was not replaced", "error", err)
			}
		}
	})
	running.Wait()
}

// every calls fn now and after each pause.
func every(ctx context.Context, pause time.Duration, fn func(context.Context)) {
	tick := time.NewTicker(max(pause, minPause))
	defer tick.Stop()
	for {
		fn(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweep looks at the leases of joined hosts, or of one host.
func (h *Hosts) sweep(ctx context.Context, host string) {
	every(ctx, min(h.cfg.Lease/looksPerLease, maxPause), func(ctx context.Context) {
		lost, err := h.cfg.Store.Lapse(ctx, host, h.cfg.Lease/gapsPerLease, h.cfg.Lease)
		if err != nil && ctx.Err() == nil {
			h.cfg.Log.Warn("the hosts' leases were not looked at", "error", err)
		}
		for _, l := range lost {
			h.cfg.Log.Warn("a host is lost: it was silent past its lease", "host", l.ID, "address", l.Address, "lease ended", l.LeaseUntil)
		}
	})
}

// reportOwn asks the agent on this machine how it is.
func (h *Hosts) reportOwn(until context.Context) {
	ctx, cancel := context.WithTimeout(until, max(h.cfg.Lease/reportsPerLease, minPause))
	defer cancel()
	err := func() error {
		status, err := h.socket.Host.Status(ctx, connect.NewRequest(&agentpb.StatusRequest{}))
		if err != nil {
			return err
		}
		list, err := h.socket.Host.ListTemplates(ctx, connect.NewRequest(&agentpb.ListTemplatesRequest{}))
		if err != nil {
			return err
		}
		own, err := h.cfg.Store.GetHost(ctx, h.own)
		if err != nil {
			return err
		}
		s := status.Msg
		r := store.Report{Address: own.Address, Version: s.GetVersion(), Boot: s.GetBoot(), MaxSandboxes: int32(s.GetLimits().GetSandboxes()),
			MaxVCPUs: int32(s.GetLimits().GetVcpus()), MaxMemoryMiB: int64(s.GetLimits().GetMemoryMib()), MaxDiskBytes: int64(s.GetLimits().GetDiskBytes())}
		if r.MaxDiskBytes > 0 { // what is left of it when snapshots have theirs
			r.MaxDiskBytes = max(r.MaxDiskBytes-int64(s.GetStoredBytes()), 1)
		}
		for _, t := range list.Msg.GetTemplates() {
			r.Templates = append(r.Templates, store.Template{Name: t.GetName(), TemplateID: t.GetId(), Vcpus: int32(t.GetVcpus()),
				MemoryMib: int32(t.GetMemoryMib()), DiskBytes: int64(t.GetDiskBytes())})
		}
		_, err = h.cfg.Store.Report(ctx, h.own, r, h.cfg.Lease)
		return err
	}()
	if err != nil && until.Err() == nil {
		h.cfg.Log.Warn("this machine's agent did not say how it is", "host", h.own, "error", err)
	}
}
