package manifest

import (
	"fmt"
	"strings"

	"wrenn.dev/wrenn/internal/errs"
)

// Fits tells whether the build can be started on a host. All must be equal: Firecracker gives no promise between versions,
// and only warns of another processor before the guest crashes. It fails with errs.ErrFailedPrecondition and every
// difference.
func (m *Manifest) Fits(host Host) error {
	var d differences
	s := m.Host
	d.compare("firecracker", s.Firecracker, host.Firecracker)
	d.compare("snapshot format", s.SnapshotFormat, host.SnapshotFormat)
	d.compare("cpu model", s.CPU, host.CPU)
	d.compare("cpu template", s.CPUTemplate, host.CPUTemplate)
	d.compare("host kernel", s.KernelRelease, host.KernelRelease)
	return d.err(m.Build, "this host")
}

// FitsMachine tells whether the build is of the machine that the caller is about to prepare: the same images, devices and
// sizes. It fails with errs.ErrFailedPrecondition and every difference.
func (m *Manifest) FitsMachine(want Machine) error {
	var d differences
	s := m.Machine
	d.compare("guest kernel", s.Kernel, want.Kernel)
	d.compare("initramfs", s.Initramfs, want.Initramfs)
	d.compare("modules", s.Modules, want.Modules)
	d.compare("rootfs", s.RootFS, want.RootFS)
	d.compare("devices", s.Devices, want.Devices)
	d.compare("vcpus", s.VCPUs, want.VCPUs)
	d.compare("memory MiB", s.MemoryMiB, want.MemoryMiB)
	d.compare("disk bytes", s.DiskBytes, want.DiskBytes)
	return d.err(m.Build, "the machine")
}

func (d differences) err(build, what string) error {
	if len(d) == 0 {
		return nil
	}
	return fmt.Errorf("snapshot %s does not fit %s: %s: %w", build, what, strings.Join(d, "; "), errs.ErrFailedPrecondition)
}
