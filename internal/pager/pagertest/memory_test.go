package pagertest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"wrenn.dev/wrenn/internal/pager"
)

func TestPieces(t *testing.T) {
	p := Pieces{
		{0, pager.Extent{File: 1, Offset: 100, Length: 10}}, {10, pager.Extent{File: -1, Length: 5}}, {15, pager.Extent{File: 0, Length: 1}},
	}
	for offset, want := range map[uint64]pager.Extent{
		0: {File: 1, Offset: 100, Length: 10}, 9: {File: 1, Offset: 109, Length: 1}, 10: {File: -1, Length: 5}, 14: {File: -1, Length: 1},
		15: {File: 0, Length: 1},
	} {
		if got := p.Find(offset); got != want {
			t.Errorf("at %d: %+v, want %+v", offset, got, want)
		}
	}
	if p.Size() != 16 || (Pieces{}).Size() != 0 {
		t.Errorf("size %d", p.Size())
	}
}

func TestMemoryIsRepeatable(t *testing.T) {
	const count = 200
	one, err := Random(t.TempDir(), count, 2, 10, 5)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Random(t.TempDir(), count, 2, 10, 5)
	if err != nil {
		t.Fatal(err)
	}
	a, err := one.Sums()
	if err != nil {
		t.Fatal(err)
	}
	b, err := two.Sums()
	if err != nil || len(a) != count || len(b) != count {
		t.Fatalf("%d and %d pages, %v", len(a), len(b), err)
	}
	distinct := map[uint32]bool{}
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("page %d differs between two memories of the same seed", i)
		}
		distinct[a[i]] = true
	}
	if len(distinct) < count/2 {
		t.Errorf("%d pages hold %d different things", count, len(distinct))
	}
	flat, err := Flat(t.TempDir(), 2, 9)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := flat.Sums()
	if err != nil || len(sums) != 2 || sums[0] == sums[1] {
		t.Errorf("%v, %v", sums, err)
	}
}

func TestRandomFileIsOfTheStream(t *testing.T) {
	m, err := Flat(t.TempDir(), 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	files, err := m.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(files)
	got, want := make([]byte, Page), make([]byte, Page)
	if _, err := files[0].ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := rand.NewChaCha8([32]byte{1}).Read(want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file is of another stream: %v", err)
	}
}
