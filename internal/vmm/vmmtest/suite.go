// Package vmmtest is what every vmm.Driver passes, and a driver in memory for tests that need a failure on demand.
package vmmtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
)

// Harness is what the suite needs to know of a driver.
type Harness struct {
	// New returns a driver. Each call returns one that knows no more than the host does: what a later process has.
	New func(t *testing.T) vmm.Driver
	// Config returns the configuration of a machine with a new id that boots and then idles. It has metadata and a console.
	Config func(t *testing.T) vmm.Config
	// Folder makes a folder for snapshots, on the file system of the driver's state folder. It is gone when the test ends.
	Folder func(t *testing.T) string
	// Ends are ways for a machine to end other than by Kill and Remove. The suite covers ExitGuest, ExitSignal and ExitOOM.
	Ends map[vmm.ExitReason]End
}

// End makes machines end in one way.
type End struct {
	// Prepare changes the configuration. It may be nil.
	Prepare func(cfg *vmm.Config)
	// Provoke is called with the running machine. It may be nil.
	Provoke func(t *testing.T, m vmm.Machine)
}

// patience bounds each wait of the suite. It is large because the host may be emulated.
const patience = 3 * time.Minute

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"StartKillRemove", testStartKillRemove},
		{"RemoveEndsTheMachine", testRemoveEnds},
		{"IDIsTaken", testTaken},
		{"RefusedConfig", testRefused},
		{"MissingFile", testMissing},
		{"EndedContext", testEndedContext},
		{"Metadata", testMetadata},
		{"Recover", testRecover},
		{"RecoverNeedsTheSameProcess", testRecoverOther},
		{"PauseAndResume", testPause},
		{"Freeze", testFreeze},
		{"FreezeRefusals", testFreezeRefusals},
		{"Ends", testEnds},
		{"RemoveNothing", testRemoveNothing},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h) })
	}
}

// begin starts a machine that is removed when the test ends, and checks that nothing of it is left then.
func begin(t *testing.T, h Harness, d vmm.Driver, cfg vmm.Config) vmm.Machine {
	t.Helper()
	m, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Remove(ctx, cfg.ID); err != nil {
			t.Errorf("Remove: %v", err)
		}
		_ = m.Close()
		nothingLeft(t, h, cfg.ID)
	})
	return m
}

func nothingLeft(t *testing.T, h Harness, machine string) {
	t.Helper()
	ids, err := h.New(t).List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(ids, machine) {
		t.Errorf("something of %s is left", machine)
	}
}

// ended waits for the machine's end and returns how it was.
func ended(t *testing.T, m vmm.Machine) vmm.Exit {
	t.Helper()
	select {
	case <-m.Done():
		return m.Exit()
	case <-time.After(patience):
		t.Fatal("the end of the machine was not noticed")
		return vmm.Exit{}
	}
}

func running(m vmm.Machine) bool {
	select {
	case <-m.Done():
		return false
	default:
		return true
	}
}

func wantReason(t *testing.T, e vmm.Exit, want vmm.ExitReason) {
	t.Helper()
	if e.Reason != want {
		t.Errorf("it ended for %q (%+v), want %q", e.Reason, e, want)
	}
	if e.Detail == "" || e.Time.IsZero() || e.Reason != vmm.ExitGuest && e.Code == 0 {
		t.Errorf("its end says too little: %+v", e)
	}
}

