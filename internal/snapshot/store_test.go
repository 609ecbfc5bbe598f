package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

var ref = Ref{"sandbox", "cl-1"}

func TestRefs(t *testing.T) {
	s := newStore(t)
	if _, err := s.GetRef(ref); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if err := s.SetRef(bg, ref, blockmap.NewBuildID()); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	mem := memory{0: 1}
	a, b := commit(t, s, "", &mem, pagesOf(0), ref), commit(t, s, "", &mem, pagesOf(0), Ref{"template", "python-3.12"})
	want := map[Ref]string{ref: a.ID, {"template", "python-3.12"}: b.ID}
	if got, err := s.ListRefs(); err != nil || !cmp.Equal(got, want) {
		t.Error(got, err)
	}
	if err := s.SwapRef(bg, ref, b.ID, b.ID); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := s.SwapRef(bg, Ref{"sandbox", "other"}, a.ID, b.ID); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if err := s.SwapRef(bg, ref, a.ID, b.ID); err != nil {
		t.Error(err)
	}
	if got, err := s.GetRef(ref); err != nil || got != b.ID {
		t.Error(got, err)
	}
	for range 2 {
		if err := s.DeleteRef(bg, ref); err != nil {
			t.Error(err)
		}
	}
	if err := s.DeleteRef(bg, Ref{"never", "was"}); err != nil {
		t.Error(err)
	}
}

func TestRefNames(t *testing.T) {
	s := newStore(t)
	mem := memory{}
	id := commit(t, s, "", &mem, nil).ID
	for _, r := range []Ref{{}, {"sandbox", ""}, {"", "x"}, {"..", "x"}, {"sandbox", ".."}, {"sandbox", ".new-x"}, {"sandbox", "a/b"}, {"Sandbox", "x"}, {"sandbox", strings.Repeat("x", 129)}} {
		_, err := s.GetRef(r)
		for _, err := range []error{err, s.SetRef(bg, r, id), s.DeleteRef(bg, r)} {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Errorf("%v: %v", r, err)
			}
		}
	}
	if err := s.SetRef(bg, ref, "../x"); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}

func TestDeleteNamesWhoNeedsIt(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1, 1: 2}
	a := commit(t, s, "", &mem, pagesOf(0, 1), ref)
	mem[1] = 3
	b := commit(t, s, a.ID, &mem, pagesOf(1), Ref{"snapshot", "warm"})
	staged := stage(t, s, a.ID, &mem, nil, manifest.Diff)
	err := s.Delete(bg, a.ID)
	for _, who := range []string{"reference sandbox/cl-1", "build " + b.ID, "a build in the making"} {
		if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), who) {
			t.Errorf("%v does not name %s", err, who)
		}
	}
	err = errors.Join(staged.Abort(bg), s.DeleteRef(bg, ref), s.DeleteRef(bg, Ref{"snapshot", "warm"}), s.Delete(bg, b.ID), s.Delete(bg, a.ID))
	if left, listErr := s.List(); err != nil || listErr != nil || len(left)+len(rootNames(t, s)) > 0 {
		t.Error(left, err, listErr)
	}
	if err := s.Delete(bg, a.ID); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

// TestOnlyPagesOfASourceAreNeeded: c reads pages of b, and b was made from a. Nothing needs a but b as a build of its own,
// which nothing refers to.
func TestOnlyPagesOfASourceAreNeeded(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1, 1: 2}
	a := commit(t, s, "", &mem, pagesOf(0, 1), ref)
	mem[1] = 3
	b := commit(t, s, a.ID, &mem, pagesOf(1), ref)
	mem[0] = 4
	c := commit(t, s, b.ID, &mem, pagesOf(0), ref)
	removed, err := s.GC(bg)
	if err != nil || !slices.Equal(removed, []string{a.ID}) {
		t.Fatal(removed, err)
	}
	checkMemory(t, s, c.ID, &mem)
	if err := s.SetRef(bg, ref, b.ID); !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), a.ID) {
		t.Errorf("a build that misses pages can be referred to: %v", err)
	}
	if g, err := s.Begin(bg, blockmap.NewBuildID(), b.ID); g != nil || !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a build that misses pages can be a parent: %v", err)
	}
	if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a build that misses pages opens: %v", err)
	}
}

