// Package scan reads the memory file of a snapshot that Firecracker has just written, once, and tells which pages are of
// this generation: the changes for the block map and the digests for the manifest. It makes holes of the pages that need
// not be kept, so that they cost nothing.
//
// Diff is for a diff snapshot, where a page that Firecracker did not write is a hole; and for the first full one, since
// before it all memory is zero. Full is for a full snapshot of a machine that was started from a build: it compares every
// page with what the build has, and keeps those that differ.
package scan

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/snapshot/sparse"
)

// Report is what a scan found.
type Report struct {
	// Changes are the pages of this generation, for blockmap.Merge. Offsets in the file are those in the guest's memory.
	Changes []blockmap.Change
	// Chunks are the digests of the pages that are stored.
	Chunks []manifest.Chunk
	// Dirty is how many pages are of this generation, Zero how many of them are zero, Same how many pages were there and
	// equal to the parent's.
	Dirty, Zero, Same int64
}

// Stored is how many bytes of pages the file keeps.
func (r Report) Stored() int64 { return (r.Dirty - r.Zero) * blockmap.PageSize }

// PageReader gives the memory as the generation before left it. len(buf) is a multiple of the page size.
type PageReader interface {
	ReadPages(page int64, buf []byte) error
}

// zeroPage is what a page is compared with; bytes.Equal is the fastest compare that there is without assembly of our own.
var zeroPage = make([]byte, blockmap.PageSize)

// Diff scans a file in which a hole is a page that did not change. f must be writable and have so many pages. It fails with
// errs.ErrCorrupt for a file of another length, errs.ErrFailedPrecondition for a file system that can't tell a hole of one
// page, and errs.ErrResourceExhausted for changes in more pieces than two maps have. It ends between two chunks when ctx does; the file is then still whole.
func Diff(ctx context.Context, f *os.File, pages int64) (Report, error) {
	s, err := newScanner(f, pages)
	if err != nil {
		return Report{}, err
	}
	err = sparse.Walk(ctx, f, blockmap.PageSize, func(start, end int64) error { return s.span(ctx, start, end) })
	return s.finish(err)
}

// Full scans a file that has every page, and leaves out those that parent has too. Otherwise it is as Diff.
func Full(ctx context.Context, f *os.File, pages int64, parent PageReader) (Report, error) {
	s, err := newScanner(f, pages)
	if err != nil {
		return Report{}, err
	}
	s.parent, s.before = parent, make([]byte, manifest.ChunkSize)
	return s.finish(s.span(ctx, 0, pages*blockmap.PageSize))
}

// scanner is one pass over a file. Its memory does not grow with the file but for the report.
type scanner struct {
	f      *os.File
	buf    []byte     // the chunk at hand
	parent PageReader // nil for a diff
	before []byte     // the chunk at hand as parent has it

	report Report
	limit  int   // of changes
	chunk  int64 // offset of the chunk that sum and bytes are of
	sum    hash.Hash
	bytes  int64

	holeStart, holeEnd int64 // the run of pages to punch that is still growing
}

func newScanner(f *os.File, pages int64) (*scanner, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != pages*blockmap.PageSize {
		return nil, fmt.Errorf("%s has %d bytes; the machine's memory has %d pages: %w", f.Name(), info.Size(), pages, errs.ErrCorrupt)
	}
	if err := sparse.CheckGrain(f, blockmap.PageSize); err != nil {
		return nil, err
	}
	return &scanner{f: f, buf: make([]byte, manifest.ChunkSize), sum: sha256.New(), limit: 2 * blockmap.MaxRanges}, nil
}

// span scans the pages of [start, end), chunk by chunk.
func (s *scanner) span(ctx context.Context, start, end int64) error {
	for at := start; at < end; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		chunk := at / manifest.ChunkSize * manifest.ChunkSize
		if chunk != s.chunk {
			s.endChunk()
			s.chunk = chunk
		}
		if len(s.report.Changes) > s.limit {
			return fmt.Errorf("%s has over %d separate changes: %w", s.f.Name(), s.limit, errs.ErrResourceExhausted)
		}
		n := min(end, chunk+manifest.ChunkSize) - at
		if err := s.pages(at, s.buf[:n]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// pages reads and sorts the pages at one offset, all of one chunk.
func (s *scanner) pages(at int64, buf []byte) error {
	if _, err := s.f.ReadAt(buf, at); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter: %w", s.f.Name(), errs.ErrCorrupt)
	} else if err != nil {
		return err
	}
	if s.parent != nil {
		if err := s.parent.ReadPages(at/blockmap.PageSize, s.before[:len(buf)]); err != nil {
			return fmt.Errorf("compare %s with its parent: %w", s.f.Name(), err)
		}
	}
	for i := 0; i < len(buf); i += blockmap.PageSize {
		page, offset := buf[i:i+blockmap.PageSize], at+int64(i)
		zero := bytes.Equal(page, zeroPage)
		switch {
		case s.parent != nil && bytes.Equal(page, s.before[i:i+blockmap.PageSize]):
			s.report.Same++
		case zero:
			s.change(offset, true)
		default:
			s.change(offset, false)
			_, _ = s.sum.Write(page) // a hash never fails
			s.bytes += blockmap.PageSize
			continue
		}
		if err := s.hole(offset); err != nil {
			return err
		}
	}
	return nil
}

// change notes that the page at an offset is of this generation.
func (s *scanner) change(offset int64, zero bool) {
	s.report.Dirty++
	if zero {
		s.report.Zero++
	}
	page := offset / blockmap.PageSize
	if n := len(s.report.Changes); n > 0 {
		last := &s.report.Changes[n-1]
		if last.Zero == zero && last.Start+last.Count == page {
			last.Count++
			return
		}
	}
	c := blockmap.Change{Start: page, Count: 1, Zero: zero}
	if !zero {
		c.Offset = offset
	}
	s.report.Changes = append(s.report.Changes, c)
}

// hole notes that the page at an offset need not be kept; runs of such pages are punched together.
func (s *scanner) hole(offset int64) error {
	if offset == s.holeEnd {
		s.holeEnd += blockmap.PageSize
		return nil
	}
	err := s.punch()
	s.holeStart, s.holeEnd = offset, offset+blockmap.PageSize
	return err
}

func (s *scanner) punch() error {
	if s.holeEnd == s.holeStart {
		return nil
	}
	return sparse.Punch(s.f, s.holeStart, s.holeEnd-s.holeStart)
}

// endChunk gives the chunk at hand its digest, if anything of it is kept.
func (s *scanner) endChunk() {
	if s.bytes > 0 {
		s.report.Chunks = append(s.report.Chunks, manifest.Chunk{Offset: s.chunk, Bytes: s.bytes, SHA256: hex.EncodeToString(s.sum.Sum(nil))})
	}
	s.sum.Reset()
	s.bytes = 0
}

func (s *scanner) finish(err error) (Report, error) {
	if err != nil {
		return Report{}, err
	}
	s.endChunk()
	return s.report, s.punch()
}