func testStartKillRemove(t *testing.T, h Harness) {
	d, cfg := h.New(t), h.Config(t)
	m := begin(t, h, d, cfg)
	got := m.Handle()
	if got.Version != vmm.HandleVersion || got.ID != cfg.ID || got.PID <= 1 || got.StartTime == 0 || got.BootID == "" || got.Driver == "" {
		t.Errorf("the handle %+v lacks something", got)
	}
	if len(m.Timings()) == 0 {
		t.Error("the start has no steps")
	}
	if ids, err := h.New(t).List(t.Context()); err != nil || !slices.Contains(ids, cfg.ID) {
		t.Errorf("List = %v, %v; want %s in it", ids, err, cfg.ID)
	}
	if !running(m) {
		t.Fatalf("the machine does not run: %+v", m.Exit())
	}
	for range 2 {
		if err := m.Kill(t.Context()); err != nil {
			t.Fatalf("Kill: %v", err)
		}
	}
	if running(m) {
		t.Error("Kill returned before the end was known")
	}
	wantReason(t, ended(t, m), vmm.ExitKilled)
	for _, limit := range []int{0, 10, 1 << 20} {
		log, console := m.ConsoleTail(limit)
		if len(log) > limit || len(console) > limit {
			t.Errorf("ConsoleTail(%d) returned %d and %d bytes", limit, len(log), len(console))
		}
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}

func testRemoveEnds(t *testing.T, h Harness) {
	cfg := h.Config(t)
	m := begin(t, h, h.New(t), cfg)
	if err := h.New(t).Remove(t.Context(), cfg.ID); err != nil {
		t.Fatalf("Remove by another driver: %v", err)
	}
	wantReason(t, ended(t, m), vmm.ExitKilled)
	nothingLeft(t, h, cfg.ID)
}

func testTaken(t *testing.T, h Harness) {
	d, cfg := h.New(t), h.Config(t)
	m := begin(t, h, d, cfg)
	if _, err := h.New(t).Start(t.Context(), cfg); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("a second Start of the id: %v, want ErrAlreadyExists", err)
	}
	if !running(m) {
		t.Error("the second Start ended the first machine")
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); err != nil {
		t.Errorf("the second Start hurt the first machine: %v", err)
	}
}

func testRefused(t *testing.T, h Harness) {
	d := h.New(t)
	for name, change := range map[string]func(*vmm.Config){
		"no id":           func(c *vmm.Config) { c.ID = "" },
		"id is a path":    func(c *vmm.Config) { c.ID = "../../etc" },
		"no cpu":          func(c *vmm.Config) { c.VCPUs = 0 },
		"too many cpus":   func(c *vmm.Config) { c.VCPUs = 33 },
		"little memory":   func(c *vmm.Config) { c.MemoryMiB = vmm.MinMemoryMiB - 1 },
		"no kernel":       func(c *vmm.Config) { c.Kernel = "" },
		"no initramfs":    func(c *vmm.Config) { c.Initramfs = "" },
		"long boot args":  func(c *vmm.Config) { c.BootArgs = string(make([]byte, 1<<16)) },
		"two lines":       func(c *vmm.Config) { c.BootArgs = "quiet\nroot=/dev/vdb" },
		"drive is a path": func(c *vmm.Config) { c.Drives = []vmm.Drive{{ID: "../x", Path: "/dev/null"}} },
		"same drive":      func(c *vmm.Config) { c.Drives = []vmm.Drive{{ID: "x", Path: "/a"}, {ID: "x", Path: "/b"}} },
		"root":            func(c *vmm.Config) { c.Jail.UID = 0 },
		"root's group":    func(c *vmm.Config) { c.Jail.GID = 0 },
		"no memory limit": func(c *vmm.Config) { c.Jail.Limits.MemoryMaxBytes = 0 },
		"no pids limit":   func(c *vmm.Config) { c.Jail.Limits.PIDsMax = 0 },
		"no netns":        func(c *vmm.Config) { c.Jail.NetNS = "" },
		"no device":       func(c *vmm.Config) { c.NIC = &vmm.NIC{MAC: "02:00:00:00:00:01"} },
		"no address":      func(c *vmm.Config) { c.NIC = &vmm.NIC{TAP: "tap0", MAC: "x"} },
		"metadata, no network": func(c *vmm.Config) {
			c.NIC, c.Metadata = nil, map[string]any{"a": "b"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := h.Config(t)
			kept := cfg.ID
			change(&cfg)
			if _, err := d.Start(t.Context(), cfg); !errors.Is(err, errs.ErrInvalid) {
				t.Errorf("Start = %v, want ErrInvalid", err)
			}
			nothingLeft(t, h, kept)
		})
	}
}

func testMissing(t *testing.T, h Harness) {
	for name, change := range map[string]func(*vmm.Config){
		"kernel":    func(c *vmm.Config) { c.Kernel = "/nonexistent/kernel" },
		"initramfs": func(c *vmm.Config) { c.Initramfs = "/nonexistent/initramfs" },
		"drive":     func(c *vmm.Config) { c.Drives = append(c.Drives, vmm.Drive{ID: "missing", Path: "/nonexistent/disk"}) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := h.Config(t)
			change(&cfg)
			if _, err := h.New(t).Start(t.Context(), cfg); !errors.Is(err, errs.ErrNotFound) {
				t.Errorf("Start = %v, want ErrNotFound", err)
			}
			nothingLeft(t, h, cfg.ID)
		})
	}
}

