package assembly

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/vmm"
)

// fingerprint says what of this host a frozen machine depends on.
func fingerprint(driver vmm.Driver) func(context.Context) (manifest.Host, error) {
	return func(ctx context.Context) (manifest.Host, error) {
		print, err := driver.Fingerprint(ctx)
		if err != nil {
			return manifest.Host{}, err
		}
		cpu, err := readCPU("/proc/cpuinfo")
		if err != nil {
			return manifest.Host{}, err
		}
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return manifest.Host{}, err
		}
		return manifest.Host{Firecracker: print.Version, SnapshotFormat: print.SnapshotFormat, CPU: cpu,
			KernelRelease: unix.ByteSliceToString(u.Release[:])}, nil
	}
}

// readCPU reads the first processor of a file like /proc/cpuinfo.
func readCPU(path string) (manifest.CPU, error) {
	f, err := os.Open(path)
	if err != nil {
		return manifest.CPU{}, err
	}
	defer f.Close()
	fields := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan() && s.Text() != ""; {
		name, value, _ := strings.Cut(s.Text(), ":")
		fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	cpu := manifest.CPU{Vendor: fields["vendor_id"]}
	for name, number := range map[string]*int{"cpu family": &cpu.Family, "model": &cpu.Model, "stepping": &cpu.Stepping} {
		if *number, err = strconv.Atoi(fields[name]); err != nil {
			return manifest.CPU{}, fmt.Errorf("%s: %s %q: %w", path, name, fields[name], errs.ErrFailedPrecondition)
		}
	}
	if cpu.Vendor == "" {
		return manifest.CPU{}, fmt.Errorf("%s names no vendor of the CPU: %w", path, errs.ErrFailedPrecondition)
	}
	return cpu, nil
}
