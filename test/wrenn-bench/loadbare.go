package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/vmm/firecracker/api"
)

func (f *frozen) openNamed(ctx context.Context) (*snapshot.Build, error) {
	build, err := f.named()
	if err != nil {
		return nil, err
	}
	return f.open(ctx, build)
}

// flatMemory writes the whole memory of the snapshot into one new file, as a snapshot of Firecracker alone has it. What was written is
// in the page cache.
func (f *frozen) flatMemory(b *snapshot.Build) (path string, err error) {
	out, err := os.CreateTemp(f.parts.StateDir, "bench-memory-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(out.Name()))
		}
	}()
	if err := out.Truncate(b.Map.Pages() * blockmap.PageSize); err != nil {
		return "", err
	}
	pages := b.Pages()
	defer pages.Close()
	buf := make([]byte, 256*blockmap.PageSize)
	for r := range b.Map.Ranges() {
		for at, end := r.Start, r.Start+r.Count; at < end && !r.Zero(); {
			part := buf[:min(int64(len(buf)), (end-at)*blockmap.PageSize)]
			if err := pages.ReadPages(at, part); err != nil {
				return "", err
			}
			if _, err := out.WriteAt(part, at*blockmap.PageSize); err != nil {
				return "", err
			}
			at += int64(len(part)) / blockmap.PageSize
		}
	}
	return out.Name(), nil
}

// loadBare measures Firecracker alone, without jail, pager or record, from its start to the first output of a command.
//
// Its memory is in a file of its own each time. An emulated CPU keeps what it translated by the physical page that the code was in, and
// a file that stays in the page cache would have the guest's code translated already, which no memory that is filled anew has.
func (f *frozen) loadBare(ctx context.Context) (took time.Duration, err error) {
	parts := f.parts
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	b, err := f.openNamed(ctx)
	if err != nil {
		return 0, err
	}
	memory, err := f.flatMemory(b)
	if err != nil {
		return 0, err
	}
	defer os.Remove(memory)
	host, err := prepareBare(ctx, parts, cu, disk.Spec{Store: b.Path(manifest.Disk), SizeBytes: b.Manifest.Machine.DiskBytes})
	if err != nil {
		return 0, err
	}
	// A snapshot names its drives by their paths in the jail.
	if err := host.drives(cu); err != nil {
		return 0, err
	}
	socket := filepath.Join(host.dir, "api")
	began := time.Now()
	cmd, err := host.run("--api-sock", socket)
	if err != nil {
		return 0, err
	}
	cu.Add("end Firecracker", func(context.Context) error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	})
	if err := loadInto(ctx, socket, b.Path(manifest.VMState), memory, host.metadata()); err != nil {
		return 0, err
	}
	dial := client.DialFunc(func(ctx context.Context, port int) (net.Conn, error) { return parts.Network.Dial(ctx, host.id, port) })
	if _, err := client.New(dial, bareToken).WaitAwake(ctx); err != nil {
		return 0, err
	}
	first, err := firstOutput(ctx, dial, bareToken)
	return first.Sub(began), err
}

// loadInto gives a fresh Firecracker the requests that make it the frozen machine.
func loadInto(ctx context.Context, socket, state, memory string, metadata map[string]any) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			break
		} else if time.Now().After(deadline) {
			return err
		}
	}
	c := api.New(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) })
	load := api.SnapshotLoad{SnapshotPath: state, MemBackend: api.MemBackend{BackendType: api.File, BackendPath: memory}, EnableDiffSnapshots: true}
	return errors.Join(c.Put(ctx, api.PathSnapshotLoad, load), c.Put(ctx, api.PathMMDS, metadata), c.Patch(ctx, api.PathVM, api.VM{State: api.Resumed}))
}

// run starts Firecracker in the slot's network namespace with arguments.
func (b *bare) run(args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(b.parts.Firecracker, args...)
	return cmd, b.startInside(cmd)
}

// pagerMemory is how many KiB of memory a sandbox's pager has for itself when it is at rest: it gives back what it needed for its start
// a moment later, so the least of some looks counts.
func pagerMemory(sandbox string) (float64, error) {
	pid, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/wrenn-pager", sandbox, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	least := math.Inf(1)
	for range 50 {
		own, err := privateDirty(fmt.Sprintf("/proc/%s/smaps_rollup", strings.TrimSpace(string(pid))))
		if err != nil {
			return 0, err
		}
		least = min(least, own)
		time.Sleep(100 * time.Millisecond)
	}
	return least, nil
}

func privateDirty(path string) (float64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Private_Dirty:" {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no Private_Dirty", path)
}
