package sandbox

import (
	"context"
	"errors"
	"fmt"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/lazyregexp"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
)

// The kinds of references to builds.
const (
	refSandbox  = "sandbox"  // what a sandbox began from, or is while it is paused; the name is its id
	refSnapshot = "snapshot" // a snapshot that a person named
	refTemplate = "template" // a template's warm build; the name is the template's id
	refFork     = "fork"     // what clones are being started from; the name is the source's id
)

// MaxVCPUs is the most virtual CPUs a machine may have.
const MaxVCPUs = 32

// origin is what a sandbox begins from.
type origin struct {
	template   string // name
	templateID string
	snapshot   string // name, "" for a template
	parts      manifest.Machine
	build      *snapshot.Build // nil: it boots
}

// Check fills a spec's zero values from its template or snapshot and refuses what can't be, with the field and the fix. It makes
// nothing.
func (m *Manager) Check(ctx context.Context, spec *Spec) error {
	_, err := m.resolve(ctx, spec)
	return err
}

// resolve finds what a spec is to begin from; of a template, whether from its warm build is not decided yet.
func (m *Manager) resolve(ctx context.Context, spec *Spec) (origin, error) {
	switch {
	case spec.Snapshot != "" && spec.Template != "":
		return origin{}, errs.Field("template", "a snapshot is given as well", "leave one of the two out")
	case spec.Snapshot != "":
		return m.fromSnapshot(ctx, spec)
	}
	return m.fromTemplate(spec)
}

func (m *Manager) fromTemplate(spec *Spec) (origin, error) {
	t, err := m.cfg.Templates.Get(spec.Template)
	if err != nil {
		return origin{}, err
	}
	spec.Cold = spec.Cold || spec.Console || !hasSizesOf(*spec, t)
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
		return origin{}, errs.Field("vcpus", fmt.Sprintf("%d is out of range", spec.VCPUs), fmt.Sprintf("give 1 to %d", MaxVCPUs))
	case spec.MemoryMiB < vmm.MinMemoryMiB:
		return origin{}, errs.Field("memory", fmt.Sprintf("%d MiB is too little for a guest to boot", spec.MemoryMiB),
			fmt.Sprintf("give at least %dM", vmm.MinMemoryMiB))
	case spec.DiskBytes < t.Rootfs.Size:
		return origin{}, errs.Field("disk", fmt.Sprintf("%d bytes is less than the template's image", spec.DiskBytes),
			fmt.Sprintf("give at least %dM, or leave it out", (t.Rootfs.Size+1<<20-1)>>20))
	}
	return origin{template: t.Name, templateID: t.ID, parts: partsOf(t, *spec)}, nil
}

// hasSizesOf says whether the spec asks for nothing but what the template's warm build has.
func hasSizesOf(spec Spec, t template.Template) bool {
	return (spec.VCPUs == 0 || spec.VCPUs == t.VCPUs) && (spec.MemoryMiB == 0 || spec.MemoryMiB == t.MemoryMiB) &&
		(spec.DiskBytes == 0 || spec.DiskBytes == t.Rootfs.Size)
}

// The ids of the drives, which are also their names in the jail.
const (
	rootDrive    = "rootfs"
	modulesDrive = "modules"
)

// partsOf is what a machine of a template is made of.
func partsOf(t template.Template, spec Spec) manifest.Machine {
	return manifest.Machine{
		Kernel: t.Kernel.Digest, Initramfs: t.Initramfs.Digest, Modules: t.Modules.Digest, RootFS: t.Rootfs.Digest,
		Devices: manifest.Devices{NIC: true, Entropy: true,
			Drives: []manifest.Drive{{ID: rootDrive}, {ID: modulesDrive, ReadOnly: true}}},
		VCPUs: spec.VCPUs, MemoryMiB: spec.MemoryMiB, DiskBytes: spec.DiskBytes,
	}
}

var snapshotName = lazyregexp.New(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// checkSnapshotName refuses what can't be a snapshot's name.
func checkSnapshotName(name string) error {
	if !snapshotName().MatchString(name) {
		return errs.Field("snapshot", fmt.Sprintf("%.80q can't be a name", name),
			"give at most 64 lower-case letters, digits, dots, dashes and underscores, the first a letter or digit")
	}
	return nil
}

// fromSnapshot finds a named snapshot. Its sizes can't be others: they are part of what was frozen.
func (m *Manager) fromSnapshot(ctx context.Context, spec *Spec) (origin, error) {
	if err := checkSnapshotName(spec.Snapshot); err != nil {
		return origin{}, err
	}
	if spec.Cold || spec.Console {
		return origin{}, errs.Field("cold", "a snapshot is frozen memory and can't boot", "leave it out, or start from a template")
	}
	build, err := m.builds.GetRef(snapshot.Ref{Kind: refSnapshot, Name: spec.Snapshot})
	if errors.Is(err, errs.ErrNotFound) {
		return origin{}, fmt.Errorf("snapshot %q: %w", spec.Snapshot, errs.ErrNotFound)
	}
	if err != nil {
		return origin{}, err
	}
	b, err := m.open(ctx, build)
	if err != nil {
		return origin{}, err
	}
	parts := b.Manifest.Machine
	for _, size := range []struct {
		field         string
		asked, frozen int64
	}{
		{"vcpus", int64(spec.VCPUs), int64(parts.VCPUs)}, {"memory", int64(spec.MemoryMiB), int64(parts.MemoryMiB)},
		{"disk", spec.DiskBytes, parts.DiskBytes},
	} {
		if size.asked != 0 && size.asked != size.frozen {
			return origin{}, errs.Field(size.field, fmt.Sprintf("the snapshot has %d, and %d was asked for", size.frozen, size.asked), "leave it out")
		}
	}
	spec.VCPUs, spec.MemoryMiB, spec.DiskBytes = parts.VCPUs, parts.MemoryMiB, parts.DiskBytes
	return origin{snapshot: spec.Snapshot, templateID: b.ID, parts: parts, build: b}, nil
}

// open returns a build that is whole and fits this host. It fails as snapshot.Store.Open and manifest.Fits do.
func (m *Manager) open(ctx context.Context, build string) (*snapshot.Build, error) {
	b, err := m.builds.Open(ctx, build)
	if err != nil {
		return nil, err
	}
	host, err := m.cfg.Host(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.Manifest.Fits(host); err != nil {
		return nil, err
	}
	return b, nil
}

// Templates returns the host's templates, by name. One that is not whole is left out: Create says what is wrong with it.
func (m *Manager) Templates() ([]template.Template, error) {
	names, err := m.cfg.Templates.List()
	if err != nil {
		return nil, err
	}
	var list []template.Template
	for _, name := range names {
		t, err := m.cfg.Templates.Get(name)
		switch {
		case err == nil:
			list = append(list, t)
		case !errors.Is(err, errs.ErrNotFound) && !errors.Is(err, errs.ErrCorrupt):
			return nil, err
		}
	}
	return list, nil
}
