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
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
	"wrenn.dev/wrenn/internal/sparse"
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
// errs.ErrCorrupt for a file of another length and errs.ErrFailedPrecondition for a file system that can't tell a hole of
// one page. It ends between two chunks when ctx does; the file is then still whole.
func Diff(ctx context.Context, f *os.File, pages int64) (Report, error) {
	if err := check(f, pages); err != nil {
		return Report{}, err
	}
	var tasks []task
	err := sparse.Walk(ctx, f, blockmap.PageSize, func(start, end int64) error {
		tasks = appendSpan(tasks, span{start, end})
		return nil
	})
	if err != nil {
		return Report{}, err
	}
	return run(ctx, f, tasks, nil, maxChanges)
}

// Full scans a file that has every page, and leaves out those that parent has too. Otherwise it is as Diff. The parent is asked by
// one goroutine at a time.
func Full(ctx context.Context, f *os.File, pages int64, parent PageReader) (Report, error) {
	if err := check(f, pages); err != nil {
		return Report{}, err
	}
	return run(ctx, f, appendSpan(nil, span{0, pages * blockmap.PageSize}), &locked{r: parent}, maxChanges)
}

func check(f *os.File, pages int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != pages*blockmap.PageSize {
		return fmt.Errorf("%s has %d bytes; the machine's memory has %d pages: %w", f.Name(), info.Size(), pages, errs.ErrCorrupt)
	}
	return sparse.CheckGrain(f, blockmap.PageSize)
}

// locked lets one goroutine at a time read.
type locked struct {
	mu sync.Mutex
	r  PageReader
}

// ReadPages reads from what is locked.
func (l *locked) ReadPages(page int64, buf []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.ReadPages(page, buf)
}

// span is a run of whole pages, in bytes.
type span struct{ start, end int64 }

// task is what is to be scanned of one chunk.
type task struct {
	chunk int64 // its offset
	spans []span
}

// appendSpan adds a span, cut at the borders of chunks.
func appendSpan(tasks []task, s span) []task {
	for at := s.start; at < s.end; {
		chunk := at / manifest.ChunkSize * manifest.ChunkSize
		end := min(s.end, chunk+manifest.ChunkSize)
		if n := len(tasks); n == 0 || tasks[n-1].chunk != chunk {
			tasks = append(tasks, task{chunk: chunk})
		}
		last := &tasks[len(tasks)-1]
		last.spans = append(last.spans, span{at, end})
		at = end
	}
	return tasks
}

// maxWorkers bounds how many chunks are hashed at once, each in up to two buffers of a chunk's size.
const maxWorkers = 8

// maxChanges bounds what a report may have of them: twice what a map takes, as a chunk's border may part one.
const maxChanges = 2 * blockmap.MaxRanges

// run scans the chunks, several at once, and puts what they gave together in their order.
func run(ctx context.Context, f *os.File, tasks []task, parent PageReader, limit int64) (Report, error) {
	parts := make([]part, len(tasks))
	var next, changes atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(maxWorkers, runtime.GOMAXPROCS(0), len(tasks)) {
		g.Go(func() error {
			s := newScanner(f, parent)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) {
					return nil
				}
				if err := context.Cause(ctx); err != nil {
					return err
				}
				p, err := s.scan(tasks[i])
				if err != nil {
					return err
				}
				if changes.Add(int64(len(p.report.Changes))) > limit {
					return fmt.Errorf("%s has over %d separate changes: %w", f.Name(), limit, errs.ErrResourceExhausted)
				}
				parts[i] = p
			}
		})
	}
	if err := g.Wait(); err != nil {
		return Report{}, err
	}
	return join(f, parts)
}

// part is what one chunk gave.
type part struct {
	report Report
	holes  []span // pages that need not be kept
}

// join puts parts together and makes the holes: runs that meet at a border as one.
func join(f *os.File, parts []part) (Report, error) {
	var all part
	for _, p := range parts {
		all.report.Dirty += p.report.Dirty
		all.report.Zero += p.report.Zero
		all.report.Same += p.report.Same
		all.report.Chunks = append(all.report.Chunks, p.report.Chunks...)
		for _, c := range p.report.Changes {
			all.report.add(c)
		}
		for _, h := range p.holes {
			all.hole(h)
		}
	}
	for _, h := range all.holes {
		if err := sparse.Punch(f, h.start, h.end-h.start); err != nil {
			return Report{}, err
		}
	}
	return all.report, nil
}

// add appends a change, or joins it to the last one.
func (r *Report) add(c blockmap.Change) {
	if n := len(r.Changes); n > 0 {
		last := &r.Changes[n-1]
		if last.Zero == c.Zero && last.Start+last.Count == c.Start {
			last.Count += c.Count
			return
		}
	}
	r.Changes = append(r.Changes, c)
}

func (p *part) hole(h span) {
	if n := len(p.holes); n > 0 && p.holes[n-1].end == h.start {
		p.holes[n-1].end = h.end
		return
	}
	p.holes = append(p.holes, h)
}

// scanner scans one chunk after another. Its memory does not grow with the file.
type scanner struct {
	f      *os.File
	parent PageReader // nil for a diff
	buf    []byte     // pages as they are
	before []byte     // the same as parent has them
	sum    hash.Hash
}

func newScanner(f *os.File, parent PageReader) *scanner {
	s := &scanner{f: f, parent: parent, buf: make([]byte, manifest.ChunkSize), sum: sha256.New()}
	if parent != nil {
		s.before = make([]byte, manifest.ChunkSize)
	}
	return s
}

// scan reads and sorts the pages of one chunk, and hashes those that are kept.
func (s *scanner) scan(t task) (p part, err error) {
	s.sum.Reset()
	kept := int64(0)
	for _, span := range t.spans {
		n, err := s.pages(span, &p)
		if err != nil {
			return part{}, err
		}
		kept += n
	}
	if kept > 0 {
		p.report.Chunks = []manifest.Chunk{{Offset: t.chunk, Bytes: kept, SHA256: hex.EncodeToString(s.sum.Sum(nil))}}
	}
	return p, nil
}

// pages reads and sorts the pages of a span, and returns how many bytes of them are kept.
func (s *scanner) pages(at span, p *part) (kept int64, err error) {
	buf := s.buf[:at.end-at.start]
	if _, err := s.f.ReadAt(buf, at.start); errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%s became shorter: %w", s.f.Name(), errs.ErrCorrupt)
	} else if err != nil {
		return 0, err
	}
	if s.parent != nil {
		if err := s.parent.ReadPages(at.start/blockmap.PageSize, s.before[:len(buf)]); err != nil {
			return 0, fmt.Errorf("compare %s with its parent: %w", s.f.Name(), err)
		}
	}
	for i := 0; i < len(buf); i += blockmap.PageSize {
		page, offset := buf[i:i+blockmap.PageSize], at.start+int64(i)
		c := blockmap.Change{Start: offset / blockmap.PageSize, Count: 1}
		switch {
		case s.parent != nil && bytes.Equal(page, s.before[i:i+blockmap.PageSize]):
			p.report.Same++
		case bytes.Equal(page, zeroPage):
			c.Zero = true
			p.report.Dirty++
			p.report.Zero++
			p.report.add(c)
		default:
			c.Offset = offset
			p.report.Dirty++
			p.report.add(c)
			_, _ = s.sum.Write(page) // a hash never fails
			kept += blockmap.PageSize
			continue
		}
		p.hole(span{offset, offset + blockmap.PageSize})
	}
	return kept, nil
}
