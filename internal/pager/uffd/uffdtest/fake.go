package uffdtest

import (
	"encoding/binary"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/pager/uffd"
)

// Range is memory that is registered with a Fake.
type Range struct{ Start, Length, PageSize uint64 }

// Fake is memory that faults, in a map. It implements uffd.Memory and, when its first range has pages of 4096 bytes, Machine. It is
// safe for use by several goroutines.
type Fake struct {
	fd int // an eventfd that is readable while there are messages

	mu       sync.Mutex
	ranges   []Range
	let      map[uint64]bool   // ranges let go of, by start
	pages    map[uint64][]byte // by address; what is not in it is missing
	waiting  map[uint64][]touch
	faults   []uffd.Msg
	removals []removal // not read yet
	pending  []removal // read, but the thread that waits for it has not run yet
	copies   int       // calls of Copy that made a page
	gone     bool
}

// touch is a thread that waits for a byte of a page.
type touch struct {
	at uint64
	c  chan byte
}

type removal struct {
	uffd.Msg
	done chan struct{}
}

// NewFake makes the ranges' memory, all missing.
func NewFake(ranges ...Range) (*Fake, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Fake{fd: fd, ranges: ranges, let: map[uint64]bool{}, pages: map[uint64][]byte{}, waiting: map[uint64][]touch{}}, nil
}

// Memory implements Machine.
func (f *Fake) Memory() uffd.Memory { return f }

// Base implements Machine.
func (f *Fake) Base() uint64 { return f.ranges[0].Start }

// Touch implements Machine.
func (f *Fake) Touch(page int) <-chan byte { return f.TouchAt(f.Base() + uint64(page)*Page) }

// TouchAt is Touch by address.
func (f *Fake) TouchAt(addr uint64) <-chan byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan byte, 1)
	r := f.rangeOf(addr)
	switch page := f.pages[addr&^(r.PageSize-1)]; {
	case page != nil:
		c <- page[addr&(r.PageSize-1)]
	case f.let[r.Start]:
		c <- 0
	default:
		at := addr & (r.PageSize - 1)
		addr -= at
		f.waiting[addr] = append(f.waiting[addr], touch{at, c})
		f.faults = append(f.faults, uffd.Msg{Kind: uffd.Fault, Start: addr, FD: -1})
		f.signal()
	}
	return c
}

// Inject puts a message in by hand, ahead of the others.
func (f *Fake) Inject(msg uffd.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = slices.Insert(f.faults, 0, msg)
	f.signal()
}

// Remove implements Machine.
func (f *Fake) Remove(page, n int) <-chan struct{} {
	start := f.Base() + uint64(page)*Page
	return f.RemoveAt(start, start+uint64(n)*Page)
}

// RemoveAt is Remove by address.
func (f *Fake) RemoveAt(start, end uint64) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := removal{uffd.Msg{Kind: uffd.Remove, Start: start, End: end, FD: -1}, make(chan struct{})}
	f.removals = append(f.removals, r)
	f.signal()
	return r.done
}

// Kill ends the process whose memory it is: every later call fails with ESRCH.
func (f *Fake) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
}

// Page returns what is in the page at an address, nil when it is missing, and how many calls of Copy made pages so far.
func (f *Fake) Page(addr uint64) (content []byte, copies int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pages[addr], f.copies
}

// Waiting says whether a removal is under way. A thread that removes waits until none is.
func (f *Fake) Waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.removals) == 0 {
		_ = f.changing()
	}
	return len(f.removals)+len(f.pending) > 0
}

func (f *Fake) rangeOf(addr uint64) *Range {
	for i, r := range f.ranges {
		if addr >= r.Start && addr < r.Start+r.Length {
			return &f.ranges[i]
		}
	}
	return nil
}

// signal makes the eventfd readable exactly while there are messages. Preconditions: mu is held.
func (f *Fake) signal() {
	var b [8]byte
	_, _ = unix.Read(f.fd, b[:])
	if len(f.faults)+len(f.removals) > 0 {
		binary.NativeEndian.PutUint64(b[:], 1)
		_, _ = unix.Write(f.fd, b[:])
	}
}

