// Package firecracker implements vmm.Driver with Firecracker, always inside its jailer.
//
// # What a machine is on the host
//
//	<state>/jail/firecracker/<id>/root   the chroot; the process's root folder
//	/sys/fs/cgroup/wrenn/<id>            the cgroup with its limits
//	one process                          own uid, netns, pid and mount namespace, seccomp filter, no capability
//
// All names follow from the id, and both folders are made before the process, so what a killed starter left is found and
// removed by Remove. The process is born in its cgroup: ending the cgroup ends all of the machine.
//
// # Paths inside the jail
//
// They are the same in every jail, because a snapshot records them: /kernel and /initramfs of a machine that boots, /state and
// /memory or /pager.socket of one that begins from a frozen one, /drives/<id>, /run/firecracker.socket.
//
// # Output
//
// Firecracker's log goes to the named pipe /log, the guest's console (when one is asked for) to /console. Package sink says
// why neither can block the machine, fill a disk or cost the reader much, however much is written.
//
// # The pid namespace
//
// It is made by the clone that starts the jailer and not by the jailer's --new-pid-ns, which forks and leaves Firecracker to
// init. So Firecracker is a direct child: its pidfd comes with the clone, and its exit code can be collected. The outcome is
// the same namespace, with Firecracker as its first process.
package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"wrenn.dev/wrenn/internal/cgroup"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/firecracker/jail"
	"wrenn.dev/wrenn/internal/vmm/firecracker/release"
)

// Name is the driver's name in a vmm.Handle.
const Name = "firecracker"

// Options say where things are on this host.
type Options struct {
	// StateDir is the folder of all state. The jails are in "jail" below it, copies of files that are on another file system
	// in "stage".
	StateDir string
	// Firecracker and Jailer are the absolute paths of the two binaries, of one release.
	Firecracker, Jailer string
	// CgroupRoot is where the unified cgroup hierarchy is mounted; empty means cgroup.DefaultRoot.
	CgroupRoot string
}

// Driver starts Firecracker machines. It keeps nothing in memory that another process would need.
type Driver struct {
	opts   Options
	jails  jail.Base
	groups groups
	launch launcher

	mu       sync.Mutex
	binaries *binaries // once they were looked at
}

// binaries are what is known of the two binaries.
type binaries struct {
	version release.Version
	// exec is Firecracker's path without symbolic links: the jailer names the jail's folder after its last part.
	exec string
}

// groups are the cgroups that machines run in; *cgroup.Parent makes the real ones.
type groups interface {
	Create(id string, limits vmm.Limits) (group, error)
	Get(id string) group
	List() ([]string, error)
	Tidy() error
}

// group is the cgroup of one machine; *cgroup.Group says what the methods do.
type group interface {
	Open() (*os.File, error)
	Members() ([]int, error)
	OOMKilled() bool
	Usage() (cgroup.Usage, error)
	Kill(ctx context.Context) error
	Remove() error
}

// New returns a driver. It makes nothing and does not look at the binaries: List, Recover and Remove work without them.
func New(opts Options) *Driver {
	if opts.CgroupRoot == "" {
		opts.CgroupRoot = cgroup.DefaultRoot
	}
	return &Driver{
		opts:   opts,
		jails:  jail.New(filepath.Join(opts.StateDir, "jail"), filepath.Join(opts.StateDir, "stage")),
		groups: kernelGroups{cgroup.New(opts.CgroupRoot, cgroup.Machines)},
		launch: launchJailed,
	}
}

// kernelGroups are the real cgroups.
type kernelGroups struct{ *cgroup.Parent }

// Create and Get return the real groups as the interface.
func (k kernelGroups) Create(id string, limits vmm.Limits) (group, error) {
	return k.Parent.Create(id, cgroup.Limits(limits))
}

// Get returns the real group of an id.
func (k kernelGroups) Get(id string) group { return k.Parent.Get(id) }

// Tidy implements vmm.Tidier: copies of files that no jail has used for a day.
func (d *Driver) Tidy(context.Context) error { return d.jails.Tidy() }

// Usage implements vmm.Meter: what the machine's cgroup takes.
func (d *Driver) Usage(_ context.Context, machine string) (vmm.Usage, error) {
	if _, err := id.Parse(machine); err != nil {
		return vmm.Usage{}, err
	}
	u, err := d.groups.Get(machine).Usage()
	return vmm.Usage(u), err
}

// look looks at the binaries once. A failure is not kept: they may be put right meanwhile.
func (d *Driver) look(ctx context.Context) (binaries, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.binaries != nil {
		return *d.binaries, nil
	}
	f, _, err := release.DetectPair(ctx, d.opts.Firecracker, d.opts.Jailer)
	if err != nil {
		return binaries{}, err
	}
	exec, err := filepath.EvalSymlinks(d.opts.Firecracker)
	if err != nil {
		return binaries{}, err
	}
	if !strings.Contains(filepath.Base(exec), Name) {
		return binaries{}, fmt.Errorf("the jailer wants %q in the file name of %s: %w", Name, exec, errs.ErrFailedPrecondition)
	}
	d.binaries = &binaries{version: f.Version, exec: exec}
	return *d.binaries, nil
}

// Fingerprint looks at the binaries. Before 1.14.2 and in 1.15.0 a Diff snapshot of more than 3 GiB is wrong (upstream's #5705).
func (d *Driver) Fingerprint(ctx context.Context) (vmm.Fingerprint, error) {
	b, err := d.look(ctx)
	if err != nil {
		return vmm.Fingerprint{}, err
	}
	f := vmm.Fingerprint{VMM: Name, Version: b.version.String(), SnapshotFormat: b.version.SnapshotFormat()}
	if !b.version.Features().DiffOfSlots {
		f.DiffMaxMiB = release.OneSlotMiB
	}
	return f, nil
}

// List returns the ids that have a cgroup or a jail. Folders whose name is no id are not ours to tell of.
func (d *Driver) List(context.Context) ([]string, error) {
	jails, err := d.jails.List()
	if err != nil {
		return nil, fmt.Errorf("list jails: %w", err)
	}
	grps, err := d.groups.List()
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	ids := append(jails, grps...)
	ids = slices.DeleteFunc(ids, func(s string) bool {
		_, err := id.Parse(s)
		return err != nil
	})
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// Remove ends the machine and removes its cgroup and jail.
func (d *Driver) Remove(ctx context.Context, machine string) error {
	if _, err := id.Parse(machine); err != nil {
		return err
	}
	if err := d.end(ctx, machine); err != nil {
		return err
	}
	if err := d.groups.Get(machine).Remove(); err != nil {
		return err
	}
	if err := d.jails.Remove(ctx, machine); err != nil {
		return err
	}
	return d.groups.Tidy()
}

// end kills what runs of the machine and returns when it is gone. That it was asked for is on record first.
func (d *Driver) end(ctx context.Context, machine string) error {
	if err := d.jails.MarkKilled(machine); err != nil {
		return fmt.Errorf("mark %s as killed: %w", machine, err)
	}
	if err := d.groups.Get(machine).Kill(ctx); err != nil {
		return fmt.Errorf("kill %s: %w", machine, err)
	}
	return nil
}
