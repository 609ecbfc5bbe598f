package vmmtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/vmm"
)

// Host is a host in memory: what outlives a driver. Its drivers see each other's machines as those of several processes on
// one host do.
type Host struct {
	mu       sync.Mutex
	boot     string
	machines map[string]*fakeProcess
	lastPID  int
}

// NewHost returns a host without machines.
func NewHost() *Host {
	return &Host{boot: id.New(), machines: map[string]*fakeProcess{}, lastPID: 1000}
}

// fakeProcess is a machine as the host has it.
type fakeProcess struct {
	handle   vmm.Handle
	cfg      vmm.Config
	metadata map[string]any
	paused   bool
	done     chan struct{}
	exit     vmm.Exit
}

// Fake is a vmm.Driver in memory. Its hooks make failures on demand; each may be nil. Set them before the driver is used.
type Fake struct {
	Host *Host
	// OnStart is called before a start makes anything. Its error is the start's.
	OnStart func(ctx context.Context, cfg vmm.Config) error
	// OnStarted is called with each machine that runs. Its error fails the start, which then removes the machine.
	OnStarted func(ctx context.Context, m vmm.Machine) error
	// OnPatch is called before metadata is changed, OnRemove before anything is removed. Their errors are the call's.
	OnPatch  func(ctx context.Context, machine string, doc map[string]any) error
	OnRemove func(ctx context.Context, machine string) error
	// OnSnapshot is called before anything is written, OnPause before a machine stands still and OnResume before one goes on. Their
	// errors are the call's.
	OnSnapshot func(ctx context.Context, machine string, s vmm.Snapshot) error
	OnPause    func(ctx context.Context, machine string) error
	OnResume   func(ctx context.Context, machine string) error
	// Page says which page of its memory file the next snapshot writes; nil is the first.
	Page func() int64
	// Print is what Fingerprint returns; its zero value stands for a version of the fake.
	Print vmm.Fingerprint
}

// Fingerprint returns Print.
func (f *Fake) Fingerprint(context.Context) (vmm.Fingerprint, error) {
	if f.Print == (vmm.Fingerprint{}) {
		return vmm.Fingerprint{VMM: "fake", Version: "1.0.0", SnapshotFormat: "1"}, nil
	}
	return f.Print, nil
}

