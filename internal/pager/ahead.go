package pager

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// prefetchBatch is how many pages of the working set are sorted and joined at a time. They were needed in that order, so a batch
	// is a compromise between the order and long runs: of some thousand pages hardly two neighbours are needed soon after each other.
	prefetchBatch = 1024
	// scanStep bounds how much of the layout is looked at without making a page.
	scanStep = 1024
)

// prefetch makes one run of the working set. Between two, faults are looked for.
func (s *server) prefetch() error {
	if len(s.runs) == 0 {
		s.nextBatch()
	}
	for len(s.runs) > 0 {
		n := s.runs[len(s.runs)-1]
		s.runs = s.runs[:len(s.runs)-1]
		if n = s.missing(n); n.count == 0 { // faults or removals were faster
			continue
		}
		made, err := s.make(n)
		s.stats.Prefetched += made
		if errors.Is(err, errHeld) {
			s.runs = append(s.runs, n)
		}
		n.r.ahead.setRange(n.first, n.first+n.count)
		return err
	}
	if len(s.set.ahead) == 0 {
		s.set.ahead = nil
		s.stats.PrefetchDone = true
		s.litter += maxLitter // the list may be the largest thing there is
	}
	return nil
}

// missing cuts off a run what need not be made: pages at its ends that are there or were taken away, and all from the first such
// page in its middle on. What is cut off in the middle and would be needed after all is left to a fault.
func (s *server) missing(n run) run {
	for n.count > 0 && !free(n.r, n.first, false) {
		n.first, n.count = n.first+1, n.count-1
	}
	for i := range n.count {
		if !free(n.r, n.first+i, false) {
			n.count = i
		}
	}
	return n
}

// nextBatch takes the next pages of the working set, joins neighbours to runs, and tells the kernel that they will be read. Runs are
// taken from the end, so they are put in backwards.
func (s *server) nextBatch() {
	batch := s.set.ahead[:min(prefetchBatch, len(s.set.ahead))]
	s.set.ahead = s.set.ahead[len(batch):]
	slices.Sort(batch)
	for _, number := range slices.Compact(batch) {
		offset := uint64(number) * smallPage
		i := slices.IndexFunc(s.regions, func(r *region) bool { return r.holds(offset) })
		if i < 0 {
			continue
		}
		r := s.regions[i]
		page := (offset - r.Offset) >> r.shift
		if !free(r, page, false) {
			continue
		}
		e := s.src.layout.Find(r.offset(page))
		n := run{r, page, 1, e.File < 0 && e.Length >= r.PageSize}
		if k := len(s.runs) - 1; k >= 0 && s.joins(s.runs[k], n) {
			s.runs[k].count++
		} else if k < 0 || s.runs[k] != n {
			s.runs = append(s.runs, n)
		}
	}
	slices.SortFunc(s.runs, func(a, b run) int { return cmp.Compare(b.r.offset(b.first), a.r.offset(a.first)) })
	for _, n := range slices.Backward(s.runs) {
		s.src.announce(n.r.offset(n.first), n.count<<n.r.shift)
	}
}

// joins says whether a run can follow another in one call.
func (s *server) joins(a, b run) bool {
	return a.r == b.r && a.first+a.count == b.first && a.zero == b.zero && (a.count+b.count)<<a.r.shift <= uint64(len(s.buf))
}

// cursor is how far the streaming has come.
type cursor struct {
	region int
	page   uint64
}

// stream makes the next run of what is in files and not there yet. Zeros need not be made: memory that is let go of is zero by itself.
func (s *server) stream() error {
	for range scanStep {
		if s.cursor.region == len(s.regions) {
			s.streaming = false
			if s.leave {
				return s.letGo()
			}
			return nil
		}
		r, page := s.regions[s.cursor.region], s.cursor.page
		if page >= r.pages {
			s.cursor = cursor{region: s.cursor.region + 1}
			continue
		}
		n, next := s.chunk(r, page)
		if n.count == 0 {
			s.cursor.page = next
			continue
		}
		made, err := s.make(n)
		s.stats.Streamed += made
		if err == nil {
			s.cursor.page = next
			s.src.announce(min(r.offset(next), s.src.layout.Size()-1), uint64(len(s.buf)))
		}
		return err
	}
	return nil
}

// chunk returns what to make from a page on, which may be nothing, and where to go on after it.
func (s *server) chunk(r *region, page uint64) (n run, next uint64) {
	if !free(r, page, false) {
		for next = page + 1; next < r.pages && next%64 != 0 && !free(r, next, false); next++ {
		}
		return run{}, next
	}
	e := s.src.layout.Find(r.offset(page))
	pages := e.Length >> r.shift
	switch {
	case pages == 0: // of more than one piece
		return run{r: r, first: page, count: 1}, page + 1
	case e.File < 0:
		return run{}, page + pages
	}
	end := min(page+pages, page+uint64(len(s.buf))>>r.shift, r.pages)
	for next = page + 1; next < end && free(r, next, false); next++ {
	}
	return run{r: r, first: page, count: next - page}, next
}

// letGo gives the memory back to the kernel: all that files hold is in, and the rest is zero, as is what will be taken away from now
// on.
func (s *server) letGo() error {
	for _, r := range s.regions {
		if err := s.mem.Unregister(r.Base, r.Size); errors.Is(err, unix.ESRCH) {
			return errGone
		} else if err != nil {
			return fmt.Errorf("let go of the memory at %#x: %w", r.Base, err)
		}
	}
	s.leaving = true
	return nil
}

// settled says whether no removal that began before the memory was let go of still waits for its message to be read. The machine
// keeps a copy of the descriptor, so closing ours would not wake its thread. The kernel refuses every call with EAGAIN as long as
// there is one, before it looks at anything else.
func (s *server) settled() (bool, error) {
	_, err := s.mem.Zero(s.regions[0].Base, s.regions[0].PageSize)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.ESRCH):
		return false, errGone
	}
	return true, nil
}
