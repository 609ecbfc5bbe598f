package sandbox

import (
	"context"

	"wrenn.dev/wrenn/internal/network"
)

// KeepReady has the network keep slots ready for sandboxes to come, see network.Readier. Where it can't, or for none, it does nothing.
func (m *Manager) KeepReady(ctx context.Context, slots int, report func(error)) error {
	r, ok := m.cfg.Network.(network.Readier)
	if !ok || slots == 0 {
		return nil
	}
	return r.KeepReady(ctx, slots, m.uid, report)
}

// StopReady ends KeepReady and removes what was ready.
func (m *Manager) StopReady(ctx context.Context) error {
	if r, ok := m.cfg.Network.(network.Readier); ok {
		return r.StopReady(ctx)
	}
	return nil
}

// Ready says how many network slots are ready.
func (m *Manager) Ready() network.Readiness {
	if r, ok := m.cfg.Network.(network.Readier); ok {
		return r.Ready()
	}
	return network.Readiness{}
}