// Start makes a running machine.
func (f *Fake) Start(ctx context.Context, cfg vmm.Config) (vmm.Machine, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if f.OnStart != nil {
		if err := f.OnStart(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if err := filesThere(cfg); err != nil {
		return nil, err
	}
	p, err := f.Host.add(cfg)
	if err != nil {
		return nil, err
	}
	m := &fakeMachine{f: f, p: p, timings: []vmm.Step{{Name: "vmm.fake", Took: time.Millisecond}}}
	if f.OnStarted != nil {
		if err := f.OnStarted(ctx, m); err != nil {
			return nil, errors.Join(err, f.Remove(context.WithoutCancel(ctx), cfg.ID))
		}
	}
	return m, nil
}

// filesThere refuses a configuration whose files are missing.
func filesThere(cfg vmm.Config) error {
	paths := []string{cfg.Kernel, cfg.Initramfs}
	if cfg.From != nil {
		paths = []string{cfg.From.State, cfg.From.Memory + cfg.From.Pager}
	}
	for _, d := range cfg.Drives {
		paths = append(paths, d.Path)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", path, errs.ErrNotFound)
		}
	}
	return nil
}

// Recover returns the machine of a handle.
func (f *Fake) Recover(_ context.Context, h vmm.Handle) (vmm.Machine, error) {
	if h.Version != vmm.HandleVersion {
		return nil, fmt.Errorf("handle of version %d: %w", h.Version, errs.ErrInvalid)
	}
	f.Host.mu.Lock()
	defer f.Host.mu.Unlock()
	p := f.Host.machines[h.ID]
	if p == nil || p.handle != h || p.ended() {
		return nil, fmt.Errorf("machine %s: %w", h.ID, errs.ErrNotFound)
	}
	return &fakeMachine{f: f, p: p}, nil
}

// Remove ends the machine and forgets it.
func (f *Fake) Remove(ctx context.Context, machine string) error {
	if _, err := id.Parse(machine); err != nil {
		return err
	}
	if f.OnRemove != nil {
		if err := f.OnRemove(ctx, machine); err != nil {
			return err
		}
	}
	f.Host.End(machine, vmm.Exit{Reason: vmm.ExitKilled, Code: -1, Signal: 9, Detail: "it was killed on request"})
	f.Host.mu.Lock()
	defer f.Host.mu.Unlock()
	delete(f.Host.machines, machine)
	return nil
}

// List returns the ids of the host's machines, sorted.
func (f *Fake) List(context.Context) ([]string, error) {
	f.Host.mu.Lock()
	defer f.Host.mu.Unlock()
	return slices.Sorted(maps.Keys(f.Host.machines)), nil
}

// Usage implements vmm.Meter: a machine of n MiB has used n milliseconds of CPU time, and n KiB of its memory.
func (f *Fake) Usage(_ context.Context, machine string) (vmm.Usage, error) {
	f.Host.mu.Lock()
	defer f.Host.mu.Unlock()
	p := f.Host.machines[machine]
	if p == nil {
		return vmm.Usage{}, fmt.Errorf("machine %s: %w", machine, errs.ErrNotFound)
	}
	n := int64(p.cfg.MemoryMiB)
	return vmm.Usage{CPU: time.Duration(n) * time.Millisecond, MemoryBytes: n << 10, MemoryMaxBytes: n << 20}, nil
}

// add makes a machine.
func (h *Host) add(cfg vmm.Config) (*fakeProcess, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machines[cfg.ID] != nil {
		return nil, fmt.Errorf("machine %s: %w", cfg.ID, errs.ErrAlreadyExists)
	}
	h.lastPID++
	p := &fakeProcess{cfg: cfg, metadata: maps.Clone(cfg.Metadata), done: make(chan struct{})}
	p.handle = vmm.Handle{Version: vmm.HandleVersion, ID: cfg.ID, PID: h.lastPID, StartTime: uint64(h.lastPID) * 100,
		BootID: h.boot, Driver: "fake 1.0.0"}
	h.machines[cfg.ID] = p
	return p, nil
}

// End ends a machine in the way that e says, with the time of now. A machine that has ended or is not there stays as it is.
func (h *Host) End(machine string, e vmm.Exit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.machines[machine]
	if p == nil || p.ended() {
		return
	}
	e.Time = time.Now().UTC()
	p.exit = e
	close(p.done)
}

// Config returns what a machine was started with, and its metadata as it is now. ok is false when it is not there.
func (h *Host) Config(machine string) (cfg vmm.Config, metadata map[string]any, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.machines[machine]
	if p == nil {
		return vmm.Config{}, nil, false
	}
	return p.cfg, maps.Clone(p.metadata), true
}

func (p *fakeProcess) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// fakeMachine is a driver's view of a machine.
type fakeMachine struct {
	f       *Fake
	p       *fakeProcess
	timings []vmm.Step
}

// Handle is what Recover needs.
func (m *fakeMachine) Handle() vmm.Handle { return m.p.handle }

// Done is closed when the machine has ended.
func (m *fakeMachine) Done() <-chan struct{} { return m.p.done }

// Exit says how it ended.
func (m *fakeMachine) Exit() vmm.Exit { return m.p.exit }

// Timings are the steps of the start.
func (m *fakeMachine) Timings() []vmm.Step { return m.timings }

// ConsoleTail returns the end of a log that names the machine, and no console.
func (m *fakeMachine) ConsoleTail(limit int) (vmmLog, console string) {
	log := "the log of " + m.Handle().ID
	return log[max(0, len(log)-limit):], ""
}

// Close has nothing to give up.
func (m *fakeMachine) Close() error { return nil }

// Kill ends the machine.
func (m *fakeMachine) Kill(context.Context) error {
	m.f.Host.End(m.p.handle.ID, vmm.Exit{Reason: vmm.ExitKilled, Code: -1, Signal: 9, Detail: "it was killed on request"})
	return nil
}

// PatchMetadata merges doc into the top level of the metadata.
func (m *fakeMachine) PatchMetadata(ctx context.Context, doc map[string]any) error {
	if m.f.OnPatch != nil {
		if err := m.f.OnPatch(ctx, m.p.handle.ID, doc); err != nil {
			return err
		}
	}
	m.f.Host.mu.Lock()
	defer m.f.Host.mu.Unlock()
	if m.p.ended() {
		return fmt.Errorf("machine %s has ended: %w", m.p.handle.ID, errs.ErrUnavailable)
	}
	if m.p.metadata == nil {
		m.p.metadata = map[string]any{}
	}
	for key, value := range doc {
		if value == nil {
			delete(m.p.metadata, key)
		} else {
			m.p.metadata[key] = value
		}
	}
	return nil
}

// Pause lets the machine stand still.
func (m *fakeMachine) Pause(ctx context.Context) error {
	return m.setPaused(ctx, true, m.f.OnPause)
}

// Resume lets it go on.
func (m *fakeMachine) Resume(ctx context.Context) error {
	return m.setPaused(ctx, false, m.f.OnResume)
}

func (m *fakeMachine) setPaused(ctx context.Context, paused bool, hook func(context.Context, string) error) error {
	if hook != nil {
		if err := hook(ctx, m.p.handle.ID); err != nil {
			return err
		}
	}
	m.f.Host.mu.Lock()
	defer m.f.Host.mu.Unlock()
	if m.p.ended() {
		return fmt.Errorf("machine %s has ended: %w", m.p.handle.ID, errs.ErrUnavailable)
	}
	m.p.paused = paused
	return nil
}

// pageBytes is what the fake's memory files consist of.
const pageBytes = 4096

// Snapshot writes a state file, and a memory file of which one page says whose it is; the rest is a hole.
func (m *fakeMachine) Snapshot(ctx context.Context, s vmm.Snapshot) (err error) {
	if m.f.OnSnapshot != nil {
		if err := m.f.OnSnapshot(ctx, m.p.handle.ID, s); err != nil {
			return err
		}
	}
	m.f.Host.mu.Lock()
	defer m.f.Host.mu.Unlock()
	switch {
	case m.p.ended():
		return fmt.Errorf("machine %s has ended: %w", m.p.handle.ID, errs.ErrUnavailable)
	case !m.p.paused:
		return fmt.Errorf("machine %s is not paused: %w", m.p.handle.ID, errs.ErrFailedPrecondition)
	case s.Diff && !m.p.cfg.TrackDirty:
		return fmt.Errorf("machine %s does not track its pages: %w", m.p.handle.ID, errs.ErrFailedPrecondition)
	}
	page, at := make([]byte, pageBytes), int64(0)
	copy(page, m.p.handle.ID)
	if m.f.Page != nil {
		at = m.f.Page() * pageBytes
	}
	if err := writeNew(s.State, page, 0, pageBytes); err != nil {
		return err
	}
	if err := writeNew(s.Memory, page, at, int64(m.p.cfg.MemoryMiB)<<20); err != nil {
		return errors.Join(err, os.Remove(s.State))
	}
	return nil
}

// writeNew makes a file that is not there yet.
func writeNew(path string, data []byte, at, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", path, errs.ErrAlreadyExists)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Truncate(size), f.Close())
}
