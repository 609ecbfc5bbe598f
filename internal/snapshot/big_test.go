package snapshot

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// commitBig commits a build of 4 MiB of memory with the given pages dirty, each filled with its byte.
func commitBig(t *testing.T, s *Store, parent string, dirty map[int64]byte, refs ...Ref) *Build {
	t.Helper()
	g := stage(t, s, parent, &memory{}, nil, manifest.Diff)
	f, err := os.OpenFile(g.Path(manifest.Memory), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	for page, b := range dirty {
		if _, err := f.WriteAt(bytes.Repeat([]byte{b}, pageSize), page*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	info := infoOf(manifest.Diff)
	info.Machine.MemoryMiB = 4
	b, _, err := g.Commit(bg, info, refs...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readBig returns the first byte of each page that is not zero.
func readBig(t *testing.T, b *Build) map[int64]byte {
	t.Helper()
	r := b.Pages()
	defer r.Close()
	buf := make([]byte, 4<<20)
	if err := r.ReadPages(0, buf); err != nil {
		t.Fatal(err)
	}
	got := map[int64]byte{}
	for page := range int64(4 << 8) {
		part := buf[page*pageSize:][:pageSize]
		if !bytes.Equal(part, bytes.Repeat(part[:1], pageSize)) {
			t.Fatalf("page %d is torn", page)
		}
		if part[0] != 0 {
			got[page] = part[0]
		}
	}
	return got
}

// TestManyChunks: what the scan hashed is what the check hashes, chunk by chunk, and a damaged one is named.
func TestManyChunks(t *testing.T) {
	s := newStore(t)
	a := commitBig(t, s, "", map[int64]byte{0: 1, 255: 2, 256: 3, 600: 4, 1023: 5}, ref)
	b := commitBig(t, s, a.ID, map[int64]byte{256: 0, 600: 6, 601: 7, 1022: 8}, ref)
	want := map[int64]byte{0: 1, 255: 2, 600: 6, 601: 7, 1022: 8, 1023: 5}
	offsets := func(b *Build) (out []int64) {
		for _, c := range b.Manifest.Files[manifest.Memory].Chunks {
			out = append(out, c.Offset)
		}
		return out
	}
	if d := cmp.Diff([][]int64{{0, 1 << 20, 2 << 20, 3 << 20}, {2 << 20, 3 << 20}}, [][]int64{offsets(a), offsets(b)}); d != "" {
		t.Error(d)
	}
	if err := s.Verify(bg, b.ID); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(want, readBig(t, b)); d != "" {
		t.Error(d)
	}
	compact, err := s.Compact(bg, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, readBig(t, compact)); d != "" {
		t.Error(d)
	}
	f := harm(t, a.Path(manifest.Memory))
	defer f.Close()
	flip(t, f, 600*pageSize+9)
	if _, err := s.Open(bg, b.ID); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), a.ID+": memory: chunk at byte 2097152: sha256") {
		t.Error(err)
	}
}

// TestChunksAreCompared looks at every way in which two lists of chunks can differ.
func TestChunksAreCompared(t *testing.T) {
	a, b, c := manifest.Chunk{Offset: 0, Bytes: 1, SHA256: "a"}, manifest.Chunk{Offset: 1 << 20, Bytes: 1, SHA256: "b"}, manifest.Chunk{Offset: 1 << 20, Bytes: 1, SHA256: "c"}
	list := func(c ...manifest.Chunk) []manifest.Chunk { return c }
	for says, x := range map[string]struct{ got, want []manifest.Chunk }{
		"":                                   {list(a, b), list(a, b)},
		"chunk at byte 0 is missing":         {list(b), list(a, b)},
		"chunk at byte 1048576 is missing":   {list(a), list(a, b)},
		"chunk at byte 0 has data, and":      {list(a, b), list(b)},
		"chunk at byte 1048576 has data":     {list(a, b), list(a)},
		"chunk at byte 1048576: sha256 of 1": {list(a, c), list(a, b)},
	} {
		err := compareChunks(x.got, x.want)
		if says == "" {
			if err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

func TestCommitSetsAllItsReferences(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	refs := []Ref{ref, {"snapshot", "warm"}, {"template", "base"}}
	b := commit(t, s, "", &mem, pagesOf(0), refs...)
	for _, r := range refs {
		if got, err := s.GetRef(r); err != nil || got != b.ID {
			t.Errorf("%s: %s, %v", r, got, err)
		}
	}
	g := stage(t, s, b.ID, &mem, pagesOf(0), manifest.Diff)
	if _, _, err := g.Commit(bg, infoOf(manifest.Diff), ref, Ref{"snapshot", "../x"}); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
	if err := g.Abort(bg); err != nil {
		t.Error(err)
	}
	if got, err := s.GetRef(ref); err != nil || got != b.ID {
		t.Errorf("a commit that failed moved a reference: %s, %v", got, err)
	}
}

func TestParentOfAnotherSize(t *testing.T) {
	s := newStore(t)
	a := commitBig(t, s, "", map[int64]byte{0: 1}, ref)
	g := stage(t, s, a.ID, &memory{}, nil, manifest.Diff)
	defer g.Abort(bg)
	if _, _, err := g.Commit(bg, infoOf(manifest.Diff), ref); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}

// TestCorruptParentStopsACommit: pages of a build that went bad get into no new one.
func TestCorruptParentStopsACommit(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1, 5: 2}
	a := commit(t, s, "", &mem, pagesOf(0, 5), ref)
	f := harm(t, a.Path(manifest.Memory))
	defer f.Close()
	flip(t, f, 5*pageSize)
	g := stage(t, s, a.ID, &mem, pagesOf(0), manifest.Diff)
	defer g.Abort(bg)
	if _, _, err := g.Commit(bg, infoOf(manifest.Diff), ref); !errors.Is(err, errs.ErrCorrupt) {
		t.Error(err)
	}
}

func TestManifestOfAnotherBuild(t *testing.T) {
	s := newStore(t)
	mem := memory{0: 1}
	a := commit(t, s, "", &mem, pagesOf(0))
	moved := blockmap.NewBuildID()
	if err := os.Rename(s.dir(a.ID), s.dir(moved)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(bg, moved); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), "its manifest is of "+a.ID) {
		t.Error(err)
	}
}
