package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/vmm"
)

// Usage is what a sandbox takes of the host at one moment.
type Usage struct {
	Time    time.Time
	Machine vmm.Usage
	Disk    disk.Usage
	Pager   *process.Usage // nil for a machine that booted, or whose pager has done its work
	Network *network.Usage // nil where the host's network does not tell
}

// PagerMeter are Pagers that tell what a pager takes; process.Starter says what the method does. It is found by type assertion.
type PagerMeter interface {
	Usage(ctx context.Context, sandbox string) (process.Usage, error)
}

// Usage tells what a sandbox with a machine takes of the host, whoever has it in hands. ErrNotFound when there is no such sandbox, or it
// has no machine.
func (m *Manager) Usage(ctx context.Context, id string) (Usage, error) {
	if _, err := m.Get(id); err != nil {
		return Usage{}, err
	}
	meter, ok := m.cfg.VMM.(vmm.Meter)
	if !ok {
		return Usage{}, fmt.Errorf("this host's machines are not metered: %w", errs.ErrFailedPrecondition)
	}
	u := Usage{Time: time.Now().UTC()}
	var err error
	if u.Machine, err = meter.Usage(ctx, id); err != nil {
		return Usage{}, err
	}
	if u.Disk, err = m.cfg.Disk.Usage(ctx, id); err != nil {
		return Usage{}, err
	}
	if meter, ok := m.cfg.Network.(network.Meter); ok {
		n, err := meter.Usage(ctx, id)
		if err != nil {
			return Usage{}, err
		}
		u.Network = &n
	}
	if pagers, ok := m.cfg.Pagers.(PagerMeter); ok {
		p, err := pagers.Usage(ctx, id)
		if err == nil {
			u.Pager = &p
		} else if !errors.Is(err, errs.ErrNotFound) {
			return Usage{}, err
		}
	}
	return u, nil
}
