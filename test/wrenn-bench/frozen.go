package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/assembly"
	"wrenn.dev/wrenn/internal/cleanup"
	"wrenn.dev/wrenn/internal/guest/client"
	"wrenn.dev/wrenn/internal/network"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/snapshot"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/sparse"
	"wrenn.dev/wrenn/internal/vmm"
)

// The limits of what freezing and starting again may cost beside the bare mechanism.
const (
	resumeLimit = 1.3  // beside Firecracker loading the same memory from a file
	pauseLimit  = 1.15 // beside Firecracker's own pause and snapshot
	writeLimit  = 1.1  // bytes written beside the bytes of the pages that changed
	crowdLimit  = 2.5  // the slowest of many starts at once beside the middle one
	memoryLimit = 4096 // KiB that a pager has for itself
)

// dirtyMiB is what the guest changes between two freezes.
const dirtyMiB = 16

// snapshotName is the snapshot that all starts of a bench begin from.
const snapshotName = "bench"

// frozen is the state of the benches of freezing: a snapshot that others start from.
type frozen struct {
	parts *assembly.Parts
	spec  sandbox.Spec
}

// freezeOne makes the snapshot. The returned function removes it.
func freezeOne(ctx context.Context, parts *assembly.Parts) (f *frozen, remove func(context.Context) error, err error) {
	sb, err := parts.Manager.Create(ctx, sandbox.Spec{Template: "base", Policy: network.Policy{Internet: true}}, nil)
	if err != nil {
		return nil, nil, err
	}
	if _, err := sb.Snapshot(ctx, snapshotName); err != nil {
		return nil, nil, errors.Join(err, end(ctx, sb))
	}
	f = &frozen{parts: parts, spec: sandbox.Spec{Snapshot: snapshotName, Policy: network.Policy{Internet: true}}}
	return f, func(ctx context.Context) error { return parts.Manager.DeleteSnapshot(ctx, snapshotName) }, end(ctx, sb)
}

// end removes a sandbox although the bench was interrupted.
func end(ctx context.Context, sb *sandbox.Sandbox) error {
	return cleanup.Do(ctx, func(ctx context.Context) error { return sb.Destroy(ctx, "measured") })
}

// start begins a sandbox from the snapshot and returns what it took to the first output of a command.
func (f *frozen) start(ctx context.Context) (sb *sandbox.Sandbox, took time.Duration, err error) {
	began := time.Now()
	if sb, err = f.parts.Manager.Create(ctx, f.spec, nil); err != nil {
		return nil, 0, err
	}
	first, err := firstOutput(ctx, client.DialFunc(sb.Dial), sb.Token)
	if err != nil {
		return nil, 0, errors.Join(err, end(ctx, sb))
	}
	return sb, first.Sub(began), nil
}

// startToOutput measures from nothing to a command's first output: from a frozen sandbox, beside Firecracker alone that maps the
// same memory from one file which is in the page cache, and whose disk and network are there already. It also compares starts with
// and without the recorded working set.
func (f *frozen) startToOutput(ctx context.Context, runs int) ([]figure, error) {
	var ours, bare, without []time.Duration
	var steps []vmm.Step
	for i := range runs {
		b, err := f.loadBare(ctx)
		if err != nil {
			return nil, fmt.Errorf("bare Firecracker: %w", err)
		}
		o, did, err := f.startOnce(ctx)
		if err != nil {
			return nil, err
		}
		w, err := f.startWithoutSet(ctx)
		if err != nil {
			return nil, err
		}
		fmt.Printf("start %d of %d: sandbox %.2f s, without its working set %.2f s, bare Firecracker %.2f s\n", i+1, runs, o.Seconds(), w.Seconds(), b.Seconds())
		ours, bare, without, steps = append(ours, o), append(bare, b), append(without, w), append(steps, did...)
	}
	if err := printCosts(os.Stdout, "a start of a frozen sandbox", steps); err != nil {
		return nil, err
	}
	return []figure{
		compare("frozen to first output", resumeLimit, ours, bare).overlapping(),
		compare("frozen to first output, with working set / without", 0, ours, without),
	}, nil
}

func (f *frozen) startOnce(ctx context.Context) (took time.Duration, steps []vmm.Step, err error) {
	sb, took, err := f.start(ctx)
	if err != nil {
		return 0, nil, fmt.Errorf("sandbox: %w", err)
	}
	return took, sb.Steps, end(ctx, sb)
}

// startWithoutSet hides the working set for one start.
func (f *frozen) startWithoutSet(ctx context.Context) (took time.Duration, err error) {
	build, err := f.named()
	if err != nil {
		return 0, err
	}
	set := filepath.Join(f.parts.StateDir, "working-sets", build)
	hidden := set + ".hidden"
	if err := os.Rename(set, hidden); err != nil {
		return 0, fmt.Errorf("no working set was recorded: %w", err)
	}
	took, _, err = f.startOnce(ctx)
	_ = os.Remove(set) // of this start
	return took, errors.Join(err, os.Rename(hidden, set))
}

// named is the build of the snapshot.
func (f *frozen) named() (string, error) {
	names, err := f.parts.Manager.Snapshots()
	return names[snapshotName], err
}

// open returns a build.
func (f *frozen) open(ctx context.Context, build string) (*snapshot.Build, error) {
	store, err := snapshot.New(filepath.Join(f.parts.StateDir, "builds"))
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, build)
}

