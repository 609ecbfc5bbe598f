package pager

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// run is pages that follow each other and are made alike.
type run struct {
	r            *region
	first, count uint64
	zero         bool
}

// fault answers one fault: it makes the page, and what is worth making with it, or finds that it is there and wakes who waits.
func (s *server) fault(addr uint64) error {
	r := s.region(addr)
	if r == nil {
		return fmt.Errorf("fault at %#x, outside of all regions: %w", addr, errs.ErrInvalid)
	}
	page := (addr - r.Base) >> r.shift
	there := r.present.get(page)
	if there && r.ahead != nil && r.ahead.get(page) {
		s.stats.PrefetchHits++
	}
	if _, err := s.make(s.plan(r, page)); err != nil {
		return err
	}
	if !there && !r.removed.get(page) {
		s.set.note(r.offset(page))
	}
	return nil
}

// plan says what to make when a page is touched: the page, and its neighbours in an aligned window as far as they come from the
// same place and are not there yet.
//
// While a record is made, file pages come alone: a page that came with its neighbour would never be known to be needed.
func (s *server) plan(r *region, page uint64) run {
	alone := run{r: r, first: page, count: 1, zero: r.removed.get(page)}
	window := s.around >> r.shift
	from := page &^ (max(window, 1) - 1)
	to := min(from+window, r.pages)
	if !alone.zero {
		e := s.src.layout.Find(r.offset(page))
		if e.Length < r.PageSize { // of more than one piece
			return alone
		}
		alone.zero = e.File < 0
		if s.set.on && !alone.zero {
			return alone
		}
		to = min(to, page+e.Length>>r.shift)
		from = s.extentFrom(r, from, page)
	}
	if window <= 1 || r.present.get(page) {
		return alone
	}
	first, end, gone := page, page+1, r.removed.get(page)
	for first > from && free(r, first-1, gone) {
		first--
	}
	for end < to && free(r, end, gone) {
		end++
	}
	return run{r, first, end - first, alone.zero}
}

// extentFrom returns the first whole page from a page on that lies in the same extent as the later page.
func (s *server) extentFrom(r *region, from, page uint64) uint64 {
	if page == from || r.present.get(page-1) { // the common case of a walk upwards: nothing to gain below
		return page
	}
	at, target := r.offset(from), r.offset(page)
	for at < target {
		e := s.src.layout.Find(at)
		if e.Length > target-at {
			break
		}
		at += e.Length
	}
	return (at - r.Offset + r.PageSize - 1) >> r.shift
}

// free says whether a page is missing and would be made in the same way: from the layout, or, once it was taken away, of zeros.
func free(r *region, page uint64, removed bool) bool {
	return !r.present.get(page) && r.removed.get(page) == removed
}

// make makes the pages of a run that are not there, and wakes who waits for any of them. It returns how many it made.
func (s *server) make(n run) (made uint64, err error) {
	var data []byte
	if !n.zero {
		data = s.buf[:n.count<<n.r.shift]
		s.large = s.large || len(data) > keepBytes
		if err := s.src.fill(data, n.r.offset(n.first)); err != nil {
			return 0, err
		}
	}
	tries := 0
	for done := uint64(0); done < n.count; {
		bytes, err := s.put(n, done, data)
		pages := bytes >> n.r.shift
		n.r.present.setRange(n.first+done, n.first+done+pages)
		made, done = made+pages, done+pages
		switch {
		case err == nil || errors.Is(err, unix.EAGAIN) && pages > 0:
		case errors.Is(err, unix.EAGAIN):
			if tries++; tries > heldTries {
				return made, errHeld
			}
			yield()
		case errors.Is(err, unix.EEXIST):
			n.r.present.set(n.first + done)
			s.stats.Exists++
			if err := s.mem.Wake(n.r.addr(n.first+done), n.r.PageSize); err != nil {
				return made, s.failed(n, done, err)
			}
			done++
		default:
			return made, s.failed(n, done, err)
		}
	}
	return made, nil
}

// put makes pages of a run from the one that is at index from on, as many as one call does.
func (s *server) put(n run, from uint64, data []byte) (bytes uint64, err error) {
	addr := n.r.addr(n.first + from)
	switch {
	case !n.zero:
		bytes, err = s.mem.Copy(addr, data[from<<n.r.shift:])
		s.stats.Copied += bytes >> n.r.shift
		s.stats.InBytes += bytes
	case n.r.PageSize == smallPage:
		bytes, err = s.mem.Zero(addr, (n.count-from)<<n.r.shift)
		s.stats.Zeroed += bytes >> n.r.shift
	default: // the kernel has no zero page of that size
		bytes, err = s.mem.Copy(addr, s.zeros)
		s.stats.Zeroed += bytes >> n.r.shift
	}
	return bytes, err
}

// failed says what an error of the kernel means.
func (s *server) failed(n run, index uint64, err error) error {
	switch {
	case errors.Is(err, unix.ESRCH):
		return errGone
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		err = fmt.Errorf("%w, which the machine did not register so: %w", err, errs.ErrInvalid)
	}
	return fmt.Errorf("make the page at %#x: %w", n.r.addr(n.first+index), err)
}
