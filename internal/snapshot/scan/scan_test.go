package scan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/sparse"
)

const page = blockmap.PageSize

// memory is a memory file: the byte that fills each page, none for a hole.
type memory map[int64]byte

func (m memory) file(t testing.TB, dir string, pages int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(pages * page); err != nil {
		t.Fatal(err)
	}
	for p, b := range m {
		if _, err := f.WriteAt(bytes.Repeat([]byte{b}, page), p*page); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// dataPages are the pages of a file that are no holes.
func dataPages(t testing.TB, f *os.File) (pages []int64) {
	t.Helper()
	err := sparse.Walk(t.Context(), f, page, func(start, end int64) error {
		for at := start; at < end; at += page {
			pages = append(pages, at/page)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func sum(pages ...byte) string {
	h := sha256.New()
	for _, b := range pages {
		h.Write(bytes.Repeat([]byte{b}, page))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestDiff(t *testing.T) {
	f := memory{0: 7, 1: 0, 2: 0, 3: 8, 255: 9, 256: 0, 257: 1, 800: 0}.file(t, t.TempDir(), 1024)
	defer f.Close()
	got, err := Diff(t.Context(), f, 1024)
	if err != nil {
		t.Fatal(err)
	}
	want := Report{
		Changes: []blockmap.Change{
			{Start: 0, Count: 1}, {Start: 1, Count: 2, Zero: true}, {Start: 3, Count: 1, Offset: 3 * page}, {Start: 255, Count: 1, Offset: 255 * page},
			{Start: 256, Count: 1, Zero: true}, {Start: 257, Count: 1, Offset: 257 * page}, {Start: 800, Count: 1, Zero: true},
		},
		Chunks: []manifest.Chunk{{Offset: 0, Bytes: 3 * page, SHA256: sum(7, 8, 9)}, {Offset: 1 << 20, Bytes: page, SHA256: sum(1)}},
		Dirty:  8, Zero: 4,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got.Stored() != 4*page {
		t.Error(got.Stored())
	}
	if d := cmp.Diff([]int64{0, 3, 255, 257}, dataPages(t, f)); d != "" {
		t.Errorf("zero pages still take room: %s", d)
	}
}

func TestRefuses(t *testing.T) {
	f := memory{0: 1}.file(t, t.TempDir(), 16)
	defer f.Close()
	if _, err := Diff(t.Context(), f, 17); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("wrong length: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Diff(ctx, f, 16); !errors.Is(err, context.Canceled) {
		t.Errorf("diff went on: %v", err)
	}
	boom := errors.New("boom")
	if _, err := Full(ctx, f, 16, parentFunc(func(int64, []byte) error { return boom })); !errors.Is(err, context.Canceled) {
		t.Errorf("full went on: %v", err)
	}
	if _, err := Full(t.Context(), f, 16, parentFunc(func(int64, []byte) error { return boom })); !errors.Is(err, boom) {
		t.Errorf("the parent failed and nobody said so: %v", err)
	}
}

func TestChangesAreBounded(t *testing.T) {
	f := memory{0: 1, 2: 1, 4: 1, 6: 1, 300: 1}.file(t, t.TempDir(), 512)
	defer f.Close()
	if _, err := run(t.Context(), f, appendSpan(nil, span{0, 512 * page}), nil, 3); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Error(err)
	}
}

// BenchmarkDiff is the speed at which a file of data is read, compared and hashed.
func BenchmarkDiff(b *testing.B) {
	const pages = 16 << 8 // 16 MiB
	m := memory{}
	for p := range int64(pages) {
		m[p] = byte(1 + p%255)
	}
	f := m.file(b, b.TempDir(), pages)
	defer f.Close()
	b.SetBytes(pages * page)
	for b.Loop() {
		if _, err := Diff(b.Context(), f, pages); err != nil {
			b.Fatal(err)
		}
	}
}

type parentFunc func(int64, []byte) error

func (p parentFunc) ReadPages(first int64, buf []byte) error { return p(first, buf) }

// TestAgainstPages scans any file, as a diff and as a full one, and checks every page of the report and of what is left of
// the file.
func TestAgainstPages(t *testing.T) {
	const pages = 600 // over two chunks
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		fill := rapid.MapOfN(rapid.Int64Range(0, pages-1), rapid.ByteRange(0, 2), 0, 60)
		now, before := memory(fill.Draw(rt, "now")), memory(fill.Draw(rt, "before"))
		full := rapid.Bool().Draw(rt, "full")
		f := now.file(t, dir, pages)
		defer f.Close()
		r, err := Diff(t.Context(), f, pages)
		if full {
			f.Close()
			f = now.file(t, dir, pages)
			defer f.Close()
			r, err = Full(t.Context(), f, pages, parentFunc(func(first int64, buf []byte) error {
				for i := range int64(len(buf) / page) {
					copy(buf[i*page:], bytes.Repeat([]byte{before[first+i]}, page))
				}
				return nil
			}))
		}
		if err != nil {
			rt.Fatal(err)
		}
		changed := changes(rt, r)
		var kept []int64
		for p := range int64(pages) {
			b, dirty := now[p]
			if full {
				dirty = b != before[p]
			}
			if zero, got := changed[p]; got != dirty || (got && zero != (b == 0)) {
				rt.Fatalf("page %d: reported %v, zero %v; want %v of %d", p, got, zero, dirty, b)
			}
			if dirty && b != 0 {
				kept = append(kept, p)
			}
		}
		if got := dataPages(t, f); !slices.Equal(got, kept) {
			rt.Fatalf("the file keeps %v, want %v", got, kept)
		}
		if r.Stored() != int64(len(kept))*page || (full && r.Same+r.Dirty != pages) {
			rt.Fatalf("%+v", r)
		}
	})
}

// changes are the pages of a report; the value says which are zero.
func changes(rt *rapid.T, r Report) map[int64]bool {
	out := map[int64]bool{}
	for _, c := range r.Changes {
		if !c.Zero && c.Offset != c.Start*page {
			rt.Fatalf("%+v is not at its own offset", c)
		}
		for i := range c.Count {
			out[c.Start+i] = c.Zero
		}
	}
	return out
}