// FD implements uffd.Memory.
func (f *Fake) FD() int { return f.fd }

// Close implements uffd.Memory.
func (f *Fake) Close() error { return unix.Close(f.fd) }

// Read implements uffd.Memory.
func (f *Fake) Read(msgs []uffd.Msg) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.signal()
	n := copy(msgs, f.faults)
	f.faults = f.faults[n:]
	for n < len(msgs) && len(f.removals) > 0 {
		msgs[n] = f.removals[0].Msg
		f.pending = append(f.pending, f.removals[0])
		f.removals = f.removals[1:]
		n++
	}
	if n == 0 {
		return 0, unix.EAGAIN
	}
	return n, nil
}

// changing is what the kernel checks first. A removal that was read holds up one more call; then its thread runs.
// Preconditions: mu is held.
func (f *Fake) changing() error {
	switch {
	case f.gone:
		return unix.ESRCH
	case len(f.removals) > 0:
		return unix.EAGAIN
	case len(f.pending) == 0:
		return nil
	}
	for _, r := range f.pending {
		for addr := range f.pages {
			if addr >= r.Start && addr < r.End {
				delete(f.pages, addr)
			}
		}
		close(r.done)
	}
	f.pending = nil
	return unix.EAGAIN
}

// Copy implements uffd.Memory.
func (f *Fake) Copy(dst uint64, src []byte) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.fill(dst, uint64(len(src)), func(at, size uint64) []byte { return slices.Clone(src[at : at+size]) })
	if n > 0 {
		f.copies++
	}
	return n, err
}

// Zero implements uffd.Memory.
func (f *Fake) Zero(dst, length uint64) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.rangeOf(dst); r != nil && r.PageSize != Page {
		return 0, unix.EINVAL
	}
	return f.fill(dst, length, func(_, size uint64) []byte { return make([]byte, size) })
}

// fill makes the pages from dst on. Preconditions: mu is held.
func (f *Fake) fill(dst, length uint64, content func(at, size uint64) []byte) (uint64, error) {
	if err := f.changing(); err != nil {
		return 0, err
	}
	r := f.rangeOf(dst)
	switch {
	case r == nil || dst+length > r.Start+r.Length || f.let[r.Start]:
		return 0, unix.ENOENT
	case length == 0 || dst%r.PageSize != 0 || length%r.PageSize != 0:
		return 0, unix.EINVAL
	}
	for at := uint64(0); at < length; at += r.PageSize {
		if f.pages[dst+at] != nil {
			if at == 0 {
				return 0, unix.EEXIST
			}
			return at, unix.EAGAIN
		}
		f.pages[dst+at] = content(at, r.PageSize)
		for _, w := range f.waiting[dst+at] {
			w.c <- f.pages[dst+at][w.at]
		}
		delete(f.waiting, dst+at)
	}
	return length, nil
}

// Wake implements uffd.Memory.
func (f *Fake) Wake(start, length uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr, waiting := range f.waiting {
		if addr < start || addr >= start+length {
			continue
		}
		if page := f.pages[addr]; page != nil {
			for _, w := range waiting {
				w.c <- page[w.at]
			}
			delete(f.waiting, addr)
			continue
		}
		for range waiting {
			f.faults = append(f.faults, uffd.Msg{Kind: uffd.Fault, Start: addr, FD: -1})
		}
	}
	f.signal()
	return nil
}

// Unregister implements uffd.Memory.
func (f *Fake) Unregister(start, length uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return unix.ESRCH
	}
	for _, r := range f.ranges {
		if r.Start >= start && r.Start+r.Length <= start+length {
			f.let[r.Start] = true
		}
	}
	for addr, waiting := range f.waiting {
		if addr >= start && addr < start+length {
			for _, w := range waiting {
				w.c <- 0
			}
			delete(f.waiting, addr)
		}
	}
	return nil
}
