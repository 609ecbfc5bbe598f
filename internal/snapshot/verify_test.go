package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// allFiles are the names of a build's files.
func allFiles() []string { return append(manifest.Names(), manifest.Name) }

// harm opens a file of a build for writing, as no part of Wrenn does.
func harm(t *testing.T, path string) *os.File {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// offsets are places of a file to flip a byte at: all of a short one; of a long one those around its data and many between.
func offsets(size int64) (out []int64) {
	if size < 8000 {
		for i := range size {
			out = append(out, i)
		}
		return out
	}
	for _, page := range []int64{0, 1, 2, 99, 100, 101, 255} {
		out = append(out, page*pageSize, page*pageSize+pageSize-1)
	}
	for at := int64(0); at < size; at += 17 * (pageSize + 1) {
		out = append(out, at)
	}
	return append(out, size-1)
}

func flip(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (at % 8)
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestAnyFlippedByteIsRefused flips bytes in every file, one at a time, first of a sealed build and then of one without a
// seal. A seal never outlives a change; opening after the change was undone shows that the build is otherwise good.
func TestAnyFlippedByteIsRefused(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1, 1: 2, 100: 3}
	a := commit(t, s, "", &mem, pagesOf(0, 1, 100))
	mem[1] = 4
	b := commit(t, s, a.ID, &mem, pagesOf(1), ref)
	for _, build := range []*Build{a, b} { // of b's own, and of what it needs
		for _, name := range allFiles() {
			f := harm(t, build.Path(name))
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			checkMemory(t, s, b.ID, &mem) // seals
			if !sealed(build.Path("")) {
				t.Fatalf("%s: not sealed", build.ID)
			}
			for _, at := range offsets(info.Size()) {
				flip(t, f, at)
				if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), name) {
					t.Errorf("%s: byte %d flipped: %v", name, at, err)
				}
				flip(t, f, at)
			}
			checkMemory(t, s, b.ID, &mem)
		}
	}
}

func TestAnyCutIsRefused(t *testing.T) {
	for _, name := range allFiles() {
		for _, keepSeal := range []bool{true, false} {
			s := newStore(t)
			mem := memory{0: 1, 100: 3}
			b := commit(t, s, "", &mem, pagesOf(0, 100), ref)
			f := harm(t, b.Path(name))
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			checkMemory(t, s, b.ID, &mem)
			if !keepSeal {
				if err := os.Remove(b.Path(sealName)); err != nil {
					t.Fatal(err)
				}
			}
			for _, size := range []int64{info.Size() + 1, info.Size() - 1, info.Size() / 2, 1, 0} {
				if err := f.Truncate(size); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), name) {
					t.Errorf("%s of %d bytes cut to %d: %v", name, info.Size(), size, err)
				}
			}
			if err := os.Remove(b.Path(name)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) {
				t.Errorf("%s removed: %v", name, err)
			}
		}
	}
}

func TestCorruptionNamesItsChunk(t *testing.T) {
	s := newStore(t)
	mem := memory{100: 3}
	b := commit(t, s, "", &mem, pagesOf(100), ref)
	for name, c := range map[string]struct {
		at   int64
		says string
	}{
		manifest.Memory: {100 * pageSize, "memory: chunk at byte 0: sha256"},
		manifest.Disk:   {1 << 20, "disk: chunk at byte 1048576: sha256"},
	} {
		f := harm(t, b.Path(name))
		defer f.Close()
		flip(t, f, c.at)
		if _, err := s.Open(bg, b.ID); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v does not say %q", err, c.says)
		}
		flip(t, f, c.at)
	}
	f := harm(t, b.Path(manifest.Memory)) // a page that the build does not keep
	defer f.Close()
	flip(t, f, 7*pageSize)
	if _, err := s.Open(bg, b.ID); err == nil || !strings.Contains(err.Error(), "which the build does not keep") {
		t.Error(err)
	}
}

// TestChangeWithItsTimeSetBack writes right after the seal and sets mtime back, as cp -p and rsync do.
func TestChangeWithItsTimeSetBack(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	for range 30 { // so that it falls on every part of the kernel's tick
		b := commit(t, s, "", &mem, pagesOf(0), ref)
		path := b.Path(manifest.Memory)
		info, err := os.Stat(path)
		if err != nil || !sealed(b.Path("")) {
			t.Fatal("not sealed", err)
		}
		f := harm(t, path)
		flip(t, f, 0)
		if err := errors.Join(f.Close(), os.Chtimes(path, time.Time{}, info.ModTime())); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) {
			t.Fatal(err)
		}
	}
}

// TestSealSparesHashing shows that a sealed build is not read: a seal that was forged for changed files is believed, and
// Verify finds what Open then doesn't. The same forged seal of another boot is not.
func TestSealSparesHashing(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	b := commit(t, s, "", &mem, pagesOf(0), ref)
	f := harm(t, b.Path(manifest.Memory))
	defer f.Close()
	flip(t, f, 0)
	now, err := stamps(b.Path(""))
	if err != nil {
		t.Fatal(err)
	}
	seal(b.Path(""), now)
	if _, err := s.Open(bg, b.ID); err != nil {
		t.Errorf("a sealed build was hashed: %v", err)
	}
	if err := s.Verify(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) {
		t.Error(err)
	}
	if _, err := s.Compact(bg, b.ID, ref); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a bad page got a good digest: %v", err)
	}
	text, err := os.ReadFile(b.Path(sealName))
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for name, other := range map[string]string{
		"boot": strings.Replace(string(text), boot, "x"+boot[1:], 1), "version": strings.Replace(string(text), `"version":1`, `"version":2`, 1),
		"field": strings.Replace(string(text), `{`, `{"x":1,`, 1), "empty": "", "cut": string(text[:len(text)-5]),
	} {
		if err := os.WriteFile(b.Path(sealName), []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("seal with another %s was believed: %v", name, err)
		}
	}
}

// TestOtherBuildUnderTheName: what a build needs is the build that was meant, and not one that took its id.
func TestOtherBuildUnderTheName(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1, 1: 2}
	a := commit(t, s, "", &mem, pagesOf(0, 1))
	mem[1] = 4
	b := commit(t, s, a.ID, &mem, pagesOf(1), ref)
	if err := os.Rename(s.dir(a.ID), filepath.Join(s.root, "aside")); err != nil {
		t.Fatal(err)
	}
	g, err := s.Begin(bg, a.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{manifest.Memory, manifest.VMState, manifest.Disk} {
		data, err := os.ReadFile(filepath.Join(s.root, "aside", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(g.Path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := g.Commit(bg, infoOf(manifest.Diff)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(bg, a.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), "manifest of digest") {
		t.Error(err)
	}
}
