package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/failpoint"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
)

// Manager makes sandboxes on this host and takes them apart. Several managers, in several processes, may work on one state
// folder at once.
type Manager struct{ cfg Config }

// NewManager checks the configuration's folder and returns a manager.
func NewManager(cfg Config) (*Manager, error) {
	if err := os.MkdirAll(filepath.Join(cfg.StateDir, "sandboxes"), 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	return &Manager{cfg: cfg}, nil
}

// MaxVCPUs is the most virtual CPUs a machine may have.
const MaxVCPUs = 32

// Check fills a spec's zero values from its template and refuses what can't be, with the field and the fix. It makes nothing.
func (m *Manager) Check(spec *Spec) (template.Template, error) {
	t, err := m.cfg.Templates.Get(spec.Template)
	if err != nil {
		return t, err
	}
	if spec.VCPUs == 0 {
		spec.VCPUs = t.VCPUs
	}
	if spec.MemoryMiB == 0 {
		spec.MemoryMiB = t.MemoryMiB
	}
	if spec.DiskBytes == 0 {
		spec.DiskBytes = t.Rootfs.Size
	}
	switch {
	case spec.VCPUs < 1 || spec.VCPUs > MaxVCPUs:
		return t, errs.Field("vcpus", fmt.Sprintf("%d is out of range", spec.VCPUs), fmt.Sprintf("give 1 to %d", MaxVCPUs))
	case spec.MemoryMiB < vmm.MinMemoryMiB:
		return t, errs.Field("memory", fmt.Sprintf("%d MiB is too little for a guest to boot", spec.MemoryMiB),
			fmt.Sprintf("give at least %dM", vmm.MinMemoryMiB))
	case spec.DiskBytes < t.Rootfs.Size:
		return t, errs.Field("disk", fmt.Sprintf("%d bytes is less than the template's image", spec.DiskBytes),
			fmt.Sprintf("give at least %dM, or leave it out", (t.Rootfs.Size+1<<20-1)>>20))
	}
	return t, nil
}

func (m *Manager) uid(slot int) int { return m.cfg.UIDBase + slot }

func (m *Manager) path(id string) string { return filepath.Join(m.cfg.StateDir, "sandboxes", id) }

// exclusively runs fn while no other process makes a folder or looks which folders have no owner.
func (m *Manager) exclusively(fn func() error) error {
	f, err := os.OpenFile(filepath.Join(m.cfg.StateDir, "sandboxes.lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return fn()
}

// newFolder makes the folder of a new sandbox, held and with its record written.
func (m *Manager) newFolder(r *Record) (f *folder, err error) {
	err = m.exclusively(func() error {
		path := m.path(r.ID)
		if err := os.Mkdir(path, 0o700); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("sandbox %s: %w", r.ID, errs.ErrAlreadyExists)
			}
			return err
		}
		if err := failpoint.Here(context.Background(), "sandbox.folder"); err != nil {
			return errors.Join(err, os.Remove(path))
		}
		f, err = hold(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := f.write(r); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

// takeApart removes all that a sandbox has on the host: machine, then disk, then network, then the folder. Each is tried
// although another failed, but the folder stays until all are gone, so that a later sweep knows whose they are.
func (m *Manager) takeApart(ctx context.Context, id string, f *folder, r *Record, reason string) error {
	if r != nil {
		r.change(Stopping, reason)
		if err := f.write(r); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := failpoint.Here(ctx, "sandbox.stopping"); err != nil {
		return err
	}
	if err := m.cfg.VMM.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove the machine of %s: %w", id, err)
	}
	if err := failpoint.Here(ctx, "sandbox.machine-gone"); err != nil {
		return err
	}
	derr := m.cfg.Disk.Remove(ctx, id)
	if err := failpoint.Here(ctx, "sandbox.disk-gone"); err != nil {
		return err
	}
	nerr := m.cfg.Network.Release(ctx, id)
	if err := failpoint.Here(ctx, "sandbox.network-gone"); err != nil {
		return err
	}
	if err := errors.Join(derr, nerr); err != nil {
		return fmt.Errorf("take %s apart: %w", id, err)
	}
	if f == nil {
		return nil
	}
	return m.exclusively(f.remove)
}

// hold takes a sandbox's folder, while no other process makes or removes one.
func (m *Manager) hold(id string) (f *folder, err error) {
	err = m.exclusively(func() (err error) {
		f, err = hold(m.path(id))
		return err
	})
	return f, err
}

// Destroy ends a sandbox that no process holds, such as a kept one. ErrNotFound when there is none, ErrUnavailable when a
// living process holds it.
func (m *Manager) Destroy(ctx context.Context, sandboxID, reason string) error {
	if _, err := id.Parse(sandboxID); err != nil {
		return err
	}
	f, err := m.hold(sandboxID)
	if err != nil {
		return err
	}
	r, err := f.read()
	if err != nil && !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrCorrupt) {
		f.release()
		return err
	}
	if err := m.takeApart(ctx, sandboxID, f, r, reason); err != nil {
		f.release()
		return err
	}
	return nil
}

// Failpoints are the names of this package's own steps, for a test that visits all of them. The drivers have theirs.
func Failpoints() []string {
	return []string{"sandbox.folder", "sandbox.groundwork", "sandbox.boot", "sandbox.awake", "sandbox.stopping",
		"sandbox.machine-gone", "sandbox.disk-gone", "sandbox.network-gone"}
}
