package pager

import (
	"encoding/json"
	"fmt"
	"math/bits"

	"wrenn.dev/wrenn/internal/errs"
)

// What a machine may say about its memory.
const (
	maxHello   = 64 << 10 // bytes of the message
	maxRegions = 64       // Firecracker has at most three, and one for virtio-mem
	// maxAddress is the end of what a process can have, on x86-64 with five levels of page tables.
	maxAddress = 1 << 56
)

// Region is a piece of guest memory in the address space of the machine's process.
type Region struct {
	Base     uint64 // its address there
	Size     uint64
	Offset   uint64 // where it begins in guest memory, which is what a Layout counts
	PageSize uint64 // 4096 or 2 MiB
}

// wireRegion is what Firecracker sends. Its page_size_kib holds bytes, too; up to 1.11 there is no page_size, and up to 1.6
// neither.
type wireRegion struct {
	Base        *uint64 `json:"base_host_virt_addr"`
	Size        *uint64 `json:"size"`
	Offset      *uint64 `json:"offset"`
	PageSize    uint64  `json:"page_size"`
	PageSizeKiB uint64  `json:"page_size_kib"`
}

// decodeRegions reads Firecracker's message and checks every number in it. Fields that it does not know are passed over. total is
// the size of guest memory. ErrInvalid when anything is wrong.
func decodeRegions(data []byte, total uint64) ([]Region, error) {
	var wire []wireRegion
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, fmt.Errorf("regions: %w: %w", err, errs.ErrInvalid)
	}
	if len(wire) == 0 || len(wire) > maxRegions {
		return nil, fmt.Errorf("%d regions; want 1 to %d: %w", len(wire), maxRegions, errs.ErrInvalid)
	}
	regions := make([]Region, 0, len(wire))
	for i, w := range wire {
		if w.Base == nil || w.Size == nil || w.Offset == nil {
			return nil, fmt.Errorf("region %d lacks its address, size or offset: %w", i, errs.ErrInvalid)
		}
		r := Region{Base: *w.Base, Size: *w.Size, Offset: *w.Offset, PageSize: w.PageSize}
		if r.PageSize == 0 {
			r.PageSize = w.PageSizeKiB
		}
		if r.PageSize == 0 {
			r.PageSize = smallPage
		}
		if err := r.check(total); err != nil {
			return nil, fmt.Errorf("region %d: %w", i, err)
		}
		for j, other := range regions {
			if r.Base < other.Base+other.Size && other.Base < r.Base+r.Size ||
				r.Offset < other.Offset+other.Size && other.Offset < r.Offset+r.Size {
				return nil, fmt.Errorf("regions %d and %d overlap: %w", j, i, errs.ErrInvalid)
			}
		}
		regions = append(regions, r)
	}
	return regions, nil
}

// check looks at one region alone. After it, no sum of its numbers overflows.
func (r Region) check(total uint64) error {
	switch {
	case r.PageSize != smallPage && r.PageSize != hugePage:
		return fmt.Errorf("pages of %d bytes: %w", r.PageSize, errs.ErrInvalid)
	case (r.Base|r.Size|r.Offset)%r.PageSize != 0:
		return fmt.Errorf("address %#x, size %#x, offset %#x with pages of %#x: %w", r.Base, r.Size, r.Offset, r.PageSize, errs.ErrInvalid)
	case r.Base == 0 || r.Base >= maxAddress || r.Size > maxAddress-r.Base:
		return fmt.Errorf("address %#x, size %#x: %w", r.Base, r.Size, errs.ErrInvalid)
	case r.Size == 0 || r.Offset > total || r.Size > total-r.Offset:
		return fmt.Errorf("offset %#x, size %#x in a memory of %#x: %w", r.Offset, r.Size, total, errs.ErrInvalid)
	}
	return nil
}

// region is a Region with what is known of its pages.
type region struct {
	Region
	shift uint // log2 of the page size
	pages uint64
	// present: made, and not taken away since. It may lag behind a removal that is under way, so it never stands in for an answer.
	present bitmap
	// removed: taken away at some time, so that its content is zero whenever it is missing. It stays set: that is what bounds the
	// memory a flood of removals costs.
	removed bitmap
	// ahead: made by a prefetch. nil without one.
	ahead bitmap
}

func newRegion(r Region, prefetch bool) *region {
	pages := r.Size / r.PageSize
	n := &region{Region: r, shift: uint(bits.TrailingZeros64(r.PageSize)), pages: pages, present: newBitmap(pages), removed: newBitmap(pages)}
	if prefetch {
		n.ahead = newBitmap(pages)
	}
	return n
}

func (r *region) has(addr uint64) bool { return addr >= r.Base && addr-r.Base < r.Size }

// holds says whether an offset in guest memory falls in it.
func (r *region) holds(offset uint64) bool { return offset >= r.Offset && offset-r.Offset < r.Size }

func (r *region) addr(page uint64) uint64 { return r.Base + page<<r.shift }

func (r *region) offset(page uint64) uint64 { return r.Offset + page<<r.shift }

// take notes that [start, end) is being taken away, as far as it lies in the region. A page of which only a part is named stays: the
// kernel removes whole pages.
func (r *region) take(start, end uint64) (pages uint64) {
	start, end = max(start, r.Base), min(end, r.Base+r.Size)
	if start >= end {
		return 0
	}
	from, to := (start-r.Base+r.PageSize-1)>>r.shift, (end-r.Base)>>r.shift
	if from >= to {
		return 0
	}
	r.removed.setRange(from, to)
	r.present.clearRange(from, to)
	return to - from
}
