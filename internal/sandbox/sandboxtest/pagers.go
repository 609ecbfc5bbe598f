package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/sandbox"
)

// Pagers are pagers that do nothing, with sockets that are files.
type Pagers struct {
	dir     string
	mu      sync.Mutex
	running map[string]*Pager
}

// Pager is one of them.
type Pager struct {
	dir   string
	words string
	left  bool
	once  sync.Once
	done  chan struct{}
}

// Start implements sandbox.Pagers.
func (f *Pagers) Start(_ context.Context, spec process.Spec) (sandbox.Pager, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[spec.ID] != nil {
		return nil, fmt.Errorf("pager of %s: %w", spec.ID, errs.ErrAlreadyExists)
	}
	p := &Pager{dir: filepath.Join(f.dir, "sandboxes", spec.ID, "pager"), done: make(chan struct{})}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{"socket", "set"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(spec.Build), 0o600); err != nil {
			return nil, err
		}
	}
	f.running[spec.ID] = p
	return p, nil
}

// Recover implements sandbox.Pagers.
func (f *Pagers) Recover(_ context.Context, id string, _ process.Handle) (sandbox.Pager, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.running[id]; p != nil && (!p.ended() || p.left) {
		return p, nil
	}
	return nil, fmt.Errorf("pager of %s: %w", id, errs.ErrNotFound)
}

// Remove implements sandbox.Pagers.
func (f *Pagers) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.running[id]
	if p == nil {
		return nil
	}
	p.end("killed")
	delete(f.running, id)
	return os.RemoveAll(p.dir)
}

// Usage implements sandbox.PagerMeter: a pager has answered three faults.
func (f *Pagers) Usage(_ context.Context, id string) (process.Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[id] == nil {
		return process.Usage{}, fmt.Errorf("pager of %s: %w", id, errs.ErrNotFound)
	}
	return process.Usage{CPU: time.Millisecond, MemoryBytes: 4096, Stats: &pager.Stats{Faults: 3}}, nil
}

// List implements sandbox.Pagers.
func (f *Pagers) List(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.running)), nil
}

// Die ends a sandbox's pager by itself.
func (f *Pagers) Die(id, words string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[id].end(words)
}

// Leave ends a sandbox's pager because all memory is in.
func (f *Pagers) Leave(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[id].left = true
	f.running[id].end("")
}

func (f *Pagers) dieAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.running {
		p.end("the power went")
	}
}

func (p *Pager) end(words string) { p.once.Do(func() { p.words = words; close(p.done) }) }

func (p *Pager) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Handle implements sandbox.Pager.
func (p *Pager) Handle() process.Handle { return process.Handle{PID: 1} }

// Socket implements sandbox.Pager.
func (p *Pager) Socket() string { return filepath.Join(p.dir, "socket") }

// Done implements sandbox.Pager.
func (p *Pager) Done() <-chan struct{} { return p.done }

// Left implements sandbox.Pager.
func (p *Pager) Left() bool { return p.left }

// LastWords implements sandbox.Pager.
func (p *Pager) LastWords() string { return p.words }

// Close implements sandbox.Pager.
func (p *Pager) Close() error { return nil }

// StopRecording implements sandbox.Pager.
func (p *Pager) StopRecording(context.Context) (string, error) {
	if p.ended() && !p.left {
		return "", errors.New("it has ended")
	}
	return filepath.Join(p.dir, "set"), nil
}