func testEndedContext(t *testing.T, h Harness) {
	cfg := h.Config(t)
	over := errors.New("the caller hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if _, err := h.New(t).Start(ctx, cfg); !errors.Is(err, over) {
		t.Errorf("Start = %v, want the context's cause", err)
	}
	nothingLeft(t, h, cfg.ID)
}

func testMetadata(t *testing.T, h Harness) {
	d, cfg := h.New(t), h.Config(t)
	m := begin(t, h, d, cfg)
	if err := m.PatchMetadata(t.Context(), map[string]any{"SECRET": nil, "NEW": map[string]any{"x": "y"}}); err != nil {
		t.Errorf("PatchMetadata: %v", err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("PatchMetadata of an ended machine: %v, want ErrUnavailable", err)
	}
}

func testRecover(t *testing.T, h Harness) {
	cfg := h.Config(t)
	first := begin(t, h, h.New(t), cfg)
	later := h.New(t)
	m, err := later.Recover(t.Context(), first.Handle())
	if err != nil {
		t.Fatalf("Recover: %v", err)
	}
	defer m.Close()
	if m.Handle() != first.Handle() || m.Timings() != nil || !running(m) {
		t.Errorf("recovered %+v, want %+v, running and without timings", m.Handle(), first.Handle())
	}
	if err := m.PatchMetadata(t.Context(), map[string]any{"a": "b"}); err != nil {
		t.Errorf("PatchMetadata of a recovered machine: %v", err)
	}
	again, err := later.Recover(t.Context(), first.Handle())
	if err != nil {
		t.Fatalf("a second Recover: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if !running(m) || !running(first) {
		t.Error("Close ended the machine")
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatalf("Kill of a recovered machine: %v", err)
	}
	wantReason(t, ended(t, m), vmm.ExitKilled)
	wantReason(t, ended(t, first), vmm.ExitKilled)
	if _, err := h.New(t).Recover(t.Context(), first.Handle()); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("Recover of an ended machine: %v, want ErrNotFound", err)
	}
}

func testRecoverOther(t *testing.T, h Harness) {
	d, cfg := h.New(t), h.Config(t)
	m := begin(t, h, d, cfg)
	for name, change := range map[string]func(*vmm.Handle){
		"another start time": func(h *vmm.Handle) { h.StartTime++ },
		"another boot":       func(h *vmm.Handle) { h.BootID = "00000000-0000-0000-0000-000000000000" },
		"another process":    func(h *vmm.Handle) { h.PID = 1 },
		"another machine":    func(h *vmm.Handle) { h.ID = id.New() },
		"no process":         func(h *vmm.Handle) { h.PID = 1 << 22 },
	} {
		handle := m.Handle()
		change(&handle)
		if _, err := d.Recover(t.Context(), handle); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	handle := m.Handle()
	handle.Version++
	if _, err := d.Recover(t.Context(), handle); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("another version: %v, want ErrInvalid", err)
	}
	if !running(m) {
		t.Error("a refused Recover ended the machine")
	}
}

func testEnds(t *testing.T, h Harness) {
	for _, reason := range []vmm.ExitReason{vmm.ExitGuest, vmm.ExitSignal, vmm.ExitOOM} {
		end, ok := h.Ends[reason]
		if !ok {
			t.Fatalf("the harness has no way to end a machine for %q", reason)
		}
		t.Run(string(reason), func(t *testing.T) {
			cfg := h.Config(t)
			if end.Prepare != nil {
				end.Prepare(&cfg)
			}
			m := begin(t, h, h.New(t), cfg)
			if end.Provoke != nil {
				end.Provoke(t, m)
			}
			e := ended(t, m)
			wantReason(t, e, reason)
			if reason == vmm.ExitSignal && e.Signal != 9 {
				t.Errorf("signal %d, want 9", e.Signal)
			}
			if err := m.Kill(t.Context()); err != nil {
				t.Errorf("Kill of an ended machine: %v", err)
			}
		})
	}
}

func testRemoveNothing(t *testing.T, h Harness) {
	d := h.New(t)
	if err := d.Remove(t.Context(), id.New()); err != nil {
		t.Errorf("Remove of an id that has nothing: %v", err)
	}
	if err := d.Remove(t.Context(), "../.."); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("Remove of no id: %v, want ErrInvalid", err)
	}
}
