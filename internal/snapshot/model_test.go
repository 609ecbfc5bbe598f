package snapshot

import (
	"context"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

var bg = context.Background()

// lineage is a sandbox of the model: what its memory must be, and what it wrote since it was started.
type lineage struct {
	ref    Ref
	build  string // that it was started from, "" for a boot
	mem    memory
	dirty  map[int]bool
	paused memory // as at its last pause
}

// world is the model: a store, and sandboxes as byte arrays.
type world struct {
	s     *Store
	lines []*lineage
	made  int
	next  uint64
}

// line picks a lineage that ok holds for.
func (w *world) line(t *rapid.T, ok func(*lineage) bool) *lineage {
	var some []*lineage
	for _, l := range w.lines {
		if ok(l) {
			some = append(some, l)
		}
	}
	if len(some) == 0 {
		t.Skip("no such lineage")
	}
	return rapid.SampledFrom(some).Draw(t, "lineage")
}

func whatever(*lineage) bool   { return true }
func frozen(l *lineage) bool   { return l.build != "" }
func (w *world) boot(*rapid.T) { w.add(&lineage{dirty: map[int]bool{}}) }
func (w *world) add(l *lineage) {
	w.made++
	l.ref = Ref{"sandbox", "s" + strconv.Itoa(w.made)}
	w.lines = append(w.lines, l)
}

// write changes a run of pages: to new content, to zero, or to what was there (dirty for the hardware, equal for us).
func (w *world) write(t *rapid.T) {
	l := w.line(t, whatever)
	start := rapid.IntRange(0, pages-1).Draw(t, "start")
	how := rapid.SampledFrom([]string{"new", "zero", "same"}).Draw(t, "how")
	for p := start; p < min(pages, start+rapid.IntRange(1, 40).Draw(t, "count")); p++ {
		switch how {
		case "new":
			w.next++
			l.mem[p] = w.next
		case "zero":
			l.mem[p] = 0
		}
		l.dirty[p] = true
	}
}

// pause freezes a lineage and goes on from the new build.
func (w *world) pause(t *rapid.T) {
	l := w.line(t, whatever)
	kind := rapid.SampledFrom([]manifest.Kind{manifest.Diff, manifest.Full}).Draw(t, "kind")
	g := stage(t, w.s, l.build, &l.mem, l.dirty, kind)
	b, report, err := g.Commit(bg, infoOf(kind), l.ref)
	if err != nil {
		t.Fatal(err)
	}
	if kind == manifest.Diff && report.Dirty != int64(len(l.dirty)) {
		t.Fatalf("%d dirty pages, want %d", report.Dirty, len(l.dirty))
	}
	l.build, l.paused, l.dirty = b.ID, l.mem, map[int]bool{}
}

// resume throws away what was written since the pause.
func (w *world) resume(t *rapid.T) {
	l := w.line(t, frozen)
	l.mem, l.dirty = l.paused, map[int]bool{}
}

// fork starts another lineage from a build.
func (w *world) fork(t *rapid.T) {
	l := w.line(t, frozen)
	n := &lineage{build: l.build, mem: l.paused, paused: l.paused, dirty: map[int]bool{}}
	w.add(n)
	if err := w.s.SetRef(bg, n.ref, n.build); err != nil {
		t.Fatal(err)
	}
}

// compact replaces a lineage's build by one that needs no other.
func (w *world) compact(t *rapid.T) {
	l := w.line(t, frozen)
	b, err := w.s.Compact(bg, l.build, l.ref)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Manifest.Needs) > 0 {
		t.Fatalf("compact, and needs %v", b.Manifest.Needs)
	}
	l.build = b.ID
}

func (w *world) drop(t *rapid.T) {
	l := w.line(t, whatever)
	if err := w.s.DeleteRef(bg, l.ref); err != nil {
		t.Fatal(err)
	}
	w.lines = slices.DeleteFunc(w.lines, func(o *lineage) bool { return o == l })
}

// abort stages a build that comes to nothing.
func (w *world) abort(t *rapid.T) {
	l := w.line(t, whatever)
	if err := stage(t, w.s, l.build, &l.mem, l.dirty, manifest.Diff).Abort(bg); err != nil {
		t.Fatal(err)
	}
}

// gc collects, and nothing is left but what a lineage needs.
func (w *world) gc(t *rapid.T) {
	if _, err := w.s.GC(bg); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, l := range w.lines {
		if l.build == "" {
			continue
		}
		want[l.build] = true
		for _, id := range readBlocks(t, w.s, l.build).Builds() {
			want[id] = true
		}
	}
	got, err := w.s.List()
	if err != nil || !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Fatalf("left %v, want %v: %v", got, want, err)
	}
	if left := rootNames(t, w.s); len(left) > 0 {
		t.Fatalf("left %v", left)
	}
}

func readBlocks(t fataler, s *Store, build string) *blockmap.Map {
	f, err := os.Open(filepath.Join(s.root, build, manifest.MemoryMap))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := blockmap.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// remove deletes a build that somebody needs, which is refused.
func (w *world) remove(t *rapid.T) {
	if err := w.s.Delete(bg, w.line(t, frozen).build); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Fatal(err)
	}
}

// check reads every lineage back.
func (w *world) check(t *rapid.T) {
	for _, l := range w.lines {
		if l.build == "" {
			continue
		}
		if got, err := w.s.GetRef(l.ref); err != nil || got != l.build {
			t.Fatalf("%s points to %s, want %s: %v", l.ref, got, l.build, err)
		}
		checkMemory(t, w.s, l.build, &l.paused)
	}
}

// checks is how often rapid tries what waits for the disk, unless the command line says it.
func checks(t *testing.T, n string) {
	f := flag.Lookup("rapid.checks")
	if f.Value.String() != f.DefValue {
		return
	}
	if err := f.Value.Set(n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
}

// TestLineages runs sandboxes through random lives beside a model of plain arrays.
func TestLineages(t *testing.T) {
	checks(t, "10")
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		s, err := New(filepath.Join(dir, strconv.Itoa(run)))
		if err != nil {
			rt.Fatal(err)
		}
		w := &world{s: s}
		defer os.RemoveAll(s.root)
		rt.Repeat(map[string]func(*rapid.T){
			"boot": w.boot, "write": w.write, "write more": w.write, "pause": w.pause, "pause again": w.pause, "resume": w.resume,
			"fork": w.fork, "compact": w.compact, "drop": w.drop, "abort": w.abort, "gc": w.gc, "delete": w.remove, "": w.check,
		})
	})
}
