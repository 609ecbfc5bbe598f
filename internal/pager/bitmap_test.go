package pager

import (
	"testing"

	"pgregory.net/rapid"
)

func TestBitmap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 300
		b, model := newBitmap(size), [size]bool{}
		for range 20 {
			from := rapid.Uint64Range(0, size).Draw(t, "from")
			to := rapid.Uint64Range(0, size).Draw(t, "to")
			value := rapid.Bool().Draw(t, "set")
			if value {
				b.setRange(from, to)
			} else {
				b.clearRange(from, to)
			}
			for i := from; i < to; i++ {
				model[i] = value
			}
		}
		if i := rapid.Uint64Range(0, size-1).Draw(t, "one"); true {
			b.set(i)
			model[i] = true
		}
		count := uint64(0)
		for i, want := range model {
			if b.get(uint64(i)) != want {
				t.Fatalf("bit %d is %v", i, !want)
			}
			if want {
				count++
			}
		}
		if b.count() != count {
			t.Errorf("count %d, want %d", b.count(), count)
		}
	})
}

func TestTake(t *testing.T) {
	const base = 1 << 30
	for _, tt := range []struct {
		name       string
		page       uint64
		start, end uint64
		from, to   uint64 // the pages that are taken
	}{
		{"inside", smallPage, base + 4096, base + 3*4096, 1, 3},
		{"all and more", smallPage, 0, 1 << 40, 0, 1024},
		{"below", smallPage, 0, base, 0, 0},
		{"above", smallPage, base + 1024*4096, 1 << 40, 0, 0},
		{"backwards", smallPage, base + 8192, base + 4096, 0, 0},
		{"the end overflows", smallPage, base + 1023*4096, ^uint64(0), 1023, 1024},
		{"huge", hugePage, base + hugePage, base + 2*hugePage, 1, 2},
		{"a part of a huge page", hugePage, base + 4096, base + hugePage + 4096, 0, 0},
		{"one whole and parts", hugePage, base + hugePage - 4096, base + 2*hugePage, 1, 2},
	} {
		r := newRegion(Region{Base: base, Size: 4 << 20, PageSize: tt.page}, false)
		r.present.setRange(0, r.pages)
		if n := r.take(tt.start, tt.end); n != tt.to-tt.from {
			t.Errorf("%s: took %d pages", tt.name, n)
		}
		for p := range r.pages {
			if taken := p >= tt.from && p < tt.to; r.removed.get(p) != taken || r.present.get(p) == taken {
				t.Errorf("%s: page %d", tt.name, p)
			}
		}
	}
}
