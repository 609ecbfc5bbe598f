package snapshot

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// chain is a build of three generations.
func chain(t *testing.T, s *Store) (*Build, *memory) {
	t.Helper()
	mem := &memory{0: 1, 1: 2, 2: 3, 9: 4}
	a := commit(t, s, "", mem, pagesOf(0, 1, 2, 9), ref)
	mem[1] = 0
	b := commit(t, s, a.ID, mem, pagesOf(1), ref)
	mem[2] = 5
	return commit(t, s, b.ID, mem, pagesOf(2), ref), mem
}

func TestCompactKeepsTheMachine(t *testing.T) {
	s := newStore(t)
	old, mem := chain(t, s)
	b, err := s.Compact(bg, old.ID, ref)
	if err != nil {
		t.Fatal(err)
	}
	checkMemory(t, s, b.ID, mem)
	checkMemory(t, s, old.ID, mem)
	if d := cmp.Diff([]string{b.ID}, b.Map.Builds()); d != "" {
		t.Error(d)
	}
	want := *old.Manifest
	want.Build, want.Needs, want.Files = b.ID, nil, b.Manifest.Files
	if d := cmp.Diff(&want, b.Manifest); d != "" {
		t.Error(d)
	}
	for _, name := range []string{manifest.VMState, manifest.Disk} {
		if d := cmp.Diff(old.Manifest.Files[name], b.Manifest.Files[name]); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if removed, err := s.GC(bg); err != nil || len(removed) != 3 {
		t.Error(removed, err)
	}
	checkMemory(t, s, b.ID, mem)
}

// TestCompactComesTooLate: the sandbox was paused again in the meantime. Its newer state stays.
func TestCompactComesTooLate(t *testing.T) {
	s := newStore(t)
	old, mem := chain(t, s)
	mem[3] = 8
	newer := commit(t, s, old.ID, mem, pagesOf(3), ref)
	if err := s.SetRef(bg, Ref{"snapshot", "x"}, old.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(bg, old.ID, ref); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if _, err := s.Compact(bg, old.ID, ref, Ref{"snapshot", "x"}); err != nil { // only the one that still fits is moved
		t.Error(err)
	}
	if got, err := s.GetRef(ref); err != nil || got != newer.ID {
		t.Error(got, err)
	}
	if got, err := s.GetRef(Ref{"snapshot", "x"}); err != nil || got == old.ID {
		t.Error(got, err)
	}
	checkMemory(t, s, newer.ID, mem)
	if left := rootNames(t, s); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestCompactEndsWithItsContext(t *testing.T) {
	s := newStore(t)
	old, _ := chain(t, s)
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := s.Compact(ctx, old.ID, ref); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := rootNames(t, s); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if _, err := s.Compact(bg, blockmap.NewBuildID()); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

func TestNeedsCompaction(t *testing.T) {
	stored := func(n int) map[string]int64 {
		m := map[string]int64{}
		for range n {
			m[blockmap.NewBuildID()] = 1
		}
		return m
	}
	for _, c := range []struct {
		stats blockmap.Stats
		want  bool
	}{
		{blockmap.Stats{Ranges: 100, Pages: 1 << 20, Stored: stored(16)}, false},
		{blockmap.Stats{Ranges: 100, Pages: 1 << 20, Stored: stored(17)}, true},
		{blockmap.Stats{Ranges: 4097, Pages: 1 << 20, Stored: stored(1)}, false},
		{blockmap.Stats{Ranges: 1 << 17, Pages: 1 << 20, Stored: stored(1)}, true},
		{blockmap.Stats{Ranges: 256, Pages: 256, Stored: stored(2)}, false}, // small, whatever it looks like
	} {
		if got := NeedsCompaction(c.stats); got != c.want {
			t.Errorf("%d ranges of %d pages in %d builds: %v", c.stats.Ranges, c.stats.Pages, len(c.stats.Stored), got)
		}
	}
}

// TestFullKeepsWhatIsEqual: of a full snapshot with a parent only what differs is kept.
func TestFullKeepsWhatIsEqual(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1, 1: 2, 2: 3}
	a := commit(t, s, "", &mem, pagesOf(0, 1, 2))
	mem[1], mem[2] = 0, 9
	g := stage(t, s, a.ID, &mem, nil, manifest.Full)
	b, report, err := g.Commit(bg, infoOf(manifest.Full), ref)
	if err != nil {
		t.Fatal(err)
	}
	if report.Dirty != 2 || report.Zero != 1 || report.Same != pages-2 {
		t.Errorf("%+v", report)
	}
	checkMemory(t, s, b.ID, &mem)
	if err := os.Remove(b.Path(sealName)); err != nil {
		t.Fatal(err)
	}
	checkMemory(t, s, b.ID, &mem)
}
