package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/pager"
	"wrenn.dev/wrenn/internal/pager/process"
	"wrenn.dev/wrenn/internal/vmm"
)

// fakeGuest is an envd that does as its hooks say; nil is well.
type fakeGuest struct {
	ready, quiesce, awake func(ctx context.Context) error

	mu      sync.Mutex
	calls   []string
	refuses bool // it was made quiet
}

func (g *fakeGuest) call(name string, hook func(context.Context) error, ctx context.Context, refuses bool) error {
	g.mu.Lock()
	g.calls = append(g.calls, name)
	g.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return err
		}
	}
	g.mu.Lock()
	g.refuses = refuses
	g.mu.Unlock()
	return nil
}

func (g *fakeGuest) Ready(ctx context.Context, _ DialFunc, _ string) error {
	return g.call("ready", g.ready, ctx, false)
}

func (g *fakeGuest) Quiesce(ctx context.Context, _ DialFunc, _ string) error {
	return g.call("quiesce", g.quiesce, ctx, true)
}

func (g *fakeGuest) Awake(ctx context.Context, _ DialFunc, _ string) ([]vmm.Step, error) {
	return []vmm.Step{{Name: "reseed"}}, g.call("awake", g.awake, ctx, false)
}

// fakePagers are pagers that do nothing, with sockets that are files.
type fakePagers struct {
	dir  string
	fail func(op, sandbox string) error

	mu      sync.Mutex
	running map[string]*fakePager
	last    process.Spec
	starts  int
}

type fakePager struct {
	dir   string
	words string
	left  bool
	once  sync.Once
	done  chan struct{}
}

func (f *fakePagers) ask(op, sandbox string) error {
	if f.fail == nil {
		return nil
	}
	return f.fail(op, sandbox)
}

func (f *fakePagers) Start(_ context.Context, spec process.Spec) (Pager, error) {
	if err := f.ask("Start", spec.ID); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running[spec.ID] != nil {
		return nil, fmt.Errorf("pager of %s: %w", spec.ID, errs.ErrAlreadyExists)
	}
	p := &fakePager{dir: filepath.Join(f.dir, "sandboxes", spec.ID, "pager"), done: make(chan struct{})}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(p.dir, "socket"), nil, 0o600); err != nil {
		return nil, err
	}
	f.starts++
	set := pager.WorkingSet{Memory: 1 << 28, Pages: []uint32{1, uint32(f.starts) + 1}} // one page in common, and one of this start
	if err := writeWorkingSet(filepath.Join(p.dir, "set"), filepath.Join(p.dir, "set.new"), set); err != nil {
		return nil, err
	}
	f.running[spec.ID], f.last = p, spec
	return p, nil
}

func (f *fakePagers) Recover(_ context.Context, sandbox string, _ process.Handle) (Pager, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.running[sandbox]; p != nil && (!p.ended() || p.left) {
		return p, nil
	}
	return nil, fmt.Errorf("pager of %s: %w", sandbox, errs.ErrNotFound)
}

func (f *fakePagers) Remove(_ context.Context, sandbox string) error {
	if err := f.ask("Remove", sandbox); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.running[sandbox]
	if p == nil {
		return nil
	}
	p.end("killed")
	delete(f.running, sandbox)
	return os.RemoveAll(p.dir)
}

func (f *fakePagers) List(context.Context) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.running)), nil
}

// die ends a sandbox's pager by itself.
func (f *fakePagers) die(sandbox, words string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[sandbox].end(words)
}

// leave ends a sandbox's pager because all memory is in.
func (f *fakePagers) leave(sandbox string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.running[sandbox]
	p.left = true
	p.end("")
}

func (p *fakePager) end(words string) {
	p.once.Do(func() { p.words = words; close(p.done) })
}

func (p *fakePager) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *fakePager) Handle() process.Handle { return process.Handle{PID: 1} }
func (p *fakePager) Socket() string         { return filepath.Join(p.dir, "socket") }
func (p *fakePager) Done() <-chan struct{}  { return p.done }
func (p *fakePager) Left() bool             { return p.left }
func (p *fakePager) LastWords() string      { return p.words }
func (p *fakePager) Close() error           { return nil }

func (p *fakePager) StopRecording(context.Context) (string, error) {
	if p.ended() && !p.left {
		return "", errors.New("it has ended")
	}
	return filepath.Join(p.dir, "set"), nil
}
