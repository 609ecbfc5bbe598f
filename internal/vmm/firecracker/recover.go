package firecracker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/proc"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/jail"
)

// Recover returns the running machine of a handle. Beside pid, start time, boot id and executable, the process must be in the id's
// cgroup and listen on the socket in its jail, which no process does that happens to have the pid.
func (d *Driver) Recover(_ context.Context, h vmm.Handle) (vmm.Machine, error) {
	if h.Version != vmm.HandleVersion {
		return nil, fmt.Errorf("handle of version %d, want %d: %w", h.Version, vmm.HandleVersion, errs.ErrInvalid)
	}
	if _, err := id.Parse(h.ID); err != nil {
		return nil, err
	}
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	if boot != h.BootID {
		return nil, fmt.Errorf("machine %s ran before the host was started: %w", h.ID, errs.ErrNotFound)
	}
	j, err := d.jails.Open(h.ID)
	if err != nil {
		return nil, err
	}
	m, err := d.rejoin(j, h)
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return m, nil
}

// rejoin finds the process and begins to watch it. The pidfd is opened first, so what is checked after it is checked of the
// process that it names, or of none.
func (d *Driver) rejoin(j *jail.Jail, h vmm.Handle) (*machine, error) {
	p, err := proc.Open(h.PID)
	if err != nil {
		return nil, err
	}
	g := d.groups.Get(h.ID)
	if err := is(p, j, g, h); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	logs, err := openSinks(j, true)
	if errors.Is(err, errs.ErrNotFound) { // it has no console
		logs, err = openSinks(j, false)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	m := newMachine(d, j, g, &child{process: p}, logs)
	m.handle = h
	return m, nil
}

// is fails with ErrNotFound unless the process is the one of the handle, and runs.
func is(p *proc.Process, j *jail.Jail, g group, h vmm.Handle) error {
	if err := matches(p, g, h); err != nil {
		return err
	}
	err := answers(j, h)
	if err != nil && p.Ended() {
		return fmt.Errorf("machine %s has ended: %w: %w", h.ID, err, errs.ErrNotFound)
	}
	return err
}

// matches says whether the process is the one of the handle.
func matches(p *proc.Process, g group, h vmm.Handle) error {
	began, err := proc.StartTime(h.PID)
	if err != nil {
		return err
	}
	members, err := g.Members()
	if err != nil {
		return err
	}
	another := fmt.Errorf("process %d is not machine %s: %w", h.PID, h.ID, errs.ErrNotFound)
	if began != h.StartTime || !slices.Contains(members, h.PID) || p.Ended() {
		return another
	}
	executable, err := proc.Executable(h.PID)
	if err == nil && executable != h.Executable {
		return another
	}
	return err
}

// answers says whether the process listens on the machine's API socket.
func answers(j *jail.Jail, h vmm.Handle) error {
	conn, err := j.Dial(socketName, h.PID)
	if errors.Is(err, errs.ErrCorrupt) {
		return fmt.Errorf("process %d is not machine %s: %w: %w", h.PID, h.ID, err, errs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}
