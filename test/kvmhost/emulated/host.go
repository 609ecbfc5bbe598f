// Package emulated is the emulated KVM host: a machine with Debian's kernel and tools, KVM, device-mapper and folders of this
// machine in it, in which commands run. Hosts share nothing that one could change for another; what one writes is gone with it.
package emulated

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"wrenn.dev/wrenn/internal/buildcache"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/test/kvmhost/layout"
	"wrenn.dev/wrenn/test/kvmhost/machine"
	"wrenn.dev/wrenn/test/kvmhost/remote"
	"wrenn.dev/wrenn/test/kvmhost/rootdisk"
)

// Options says what is in a host.
type Options struct {
	Bin    string // folder of built binaries, at layout.Bin; empty is none
	Tests  string // folder of test binaries and their data, at layout.Tests; empty is none
	Images string // store of templates, at layout.Images; empty is none

	Memory   int   // MiB
	Scratch  int64 // size of the scratch disk in bytes
	Forwards []machine.Forward

	// State is a file that keeps the scratch disk for the next host; it is made if it is not there. Empty: it is thrown away.
	State string
	// Systemd has systemd as the host's init.
	Systemd bool

	// Log gets a line for what takes long; nil drops them.
	Log io.Writer
}

// Host is a booted host.
type Host struct {
	machine *machine.Machine
	client  *remote.Client
}

// Boot boots a host, and makes first what it boots from when that is not in the build cache. The caller must Close it.
func Boot(ctx context.Context, o Options) (*Host, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	files, err := rootdisk.Make(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	temp, err := tempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) // QEMU keeps what it has open
	config, err := configure(ctx, o, files, temp)
	if err != nil {
		return nil, err
	}
	m, err := machine.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	return connect(ctx, m)
}

// connect waits for the agent and greets it. It stops the machine on an error.
func connect(ctx context.Context, m *machine.Machine) (h *Host, err error) {
	cu := cleanup.New(ctx)
	defer cu.Clean(&err)
	cu.Add("stop the machine", func(context.Context) error { return m.Stop() })
	if err := m.Ready(ctx); err != nil {
		return nil, err
	}
	client, err := remote.NewClient(ctx, m.Control())
	if err != nil {
		return nil, err
	}
	cu.Release()
	return &Host{machine: m, client: client}, nil
}

func configure(ctx context.Context, o Options, files rootdisk.Files, temp string) (machine.Config, error) {
	c := machine.Config{Tools: files.Tools, Kernel: files.Kernel, Memory: o.Memory, Forwards: o.Forwards, Temp: temp}
	c.Initrd = filepath.Join(temp, "initramfs")
	if err := rootdisk.Initramfs(ctx, files, c.Initrd); err != nil {
		return c, err
	}
	if o.Systemd {
		c.Parameters = append(c.Parameters, layout.SystemdInit)
	}
	scratch := machine.Disk{Serial: layout.ScratchDisk, Path: o.State, Kept: o.State != ""}
	var err error
	if o.State == "" {
		scratch.Path, err = rootdisk.Scratch(ctx, files, o.Scratch)
	} else {
		err = rootdisk.State(ctx, files, o.State, o.Scratch)
	}
	if err != nil {
		return c, err
	}
	c.Disks = []machine.Disk{{Serial: layout.RootDisk, Path: files.Root}, scratch}
	if o.Images != "" {
		image, err := rootdisk.CachedFolder(ctx, files, o.Images)
		if err != nil {
			return c, err
		}
		c.Disks = append(c.Disks, machine.Disk{Serial: layout.ImagesDisk, Path: image, ReadOnly: true})
	}
	for serial, folder := range map[string]string{layout.BinDisk: o.Bin, layout.TestsDisk: o.Tests} {
		if folder == "" {
			continue
		}
		image := filepath.Join(temp, serial+".img")
		if err := rootdisk.Folder(ctx, files, image, folder); err != nil {
			return c, err
		}
		c.Disks = append(c.Disks, machine.Disk{Serial: serial, Path: image, ReadOnly: true})
	}
	return c, nil
}

// lossPatience is how long the machine may take to end after its streams did.
const lossPatience = 30 * time.Second

// Run runs a command to its end and returns its exit code. The error is a *machine.Lost when the machine ended before the
// command did.
func (h *Host) Run(ctx context.Context, cmd remote.Command) (int, error) {
	code, err := h.client.Run(ctx, cmd)
	return code, h.explain(err)
}

// explain says why a stream ended when it was the machine that did.
func (h *Host) explain(err error) error {
	if !errors.Is(err, remote.ErrGone) {
		return err
	}
	select {
	case <-h.machine.Done():
		if lost := h.machine.Err(); lost != nil {
			return lost
		}
	case <-time.After(lossPatience):
	}
	return err
}

// Stream opens a stream that a remote.NewClient can run commands on.
func (h *Host) Stream() (io.ReadWriteCloser, error) {
	s, err := h.client.Open()
	return s, h.explain(err)
}

// Done is closed when the host has ended.
func (h *Host) Done() <-chan struct{} { return h.machine.Done() }

// Err says why the host has ended: a *machine.Lost, or nil when it was closed or still runs.
func (h *Host) Err() error { return h.machine.Err() }

// Pid is the process id of the host's QEMU.
func (h *Host) Pid() int { return h.machine.Pid() }

// Close ends the host at once, with all that runs in it.
func (h *Host) Close() error {
	err := h.machine.Stop()
	_ = h.client.Close()
	return err
}

// staleTemp is the age at which a temporary folder has no owner any more: it is in use for the seconds of a boot.
const staleTemp = time.Hour

// tempDir makes a folder in the cache, and removes those that a killed tool left there.
func tempDir() (string, error) {
	cache, err := buildcache.Dir()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(cache, "kvmhost-boot")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleTemp {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return "", err
			}
		}
	}
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return "", fmt.Errorf("a folder for the boot: %w", err)
	}
	return dir, nil
}
