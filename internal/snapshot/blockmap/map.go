// Package blockmap says where each page of a guest's memory is kept: nowhere, because it is zero, or at a byte offset in
// the memory file of one build.
//
// A Map is flat and whole: it covers every page of the memory, so a page is found with one binary search however many
// generations came before. It never changes; Merge makes the map of the next generation from it:
//
//	m, err := blockmap.Zero(pages)                            // before the first generation all memory is zero
//	m, err = blockmap.Merge(m, "bd-…", slices.Values(changes)) // one generation later
//	r := m.Find(page)                                         // r.Build == "": zero
//
// A Map has one form only: ranges in order, none empty, none that continues the one before it. Two maps that say the same
// are therefore equal byte for byte when encoded. docs/snapshot-format.md describes the encoding.
//
// It is a leaf package.
package blockmap

import (
	"fmt"
	"iter"
	"slices"
	"sort"

	"wrenn.dev/wrenn/internal/errs"
)

// PageSize is the unit of a map, in bytes: what x86-64 Linux calls a page.
const PageSize = 4096

// Bounds of every map, checked before anything is allocated for one.
const (
	// MaxPages is 1 TiB of memory.
	MaxPages = 1 << 40 / PageSize
	// MaxRanges is how many pieces a map may have: all pages of 16 GiB.
	MaxRanges = 1 << 22
	// MaxBuilds is how many builds a map may refer to.
	MaxBuilds = 4096
)

// Range is a run of pages that are kept together.
type Range struct {
	// Start is the first page, Count how many there are.
	Start, Count int64
	// Build is whose memory file keeps the pages; empty when they are all zero.
	Build string
	// Offset is where in that file the first page is, in bytes; 0 when they are all zero.
	Offset int64
}

// Zero tells that the pages of the range are all zero and kept nowhere.
func (r Range) Zero() bool { return r.Build == "" }

// End is the page after the last.
func (r Range) End() int64 { return r.Start + r.Count }

// clip returns the part of r that is within [start, end), which must not be empty.
func (r Range) clip(start, end int64) Range {
	s, e := max(r.Start, start), min(r.End(), end)
	if !r.Zero() {
		r.Offset += (s - r.Start) * PageSize
	}
	r.Start, r.Count = s, e-s
	return r
}

// Map is the whole of a memory. It never changes and is safe for use by several goroutines.
type Map struct {
	pages   int64
	builds  []string // sorted; each has a range
	entries []entry  // by start; the first starts at 0
}

// entry is a range in few bytes; it ends where the next starts.
type entry struct {
	start  uint32
	build  uint32 // 0 for zero, else an index into builds plus one
	offset int64
}

// Zero returns the map of a memory of so many pages that are all zero. It fails with errs.ErrInvalid for a count below one
// or above MaxPages.
func Zero(pages int64) (*Map, error) {
	if pages < 1 || pages > MaxPages {
		return nil, fmt.Errorf("a memory of %d pages: want 1 to %d: %w", pages, MaxPages, errs.ErrInvalid)
	}
	return &Map{pages: pages, entries: []entry{{}}}, nil
}

// Pages is how many pages the memory has.
func (m *Map) Pages() int64 { return m.pages }

// Builds are the ids of the builds that the map refers to, sorted.
func (m *Map) Builds() []string { return slices.Clone(m.builds) }

// Find returns the range that has a page. Like an index into a slice, a page outside of the memory is a mistake of the
// caller and panics.
func (m *Map) Find(page int64) Range { return m.at(m.index(page)) }

// index finds the entry of a page.
func (m *Map) index(page int64) int {
	if page < 0 || page >= m.pages {
		panic(fmt.Sprintf("blockmap: page %d of a memory of %d", page, m.pages))
	}
	return sort.Search(len(m.entries), func(i int) bool { return int64(m.entries[i].start) > page }) - 1
}

// at is the range of entry i.
func (m *Map) at(i int) Range {
	e, end := m.entries[i], m.pages
	if i+1 < len(m.entries) {
		end = int64(m.entries[i+1].start)
	}
	r := Range{Start: int64(e.start), Count: end - int64(e.start), Offset: e.offset}
	if e.build > 0 {
		r.Build = m.builds[e.build-1]
	}
	return r
}

// Ranges are all the ranges, in order; together they are the whole memory.
func (m *Map) Ranges() iter.Seq[Range] { return m.Within(0, m.pages) }

// Within are the ranges of count pages from start, in order, the first and the last cut to fit. Pages outside of the memory
// panic.
func (m *Map) Within(start, count int64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if count <= 0 {
			return
		}
		end := start + count
		if end > m.pages {
			panic(fmt.Sprintf("blockmap: pages %d to %d of a memory of %d", start, end, m.pages))
		}
		for i := m.index(start); i < len(m.entries) && int64(m.entries[i].start) < end; i++ {
			if !yield(m.at(i).clip(start, end)) {
				return
			}
		}
	}
}

// Stats is what a map costs to keep and to search.
type Stats struct {
	// Ranges is how many pieces the map has.
	Ranges int
	// Pages is how many pages the memory has, Zero how many of them are zero.
	Pages, Zero int64
	// Stored is how many pages each build keeps for this map.
	Stored map[string]int64
}

// Stats counts the ranges and pages of the map.
func (m *Map) Stats() Stats {
	s := Stats{Ranges: len(m.entries), Pages: m.pages, Stored: map[string]int64{}}
	for r := range m.Ranges() {
		if r.Zero() {
			s.Zero += r.Count
		} else {
			s.Stored[r.Build] += r.Count
		}
	}
	return s
}
