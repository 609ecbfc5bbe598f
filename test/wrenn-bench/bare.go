package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netns"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/template"
)

// bareToken is what envd asks for in the bare machine. It guards nothing.
const bareToken = "bare"

// bare is a Firecracker without jail, cgroup or record. Its disk and network are made before the clock starts.
type bare struct {
	parts *assembly.Parts
	id    string
	slot  network.Slot
	disk  disk.Disk
	dir   string

	template template.Template
}

func bootBare(ctx context.Context, parts *assembly.Parts) (took time.Duration, err error) {
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	b, err := prepareBare(ctx, parts, cu, disk.Spec{})
	if err != nil {
		return 0, err
	}
	if err := b.configure(); err != nil {
		return 0, err
	}
	began := time.Now()
	cmd, err := b.run("--no-api", "--config-file", filepath.Join(b.dir, "config.json"), "--metadata", filepath.Join(b.dir, "metadata.json"))
	if err != nil {
		return 0, err
	}
	cu.Add("end Firecracker", func(context.Context) error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	})
	dial := client.DialFunc(func(ctx context.Context, port int) (net.Conn, error) { return parts.Network.Dial(ctx, b.id, port) })
	if err := client.New(dial, bareToken).WaitReady(ctx); err != nil {
		return 0, err
	}
	first, err := firstOutput(ctx, dial, bareToken)
	return first.Sub(began), err
}

// prepareBare makes the disk and the network. Of the disk's spec, the id and the base are filled in.
func prepareBare(ctx context.Context, parts *assembly.Parts, cu *cleanup.Stack, spec disk.Spec) (b *bare, err error) {
	b = &bare{parts: parts, id: id.New()}
	if b.dir, err = os.MkdirTemp("", "wrenn-bench-"); err != nil {
		return nil, err
	}
	cu.Add("remove the folder", func(context.Context) error { return os.RemoveAll(b.dir) })
	if b.template, err = parts.Templates.Get("base"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(parts.StateDir, "sandboxes", b.id), 0o700); err != nil {
		return nil, err
	}
	cu.Add("remove the state", func(context.Context) error {
		return os.RemoveAll(filepath.Join(parts.StateDir, "sandboxes", b.id))
	})
	cu.Add("release the network", func(ctx context.Context) error { return parts.Network.Release(ctx, b.id) })
	if b.slot, err = parts.Network.Acquire(ctx, b.id, network.Policy{Internet: true}, func(int) int { return 0 }); err != nil {
		return nil, err
	}
	cu.Add("remove the disk", func(ctx context.Context) error { return parts.Disk.Remove(ctx, b.id) })
	digest := b.template.Rootfs.Digest
	spec.ID, spec.Base = b.id, disk.Base{Digest: digest, Path: parts.Templates.Path(digest)}
	b.disk, err = parts.Disk.Create(ctx, spec)
	return b, err
}

// drives makes the drives appear at the paths that a frozen machine has for them: those in a jail.
func (b *bare) drives(cu *cleanup.Stack) error {
	if err := os.MkdirAll("/drives", 0o755); err != nil {
		return err
	}
	cu.Add("remove the drives", func(context.Context) error { return os.RemoveAll("/drives") })
	modules := b.parts.Templates.Path(b.template.Modules.Digest)
	return errors.Join(os.Symlink(b.disk.Device, "/drives/rootfs"), os.Symlink(modules, "/drives/modules"))
}

// metadata is what the guest reads.
func (b *bare) metadata() map[string]any {
	return map[string]any{"WRENN_SANDBOX_ID": b.id, "WRENN_TEMPLATE_ID": b.template.ID, "WRENN_HOSTNAME": b.id, "WRENN_START": b.id,
		"WRENN_ENVD_TOKEN": bareToken}
}

// configure writes what Firecracker reads: the same machine as a sandbox's.
func (b *bare) configure() error {
	t, path := b.template, b.parts.Templates.Path
	config := map[string]any{
		"machine-config": map[string]any{"vcpu_count": t.VCPUs, "mem_size_mib": t.MemoryMiB, "track_dirty_pages": true},
		"boot-source": map[string]any{
			"kernel_image_path": path(t.Kernel.Digest), "initrd_path": path(t.Initramfs.Digest),
			"boot_args": "quiet loglevel=1 8250.nr_uarts=0 reboot=k panic=1 i8042.noaux i8042.nomux i8042.dumbkbd rdinit=/init",
		},
		"drives": []any{
			map[string]any{"drive_id": "rootfs", "path_on_host": b.disk.Device, "is_root_device": false, "is_read_only": false},
			map[string]any{"drive_id": "modules", "path_on_host": path(t.Modules.Digest), "is_root_device": false, "is_read_only": true},
		},
		"network-interfaces": []any{map[string]any{"iface_id": "eth0", "host_dev_name": b.slot.TAP, "guest_mac": network.GuestMAC}},
		"mmds-config":        map[string]any{"version": "V2", "network_interfaces": []string{"eth0"}},
		"entropy":            map[string]any{},
	}
	for name, doc := range map[string]any{"config.json": config, "metadata.json": b.metadata()} {
		data, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startInside starts a command in the slot's namespace. A child process inherits the namespace of the thread that starts it.
func (b *bare) startInside(cmd *exec.Cmd) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- startIn(b.slot.NetNS, cmd)
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("start Firecracker: %w", err)
	}
	return nil
}

func startIn(path string, cmd *exec.Cmd) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	if err := netns.Set(ns); err != nil {
		return errors.Join(err, ns.Close())
	}
	return errors.Join(cmd.Start(), ns.Close())
}
