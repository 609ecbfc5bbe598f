package blockmap

import (
	"fmt"
	"iter"
	"slices"

	"wrenn.dev/wrenn/internal/errs"
)

// Change is a run of pages that a generation wrote.
type Change struct {
	// Start is the first page, Count how many there are.
	Start, Count int64
	// Zero says that the pages are now all zero and kept nowhere.
	Zero bool
	// Offset is where in the new build's memory file the first page is, in bytes; without meaning when Zero.
	Offset int64
}

// Merge returns the map of the generation that build keeps: the pages of changes are where changes say, and a page that
// became zero is zero, whatever the parent has for it; all others are where the parent has them. The changes are in order
// and don't overlap. It fails with errs.ErrInvalid for changes that are not so, for a bad id and for a build that the parent
// refers to already, since a build never changes; and with errs.ErrResourceExhausted when the result would be too large.
func Merge(parent *Map, build string, changes iter.Seq[Change]) (*Map, error) {
	if err := CheckBuildID(build); err != nil {
		return nil, err
	}
	if slices.Contains(parent.builds, build) {
		return nil, fmt.Errorf("%s is in the parent's map: a new generation needs a new build: %w", build, errs.ErrInvalid)
	}
	b := newBuilder(parent.pages)
	for c := range changes {
		if err := c.check(b.end, parent.pages); err != nil {
			return nil, err
		}
		for r := range parent.Within(b.end, c.Start-b.end) {
			b.add(r.Count, r.Build, r.Offset)
		}
		if c.Zero {
			b.add(c.Count, "", 0)
		} else {
			b.add(c.Count, build, c.Offset)
		}
		if len(b.entries) > MaxRanges {
			break
		}
	}
	for r := range parent.Within(b.end, parent.pages-b.end) {
		b.add(r.Count, r.Build, r.Offset)
	}
	return b.finish()
}

// check tells whether a change may follow what ends before page end.
func (c Change) check(end, pages int64) error {
	switch {
	case c.Start < end || c.Count < 1 || c.Count > pages-c.Start:
		return fmt.Errorf("change of %d pages at %d of %d, after page %d: %w", c.Count, c.Start, pages, end, errs.ErrInvalid)
	case !c.Zero && !placed(c.Offset, c.Count):
		return fmt.Errorf("change of %d pages at %d is kept at byte %d: %w", c.Count, c.Start, c.Offset, errs.ErrInvalid)
	}
	return nil
}

// placed tells whether count pages may be at an offset of a memory file.
func placed(offset, count int64) bool {
	return offset >= 0 && offset%PageSize == 0 && offset/PageSize <= MaxPages-count
}

// builder makes the one form of a map from ranges that are added in order.
type builder struct {
	pages   int64
	end     int64 // the page after the last that was added
	entries []entry
	number  map[string]uint32 // of each build, by order of appearance, from 1
	builds  []string
}

func newBuilder(pages int64) *builder {
	return &builder{pages: pages, number: map[string]uint32{"": 0}}
}

// add appends count pages, and joins them to the last range when they continue it.
func (b *builder) add(count int64, build string, offset int64) {
	n, ok := b.number[build]
	if !ok {
		b.builds = append(b.builds, build)
		n = uint32(len(b.builds))
		b.number[build] = n
	}
	if !b.continues(n, offset) {
		b.entries = append(b.entries, entry{start: uint32(b.end), build: n, offset: offset})
	}
	b.end += count
}

// continues tells whether pages of build n at offset would be the last range's next.
func (b *builder) continues(n uint32, offset int64) bool {
	if len(b.entries) == 0 {
		return false
	}
	last := b.entries[len(b.entries)-1]
	return last.build == n && (n == 0 || offset == last.offset+(b.end-int64(last.start))*PageSize)
}

// finish checks the bounds and numbers the builds in the order of their ids.
func (b *builder) finish() (*Map, error) {
	if len(b.entries) > MaxRanges || len(b.builds) > MaxBuilds {
		return nil, fmt.Errorf("a map of over %d ranges or %d builds: compact the parent first: %w", MaxRanges, MaxBuilds, errs.ErrResourceExhausted)
	}
	sorted := slices.Sorted(slices.Values(b.builds))
	for i, e := range b.entries {
		if e.build > 0 {
			at, _ := slices.BinarySearch(sorted, b.builds[e.build-1])
			b.entries[i].build = uint32(at) + 1
		}
	}
	return &Map{pages: b.pages, builds: sorted, entries: slices.Clip(b.entries)}, nil
}
