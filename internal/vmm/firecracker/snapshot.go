package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/api"
)

// The points that every Snapshot passes: after the files were lent, and after they are written.
var (
	pointLent    = failpoint.New(stepPrefix + "snapshot-files")
	pointWritten = failpoint.New(stepPrefix + "snapshot-written")
)

// SnapshotFailpoints are the names of the points that every Snapshot passes.
func SnapshotFailpoints() []string { return failpoint.Names(pointLent, pointWritten) }

// Pause stops the virtual CPUs.
func (m *machine) Pause(ctx context.Context) error { return m.setState(ctx, api.Paused) }

// Resume lets them go on.
func (m *machine) Resume(ctx context.Context) error { return m.setState(ctx, api.Resumed) }

func (m *machine) setState(ctx context.Context, state string) error {
	ctx, stop := m.whileAlive(ctx)
	defer stop()
	return m.client.Patch(ctx, api.PathVM, api.VM{State: state})
}

// Snapshot has Firecracker write into files that are lent to it.
func (m *machine) Snapshot(ctx context.Context, s vmm.Snapshot) (err error) {
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	who, err := inspect(m.handle.PID)
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w: %w", m.handle.ID, err, errs.ErrUnavailable)
	}
	var lent []func() error
	for _, file := range []struct{ path, name string }{{s.State, newStateName}, {s.Memory, newMemoryName}} {
		back, err := m.lend(file.path, file.name, who, cu)
		if err != nil {
			return fmt.Errorf("snapshot of %s: %w", m.handle.ID, err)
		}
		lent = append(lent, back)
	}
	if err := failpoint.Here(ctx, pointLent); err != nil {
		return err
	}
	kind := api.Full
	if s.Diff {
		kind = api.Diff
	}
	if err := m.create(ctx, kind); err != nil {
		return fmt.Errorf("snapshot of %s: %w", m.handle.ID, err)
	}
	if err := failpoint.Here(ctx, pointWritten); err != nil {
		return err
	}
	for _, back := range lent {
		if err := back(); err != nil {
			return fmt.Errorf("snapshot of %s: %w", m.handle.ID, err)
		}
	}
	cu.Release()
	return nil
}

// lend makes a new file and lends it to the process. The returned function takes it back; clean-up removes it.
func (m *machine) lend(path, name string, who vmm.Confinement, cu *cleanup.Stack) (back func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", path, errs.ErrAlreadyExists)
	}
	if err != nil {
		return nil, err
	}
	cu.Add("remove "+filepath.Base(path), func(context.Context) error {
		return errors.Join(m.jail.Return(f, name), os.Remove(path), f.Close())
	})
	if err := m.jail.Lend(f, name, who.UID, who.GID); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(m.jail.Return(f, name), f.Close()) }, nil
}

// create has the files written. What Firecracker says of a full file system is only in its words, so the file system is asked.
func (m *machine) create(ctx context.Context, kind string) error {
	alive, stop := m.whileAlive(ctx)
	defer stop()
	err := m.client.Put(alive, api.PathSnapshotCreate,
		api.SnapshotCreate{SnapshotType: kind, SnapshotPath: "/" + newStateName, MemFilePath: "/" + newMemoryName})
	if err == nil {
		return nil
	}
	var st unix.Statfs_t
	if unix.Statfs(m.d.opts.StateDir, &st) == nil && st.Bavail < uint64(fullBelow/st.Bsize) {
		return fmt.Errorf("%w: %w", err, errs.ErrResourceExhausted)
	}
	return err
}

// fullBelow is what a full file system has left at most: what did not fit was larger.
const fullBelow = 1 << 20