func TestGCFailsClosed(t *testing.T) {
	for name, harm := range map[string]func(s *Store, build string) error{
		"bad reference":      func(s *Store, _ string) error { return os.WriteFile(s.refPath(ref), []byte("x"), 0o600) },
		"dangling reference": func(s *Store, build string) error { return os.RemoveAll(s.dir(build)) },
		"bad manifest": func(s *Store, build string) error {
			s.forget(build)
			return os.Truncate(filepath.Join(s.dir(build), manifest.Name), 10)
		},
	} {
		s := newStore(t)
		mem := memory{0: 1}
		lost := commit(t, s, "", &mem, pagesOf(0), ref)
		other := commit(t, s, "", &mem, pagesOf(0))
		_ = os.Chmod(filepath.Join(s.dir(lost.ID), manifest.Name), 0o600)
		if err := harm(s, lost.ID); err != nil {
			t.Fatal(err)
		}
		if removed, err := s.GC(bg); !errors.Is(err, errs.ErrCorrupt) || len(removed) > 0 {
			t.Errorf("%s: %v, %v", name, removed, err)
		}
		if there, err := s.exists(other.ID); err != nil || !there {
			t.Errorf("%s: removed although it can't know: %v", name, err)
		}
	}
}

func TestBuildInTheMakingKeepsItsParent(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	a := commit(t, s, "", &mem, pagesOf(0))
	mem[1] = 2
	g := stage(t, s, a.ID, &mem, pagesOf(1), manifest.Diff)
	other, err := New(s.root) // as another process sees it
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := other.GC(bg); err != nil || len(removed) > 0 {
		t.Fatal(removed, err)
	}
	b, _, err := g.Commit(bg, infoOf(manifest.Diff), ref)
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := other.GC(bg); err != nil || len(removed) > 0 {
		t.Fatal(removed, err)
	}
	checkMemory(t, s, b.ID, &mem)
}

