package vmmtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
)

// someConfig is a configuration with files that are there.
func someConfig(t *testing.T) vmm.Config {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"kernel", "initramfs"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	return vmm.Config{
		ID: id.New(), VCPUs: 1, MemoryMiB: 128, Kernel: filepath.Join(dir, "kernel"), Initramfs: filepath.Join(dir, "initramfs"),
		NIC: &vmm.NIC{TAP: "tap0", MAC: "02:77:72:65:6e:01"}, Metadata: map[string]any{"SECRET": "x"}, Console: true,
		Jail: vmm.Jail{UID: 1, GID: 1, NetNS: "/run/netns/x", Limits: vmm.Limits{MemoryMaxBytes: 1 << 30, PIDsMax: 10}},
	}
}

func TestFakePassesTheSuite(t *testing.T) {
	host := NewHost()
	ends := map[vmm.ExitReason]End{}
	for reason, exit := range map[vmm.ExitReason]vmm.Exit{
		vmm.ExitGuest:  {Code: 0, Detail: "the guest rebooted"},
		vmm.ExitSignal: {Code: -1, Signal: 9, Detail: "a signal"},
		vmm.ExitOOM:    {Code: -1, Signal: 9, Detail: "out of memory"},
	} {
		exit.Reason = reason
		ends[reason] = End{Provoke: func(_ *testing.T, m vmm.Machine) { host.End(m.Handle().ID, exit) }}
	}
	Run(t, Harness{
		Folder: func(t *testing.T) string { return t.TempDir() },
		New:    func(*testing.T) vmm.Driver { return &Fake{Host: host} },
		Config: someConfig,
		Ends:   ends,
	})
}

func TestFakeFailsOnDemand(t *testing.T) {
	broken := errors.New("broken")
	host := NewHost()
	cfg := someConfig(t)
	f := &Fake{Host: host, OnStart: func(context.Context, vmm.Config) error { return broken }}
	if _, err := f.Start(t.Context(), cfg); !errors.Is(err, broken) {
		t.Errorf("OnStart: %v", err)
	}
	f = &Fake{Host: host, OnStarted: func(context.Context, vmm.Machine) error { return broken }}
	if _, err := f.Start(t.Context(), cfg); !errors.Is(err, broken) {
		t.Errorf("OnStarted: %v", err)
	}
	if ids, _ := f.List(t.Context()); len(ids) != 0 {
		t.Errorf("a failed start left %v", ids)
	}
	f = &Fake{
		Host:     host,
		OnPatch:  func(context.Context, string, map[string]any) error { return broken },
		OnRemove: func(context.Context, string) error { return broken },
	}
	m, err := f.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"SECRET": nil}); !errors.Is(err, broken) {
		t.Errorf("OnPatch: %v", err)
	}
	if _, meta, ok := host.Config(cfg.ID); !ok || meta["SECRET"] != "x" {
		t.Errorf("a failed patch changed the metadata to %v", meta)
	}
	if err := f.Remove(t.Context(), cfg.ID); !errors.Is(err, broken) {
		t.Errorf("OnRemove: %v", err)
	}
	if ids, _ := f.List(t.Context()); len(ids) != 1 {
		t.Errorf("a failed Remove left %v", ids)
	}
}

func TestFakeMergesMetadata(t *testing.T) {
	host := NewHost()
	cfg := someConfig(t)
	m, err := (&Fake{Host: host}).Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"SECRET": nil, "NEW": "y"}); err != nil {
		t.Fatal(err)
	}
	got, meta, ok := host.Config(cfg.ID)
	if !ok || len(meta) != 1 || meta["NEW"] != "y" || got.ID != cfg.ID || cfg.Metadata["SECRET"] != "x" {
		t.Errorf("metadata %v, the caller's %v", meta, cfg.Metadata)
	}
	if _, _, ok := host.Config(id.New()); ok {
		t.Error("a machine that is not there has a configuration")
	}
}
