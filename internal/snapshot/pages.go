package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
)

// maxOpen is how many memory files a PageReader keeps open: more than a map refers to before it is compacted. Only reads at
// the same time of still more builds go above it.
const maxOpen = 64

// PageReader reads a memory through its block map. It is safe for use by several goroutines.
type PageReader struct {
	blocks *blockmap.Map
	path   func(build string) string

	mu    sync.Mutex
	clock int64
	files map[string]*memoryFile // nil once closed
}

// memoryFile is an open file of one build.
type memoryFile struct {
	*os.File
	users int   // reads that go on
	used  int64 // when it was last asked for, by the reader's clock
}

// Pages returns a reader of the build's memory. The caller closes it.
func (b *Build) Pages() *PageReader {
	return &PageReader{blocks: b.Map, path: b.MemoryPath, files: map[string]*memoryFile{}}
}

// ReadPages fills buf, a whole number of pages, with the memory from a page on. It fails with errs.ErrInvalid for pages that
// the memory has not, and errs.ErrCorrupt when a file is shorter than it must be.
func (p *PageReader) ReadPages(page int64, buf []byte) error {
	count := int64(len(buf)) / blockmap.PageSize
	if len(buf)%blockmap.PageSize != 0 || page < 0 || count > p.blocks.Pages()-page {
		return fmt.Errorf("read %d bytes at page %d of %d: %w", len(buf), page, p.blocks.Pages(), errs.ErrInvalid)
	}
	for r := range p.blocks.Within(page, count) {
		part := buf[(r.Start-page)*blockmap.PageSize:][:r.Count*blockmap.PageSize]
		if r.Zero() {
			clear(part)
			continue
		}
		if err := p.read(r, part); err != nil {
			return fmt.Errorf("pages of build %s: %w", r.Build, err)
		}
	}
	return nil
}

func (p *PageReader) read(r blockmap.Range, part []byte) error {
	f, err := p.acquire(r.Build)
	if err != nil {
		return err
	}
	defer p.release(f)
	_, err = f.ReadAt(part, r.Offset)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s ends before byte %d: %w", f.Name(), r.Offset+int64(len(part)), errs.ErrCorrupt)
	}
	return err
}

// acquire returns the open file of a build; release gives it back.
func (p *PageReader) acquire(build string) (*memoryFile, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files == nil {
		return nil, os.ErrClosed
	}
	f, ok := p.files[build]
	if !ok {
		p.makeRoom()
		opened, err := os.OpenFile(p.path(build), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		f = &memoryFile{File: opened}
		p.files[build] = f
	}
	p.clock++
	f.users, f.used = f.users+1, p.clock
	return f, nil
}

func (p *PageReader) release(f *memoryFile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.users--
	if p.files == nil && f.users == 0 {
		f.Close()
	}
}

// makeRoom closes the file that was not asked for the longest, when there are too many. Preconditions: mu is held.
func (p *PageReader) makeRoom() {
	if len(p.files) < maxOpen {
		return
	}
	oldest := ""
	for build, f := range p.files {
		if f.users == 0 && (oldest == "" || f.used < p.files[oldest].used) {
			oldest = build
		}
	}
	if oldest != "" {
		p.files[oldest].Close()
		delete(p.files, oldest)
	}
}

// Close gives up the files; reads that go on end well. The reader can't be used afterwards.
func (p *PageReader) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, f := range p.files {
		if f.users == 0 {
			err = errors.Join(err, f.Close())
		}
	}
	p.files = nil
	return err
}