func TestBeginRefuses(t *testing.T) {
	s := newStore(t)
	mem := memory{}
	a := commit(t, s, "", &mem, nil)
	g := stage(t, s, "", &mem, nil, manifest.Diff)
	defer g.Abort(bg)
	for id, want := range map[string]error{a.ID: errs.ErrAlreadyExists, g.ID(): errs.ErrAlreadyExists, "../x": errs.ErrInvalid} {
		if _, err := s.Begin(bg, id, ""); !errors.Is(err, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.Begin(bg, blockmap.NewBuildID(), blockmap.NewBuildID()); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Open(bg, blockmap.NewBuildID()); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Usage(blockmap.NewBuildID()); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

func TestCommitRefuses(t *testing.T) {
	big := infoOf(manifest.Diff)
	big.Machine.MemoryMiB = 2
	for name, c := range map[string]struct {
		info Info
		harm func(g *Staging) error
		want error
	}{
		"missing": {infoOf(manifest.Diff), func(g *Staging) error { return os.Remove(g.Path(manifest.Disk)) }, errs.ErrFailedPrecondition},
		"strange": {infoOf(manifest.Diff), func(g *Staging) error { return os.WriteFile(g.Path("x"), nil, 0o600) }, errs.ErrFailedPrecondition},
		"linked":  {infoOf(manifest.Diff), func(g *Staging) error { return os.Link(g.Path(manifest.Disk), filepath.Join(g.s.root, "x")) }, errs.ErrFailedPrecondition},
		"symlink": {infoOf(manifest.Diff), func(g *Staging) error {
			return errors.Join(os.Remove(g.Path(manifest.VMState)), os.Symlink("/etc/passwd", g.Path(manifest.VMState)))
		}, errs.ErrFailedPrecondition},
		"length":      {big, func(*Staging) error { return nil }, errs.ErrCorrupt},
		"description": {Info{Kind: manifest.Diff, Machine: infoOf("").Machine}, func(*Staging) error { return nil }, errs.ErrInvalid},
	} {
		s := newStore(t)
		mem := memory{0: 1}
		g := stage(t, s, "", &mem, pagesOf(0), manifest.Diff)
		if err := c.harm(g); err != nil {
			t.Fatal(err)
		}
		if b, _, err := g.Commit(bg, c.info, ref); b != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := g.Abort(bg); err != nil || len(rootNames(t, s)) > 0 {
			t.Errorf("%s: abort left %v: %v", name, rootNames(t, s), err)
		}
		if _, err := s.GetRef(ref); !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCommitTwice(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	g := stage(t, s, "", &mem, pagesOf(0), manifest.Diff)
	b, _, err := g.Commit(bg, infoOf(manifest.Diff))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Commit(bg, infoOf(manifest.Diff)); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if err := g.Abort(bg); err != nil {
		t.Error(err)
	}
	checkMemory(t, s, b.ID, &mem)
}

func TestWaitingForTheLockEndsWithTheContext(t *testing.T) {
	s := newStore(t)
	release, err := s.lock(bg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	if _, err := s.GC(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	release()
	if _, err := s.GC(bg); err != nil { // what the one that gave up got in the end, it gave back
		t.Error(err)
	}
}

// TestCommitsBesideCollections commits and collects at the same time, from stores that share nothing but the folder.
func TestCommitsBesideCollections(t *testing.T) {
	s := newStore(t)
	stop := make(chan struct{})
	var collector, makers sync.WaitGroup
	collector.Go(func() {
		other, err := New(s.root)
		for err == nil {
			select {
			case <-stop:
				return
			default:
			}
			_, err = other.GC(bg)
		}
		t.Error(err)
	})
	for _, name := range []string{"a", "b", "c"} {
		makers.Go(func() {
			own, err := New(s.root)
			if err != nil {
				t.Error(err)
				return
			}
			mem, parent := memory{}, ""
			for i := range 8 {
				mem[i] = uint64(i + 1)
				g := stageOrError(t, own, parent, &mem, pagesOf(i))
				if g == nil {
					return
				}
				b, _, err := g.Commit(bg, infoOf(manifest.Diff), Ref{"sandbox", name})
				if err != nil {
					t.Error(err)
					return
				}
				parent = b.ID
				if _, err := own.Open(bg, b.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	makers.Wait()
	close(stop)
	collector.Wait()
}

// stageOrError is stage for goroutines, where Fatal may not be called.
func stageOrError(t *testing.T, s *Store, parent string, mem *memory, dirty map[int]bool) (g *Staging) {
	e := &failure{T: t}
	defer func() {
		if r := recover(); r != nil && r != any(e) {
			panic(r)
		}
	}()
	return stage(e, s, parent, mem, dirty, manifest.Diff)
}

type failure struct{ *testing.T }

func (f *failure) Fatal(args ...any)                 { f.Error(args...); panic(f) }
func (f *failure) Fatalf(format string, args ...any) { f.Errorf(format, args...); panic(f) }

func TestUsageCountsNoHoles(t *testing.T) {
	s := newStore(t)
	mem := memory{3: 1}
	b := commit(t, s, "", &mem, pagesOf(3, 4, 5, 6, 7, 8))
	n, err := s.Usage(b.ID)
	if err != nil || n < pageSize || n > pages*pageSize/2 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestARefThatMustBeNew: a build is not committed under a name that is there by then, and the name stays what it was.
func TestARefThatMustBeNew(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	named := Ref{Kind: "snapshot", Name: "one"}
	info := infoOf(manifest.Diff)
	info.New = named.Kind
	own := Ref{Kind: "sandbox", Name: "cl-a"} // of another kind, and moved as ever
	first, err := s.commitNew(t, &mem, info, named, own)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.commitNew(t, &mem, info, named, own); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("the name again: %v", err)
	}
	for _, r := range []Ref{named, own} {
		if got, err := s.GetRef(r); err != nil || got != first {
			t.Errorf("%s points to %s, %v, want %s", r, got, err, first)
		}
	}
	if _, err := s.commitNew(t, &mem, info, Ref{Kind: "snapshot", Name: "two"}, own); err != nil {
		t.Errorf("another name: %v", err)
	}
}

// commitNew commits a build and returns its id; when it fails nothing of it is left.
func (s *Store) commitNew(t *testing.T, mem *memory, info Info, refs ...Ref) (string, error) {
	t.Helper()
	g := stage(t, s, "", mem, pagesOf(0), manifest.Diff)
	b, _, err := g.Commit(bg, info, refs...)
	if err != nil {
		return "", errors.Join(err, g.Abort(bg))
	}
	return b.ID, nil
}
