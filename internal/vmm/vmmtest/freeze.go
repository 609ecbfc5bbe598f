package vmmtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
)

// into is a snapshot's files in a folder.
func into(folder, name string, diff bool) vmm.Snapshot {
	return vmm.Snapshot{State: filepath.Join(folder, name+".state"), Memory: filepath.Join(folder, name+".memory"), Diff: diff}
}

// whole fails the test unless the files are there, of full length, ours and read-only.
func whole(t *testing.T, s vmm.Snapshot, cfg vmm.Config) {
	t.Helper()
	for path, size := range map[string]int64{s.State: 0, s.Memory: int64(cfg.MemoryMiB) << 20} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if size > 0 && info.Size() != size || info.Size() == 0 || info.Mode().Perm()&0o222 != 0 {
			t.Errorf("%s has %d bytes and mode %v", path, info.Size(), info.Mode())
		}
	}
}

func absent(t *testing.T, s vmm.Snapshot) {
	t.Helper()
	for _, path := range []string{s.State, s.Memory} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there, or %v", path, err)
		}
	}
}

func testPause(t *testing.T, h Harness) {
	d := h.New(t)
	m := begin(t, h, d, h.Config(t))
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"pause", func() error { return m.Pause(t.Context()) }}, {"pause again", func() error { return m.Pause(t.Context()) }},
		{"resume", func() error { return m.Resume(t.Context()) }}, {"resume again", func() error { return m.Resume(t.Context()) }},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	if !running(m) {
		t.Errorf("it ended: %+v", m.Exit())
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended(t, m)
	if err := m.Pause(t.Context()); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("pause of an ended machine: %v", err)
	}
}

// testFreeze takes a machine through two generations and begins others from both, one of them twice at once.
func testFreeze(t *testing.T, h Harness) {
	d, cfg, folder := h.New(t), h.Config(t), h.Folder(t)
	cfg.TrackDirty = true
	m := begin(t, h, d, cfg)
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	full, diff := into(folder, "full", false), into(folder, "diff", true)
	if err := m.Snapshot(t.Context(), full); err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	whole(t, full, cfg)
	if err := m.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Snapshot(t.Context(), diff); err != nil {
		t.Fatalf("Snapshot of what changed: %v", err)
	}
	whole(t, diff, cfg)
	if blocks(t, diff.Memory) > blocks(t, full.Memory) {
		t.Errorf("what changed takes %d blocks, all %d", blocks(t, diff.Memory), blocks(t, full.Memory))
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		clone := h.Config(t)
		clone.Kernel, clone.Initramfs, clone.BootArgs = "", "", ""
		clone.From, clone.TrackDirty = &vmm.Frozen{State: full.State, Memory: full.Memory}, true
		c := begin(t, h, d, clone)
		if !running(c) {
			t.Fatalf("the clone ended: %+v", c.Exit())
		}
		if len(c.Timings()) == 0 {
			t.Error("the start has no steps")
		}
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := into(folder, clone.ID, true)
		if err := c.Snapshot(t.Context(), again); err != nil {
			t.Errorf("snapshot of the clone: %v", err)
		}
		whole(t, again, clone)
	}
}

func testFreezeRefusals(t *testing.T, h Harness) {
	d, cfg, folder := h.New(t), h.Config(t), h.Folder(t)
	m := begin(t, h, d, cfg)
	s := into(folder, "s", false)
	if err := m.Snapshot(t.Context(), s); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("of a running machine: %v", err)
	}
	absent(t, s)
	if err := m.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Snapshot(t.Context(), into(folder, "d", true)); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("what changed, of a machine that keeps no account: %v", err)
	}
	absent(t, into(folder, "d", true))
	if err := os.WriteFile(s.Memory, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Snapshot(t.Context(), s); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("over a file: %v", err)
	}
	if data, err := os.ReadFile(s.Memory); err != nil || string(data) != "precious" {
		t.Errorf("the file is %q, %v", data, err)
	}
	if _, err := os.Lstat(s.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a snapshot is left: %v", err)
	}
	if err := m.Resume(t.Context()); err != nil || !running(m) {
		t.Errorf("the machine does not go on: %v", err)
	}
	for name, from := range map[string]*vmm.Frozen{
		"no memory": {State: s.Memory}, "two memories": {State: s.Memory, Memory: s.Memory, Pager: s.Memory}, "relative": {State: "state", Memory: s.Memory},
	} {
		bad := cfg
		bad.ID, bad.Kernel, bad.Initramfs, bad.BootArgs, bad.From = id.New(), "", "", "", from
		if _, err := d.Start(t.Context(), bad); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	missing := cfg
	missing.ID, missing.Kernel, missing.Initramfs, missing.BootArgs = id.New(), "", "", ""
	missing.From = &vmm.Frozen{State: filepath.Join(folder, "nope"), Memory: s.Memory}
	if _, err := d.Start(t.Context(), missing); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a missing state: %v", err)
	}
	nothingLeft(t, h, missing.ID)
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	n, err := allocated(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
