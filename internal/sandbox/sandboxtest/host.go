// Package sandboxtest is a host in memory for tests of what runs sandboxes: real managers, on the fakes of machine, disk and network.
//
//	h := sandboxtest.NewHost(t)
//	first := h.Manager(t)    // the first process
//	second := h.Manager(t)   // another one: it sees what the first one left
//	h.Reboot()
package sandboxtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/disk/disktest"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/network/networktest"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/template"
	"wrenn.dev/wrenn/internal/vmm"
	"wrenn.dev/wrenn/internal/vmm/vmmtest"
)

// Host is one host with all that outlives a process on it. The hooks of its parts make failures on demand: set them while nothing runs.
type Host struct {
	StateDir string
	Machines *vmmtest.Host
	VMM      *vmmtest.Fake
	Disk     *disktest.Fake
	Network  *networktest.Fake
	Pagers   *Pagers
	Guest    *Guest
	// Neighbours is sandbox.Config's.
	Neighbours string

	templates templates
	mu        sync.Mutex
	boot      string
}

// NewHost returns a host with one template, "base", of one CPU and 256 MiB.
func NewHost(t testing.TB) *Host {
	t.Helper()
	state, images := t.TempDir(), templates{t.TempDir()}
	base, err := images.Get("base")
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range base.Blobs() {
		if err := os.WriteFile(images.Path(blob.Digest), make([]byte, blob.Size), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	h := &Host{StateDir: state, Machines: vmmtest.NewHost(), Disk: &disktest.Fake{Dir: state}, Network: &networktest.Fake{Slots: 200},
		Pagers: &Pagers{dir: state, running: map[string]*Pager{}}, Guest: &Guest{}, templates: images, boot: id.New()}
	h.VMM = &vmmtest.Fake{Host: h.Machines}
	return h
}

// Manager returns the manager of a process of its own on the host.
func (h *Host) Manager(t testing.TB) *sandbox.Manager {
	t.Helper()
	m, err := sandbox.NewManager(sandbox.Config{StateDir: h.StateDir, VMM: h.VMM, Disk: h.Disk, Network: h.Network, Pagers: h.Pagers,
		Guest: h.Guest, Templates: h.templates, UIDBase: 5000, Slots: 200, StartTimeout: time.Minute, Neighbours: h.Neighbours,
		Host: func(context.Context) (manifest.Host, error) {
			return manifest.Host{Firecracker: "1.0.0", SnapshotFormat: "1", CPU: manifest.CPU{Vendor: "Test", Family: 1}, KernelRelease: "6.1"}, nil
		},
		Boot: func() (string, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.boot, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Reboot ends everything that runs.
func (h *Host) Reboot() {
	h.mu.Lock()
	h.boot = id.New()
	h.mu.Unlock()
	ids, _ := h.VMM.List(context.Background())
	for _, one := range ids {
		h.Machines.End(one, vmm.Exit{Reason: vmm.ExitUnknown, Detail: "the power went"})
	}
	h.Pagers.dieAll()
}

// templates are plain files. The one that there is, is gone when one that says so is there.
type templates struct{ dir string }

const gone = "gone"

// Get implements sandbox.Templates.
func (f templates) Get(name string) (template.Template, error) {
	if _, err := os.Stat(f.Path(gone)); err == nil || name != "base" {
		return template.Template{}, fmt.Errorf("template %q: %w", name, errs.ErrNotFound)
	}
	blob := func(role string) template.Blob {
		sum := sha256.Sum256([]byte(role))
		return template.Blob{Digest: hex.EncodeToString(sum[:]), Size: 8192}
	}
	return template.Template{Name: name, ID: "tp-base", Rootfs: blob("rootfs"), Kernel: blob("kernel"), Initramfs: blob("initramfs"),
		Modules: blob("modules"), VCPUs: 1, MemoryMiB: 256}, nil
}

// List implements sandbox.Templates.
func (f templates) List() ([]string, error) { return []string{"base"}, nil }

// Own implements sandbox.Templates.
func (f templates) Own(name string) (template.Template, []template.Blob, error) {
	t, err := f.Get(name)
	return t, slices.Collect(maps.Values(t.Blobs())), err
}

// Delete implements sandbox.Templates.
func (f templates) Delete(_ context.Context, _ string, own []template.Blob) error {
	for _, b := range own {
		if err := os.Remove(f.Path(b.Digest)); err != nil {
			return err
		}
	}
	return os.WriteFile(f.Path(gone), nil, 0o600)
}

// Path implements sandbox.Templates.
func (f templates) Path(digest string) string { return filepath.Join(f.dir, digest) }

// Guest is an envd that does as its hooks say; nil is well.
type Guest struct {
	OnReady, OnQuiesce, OnAwake func(ctx context.Context) error
}

func call(ctx context.Context, hook func(context.Context) error) error {
	if hook == nil {
		return ctx.Err()
	}
	return hook(ctx)
}

// Ready implements sandbox.Guest.
func (g *Guest) Ready(ctx context.Context, _ sandbox.DialFunc, _ string) error {
	return call(ctx, g.OnReady)
}

// Quiesce implements sandbox.Guest.
func (g *Guest) Quiesce(ctx context.Context, _ sandbox.DialFunc, _ string) error {
	return call(ctx, g.OnQuiesce)
}

// Awake implements sandbox.Guest.
func (g *Guest) Awake(ctx context.Context, _ sandbox.DialFunc, _ string) ([]vmm.Step, error) {
	return []vmm.Step{{Name: "reseed"}}, call(ctx, g.OnAwake)
}