// pause measures a pause beside Firecracker's own pause and snapshot of a machine that began and changed in the same way, and what a
// pause writes beside what changed.
func (f *frozen) pause(ctx context.Context, runs int) ([]figure, error) {
	var ours, bare []time.Duration
	var written []float64
	var steps []vmm.Step
	for i := range runs {
		b, err := f.changed(ctx, func(sb *sandbox.Sandbox) (time.Duration, error) {
			took, err := f.pauseBare(ctx, sb)
			return took, errors.Join(err, end(ctx, sb))
		})
		if err != nil {
			return nil, fmt.Errorf("bare Firecracker: %w", err)
		}
		share := 0.0
		o, err := f.changed(ctx, func(sb *sandbox.Sandbox) (took time.Duration, err error) {
			var did []vmm.Step
			took, did, share, err = f.pauseOurs(ctx, sb)
			steps = append(steps, did...)
			return took, errors.Join(err, cleanup.Do(ctx, func(ctx context.Context) error { return f.parts.Manager.Destroy(ctx, sb.ID, "measured") }))
		})
		if err != nil {
			return nil, err
		}
		fmt.Printf("pause %d of %d: sandbox %.3f s, bare Firecracker %.3f s; written %.3f of what changed\n", i+1, runs, o.Seconds(), b.Seconds(), share)
		ours, bare, written = append(ours, o), append(bare, b), append(written, share)
	}
	if err := printCosts(os.Stdout, "a pause", steps); err != nil {
		return nil, err
	}
	return []figure{
		compare("pause", pauseLimit, ours, bare).overlapping(),
		{Name: "bytes written by a pause / of the pages that changed", Ours: median(written), Theirs: 1, Unit: "x", Ratio: median(written),
			Limit: writeLimit, Better: "lower", Runs: runs, Spread: spread(written)},
	}, nil
}

// changed starts a sandbox, lets its guest write to dirtyMiB of its memory, and hands it to fn, which ends it.
func (f *frozen) changed(ctx context.Context, fn func(*sandbox.Sandbox) (time.Duration, error)) (time.Duration, error) {
	sb, _, err := f.start(ctx)
	if err != nil {
		return 0, err
	}
	script := fmt.Sprintf("import os; b = bytearray(os.urandom(4096) * (%d << 8)); print(len(b))", dirtyMiB)
	r, err := client.New(client.DialFunc(sb.Dial), sb.Token).Run(ctx, client.Command{Cmd: "python3", Args: []string{"-c", script}})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("the command ended with %d", r.ExitCode)
	}
	if err != nil {
		return 0, errors.Join(err, end(ctx, sb))
	}
	return fn(sb)
}

// pauseOurs pauses a sandbox.
func (f *frozen) pauseOurs(ctx context.Context, sb *sandbox.Sandbox) (took time.Duration, steps []vmm.Step, share float64, err error) {
	began := time.Now()
	steps, err = sb.Pause(ctx, "measured")
	took = time.Since(began)
	if err != nil {
		return 0, nil, 0, errors.Join(err, end(ctx, sb))
	}
	share, err = f.writtenShare(ctx, sb.Build())
	return took, steps, share, err
}

// writtenShare is what a build takes of the disk, without the disk's own part, beside the pages that it is of.
func (f *frozen) writtenShare(ctx context.Context, build string) (float64, error) {
	b, err := f.open(ctx, build)
	if err != nil {
		return 0, err
	}
	written := int64(0)
	for _, name := range []string{manifest.Memory, manifest.MemoryMap, manifest.VMState, manifest.Name} {
		used, err := sparse.Used(b.Path(name))
		if err != nil {
			return 0, err
		}
		written += used
	}
	return float64(written) / float64(b.Map.Stats().Stored[build]*blockmap.PageSize), nil
}

// pauseBare has Firecracker alone do it.
func (f *frozen) pauseBare(ctx context.Context, sb *sandbox.Sandbox) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(f.parts.StateDir, "bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	if err := sb.Machine.Pause(ctx); err != nil {
		return 0, err
	}
	err = sb.Machine.Snapshot(ctx, vmm.Snapshot{State: filepath.Join(dir, "state"), Memory: filepath.Join(dir, "memory"), Diff: true})
	return time.Since(began), err
}

// crowd starts many at once and compares the slowest with the middle one.
func (f *frozen) crowd(ctx context.Context, count int) ([]figure, error) {
	times := make([]time.Duration, count)
	boxes := make([]*sandbox.Sandbox, count)
	g, gctx := errgroup.WithContext(ctx)
	for i := range count {
		g.Go(func() (err error) {
			boxes[i], times[i], err = f.start(gctx)
			return err
		})
	}
	err := g.Wait()
	for _, sb := range boxes {
		if sb != nil {
			err = errors.Join(err, end(ctx, sb))
		}
	}
	if err != nil {
		return nil, err
	}
	return []figure{slowest(fmt.Sprintf("%d starts at once, p95 / p50", count), times)}, nil
}

// slowest compares the slowest of what was done at once with the middle one.
func slowest(name string, times []time.Duration) figure {
	slices.Sort(times)
	count := len(times)
	p50, p95 := times[count/2], times[(count*95+99)/100-1]
	return figure{Name: name, Ours: p95.Seconds(), Theirs: p50.Seconds(), Unit: "s", Ratio: p95.Seconds() / p50.Seconds(), Limit: crowdLimit,
		Better: "lower", Runs: count}
}

// pagerSize measures what a pager at rest has of memory for itself.
func (f *frozen) pagerSize(ctx context.Context) ([]figure, error) {
	sb, _, err := f.start(ctx)
	if err != nil {
		return nil, err
	}
	own, err := pagerMemory(sb.ID)
	if err := errors.Join(err, end(ctx, sb)); err != nil {
		return nil, err
	}
	return []figure{{Name: "a pager's private memory / its limit", Ours: own, Theirs: memoryLimit, Unit: "KiB", Ratio: own / memoryLimit,
		Limit: 1, Better: "lower", Runs: 1}}, nil
}
