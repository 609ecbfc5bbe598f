package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"wrenn.dev/wrenn/internal/lazyregexp"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
)

var (
	digestPattern = lazyregexp.New(`^[0-9a-f]{64}$`)
	wordPattern   = lazyregexp.New(`^[ -~]{1,200}$`)
	drivePattern  = lazyregexp.New(`^[A-Za-z0-9_]{1,64}$`)
)

// Bounds on a machine and its disk.
const (
	maxVCPUs     = 1024
	maxMemoryMiB = blockmap.MaxPages >> 8
	maxDiskBytes = 1 << 50
	maxDrives    = 64
)

// check tells what of the document can't be.
func (m *Manifest) check() error {
	if m.Version != Version {
		return fmt.Errorf("version %d, want %d", m.Version, Version)
	}
	if err := blockmap.CheckBuildID(m.Build); err != nil {
		return err
	}
	if m.Parent != "" {
		if err := blockmap.CheckBuildID(m.Parent); err != nil {
			return fmt.Errorf("parent: %w", err)
		}
	}
	if m.Created.IsZero() || m.Created.Location() != time.UTC {
		return fmt.Errorf("created %v: want a time in UTC", m.Created)
	}
	if m.Kind != Full && m.Kind != Diff {
		return fmt.Errorf("kind %.20q, want full or diff", m.Kind)
	}
	return errors.Join(m.Host.check(), m.Machine.check(), m.checkFiles(), m.checkNeeds())
}

func (h Host) check() error {
	for name, s := range map[string]string{"firecracker": h.Firecracker, "snapshot format": h.SnapshotFormat, "cpu vendor": h.CPU.Vendor, "host kernel": h.KernelRelease} {
		if !wordPattern().MatchString(s) {
			return fmt.Errorf("%s is %.40q", name, s)
		}
	}
	if h.CPUTemplate != "" && !wordPattern().MatchString(h.CPUTemplate) {
		return fmt.Errorf("cpu template is %.40q", h.CPUTemplate)
	}
	if min(h.CPU.Family, h.CPU.Model, h.CPU.Stepping) < 0 {
		return fmt.Errorf("cpu is %s", h.CPU)
	}
	return nil
}

func (m Machine) check() error {
	for name, d := range map[string]string{"guest kernel": m.Kernel, "initramfs": m.Initramfs, "modules": m.Modules, "rootfs": m.RootFS} {
		if optional := name == "initramfs" || name == "modules"; !(optional && d == "") && !digestPattern().MatchString(d) {
			return fmt.Errorf("%s has digest %.80q", name, d)
		}
	}
	switch {
	case m.VCPUs < 1 || m.VCPUs > maxVCPUs:
		return fmt.Errorf("%d vcpus", m.VCPUs)
	case m.MemoryMiB < 1 || m.MemoryMiB > maxMemoryMiB:
		return fmt.Errorf("%d MiB of memory", m.MemoryMiB)
	case m.DiskBytes < 0 || m.DiskBytes > maxDiskBytes:
		return fmt.Errorf("a disk of %d bytes", m.DiskBytes)
	case len(m.Devices.Drives) > maxDrives:
		return fmt.Errorf("%d drives", len(m.Devices.Drives))
	}
	for _, d := range m.Devices.Drives {
		if !drivePattern().MatchString(d.ID) {
			return fmt.Errorf("drive %.40q", d.ID)
		}
	}
	return nil
}

func (m *Manifest) checkFiles() error {
	if names := slices.Sorted(maps.Keys(m.Files)); !slices.Equal(names, Names()) {
		return fmt.Errorf("files %.200q, want %q", names, Names())
	}
	if size := m.Files[Memory].Size; size != int64(m.Machine.MemoryMiB)<<20 {
		return fmt.Errorf("a memory file of %d bytes for %d MiB", size, m.Machine.MemoryMiB)
	}
	for name, f := range m.Files {
		if err := f.check(Chunked(name)); err != nil {
			return fmt.Errorf("file %s: %w", name, err)
		}
	}
	return nil
}

func (f File) check(chunked bool) error {
	if f.Size < 0 || f.Size > maxDiskBytes {
		return fmt.Errorf("%d bytes", f.Size)
	}
	if !chunked {
		if !digestPattern().MatchString(f.SHA256) || f.Chunks != nil {
			return fmt.Errorf("digest %.80q and %d chunks; want only a digest", f.SHA256, len(f.Chunks))
		}
		return nil
	}
	if f.SHA256 != "" {
		return fmt.Errorf("digest %.80q; want only chunks", f.SHA256)
	}
	next := int64(0)
	for _, c := range f.Chunks {
		if c.Offset < next || c.Offset%ChunkSize != 0 || c.Offset >= f.Size || c.Bytes < 1 || c.Bytes > min(ChunkSize, f.Size-c.Offset) || !digestPattern().MatchString(c.SHA256) {
			return fmt.Errorf("chunk %+v of %d bytes", c, f.Size)
		}
		next = c.Offset + ChunkSize
	}
	return nil
}

func (m *Manifest) checkNeeds() error {
	if len(m.Needs) > blockmap.MaxBuilds {
		return fmt.Errorf("needs %d builds", len(m.Needs))
	}
	for i, n := range m.Needs {
		if err := blockmap.CheckBuildID(n.Build); err != nil {
			return fmt.Errorf("needs: %w", err)
		}
		if n.Build == m.Build || !digestPattern().MatchString(n.Manifest) || (i > 0 && m.Needs[i-1].Build >= n.Build) {
			return fmt.Errorf("needs %+v: itself, or out of order, or no digest", n)
		}
	}
	return nil
}
