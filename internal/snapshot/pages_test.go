package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/blockmap"
)

// manyBuilds is a reader of a memory whose every page is in another build.
func manyBuilds(t *testing.T) *PageReader {
	t.Helper()
	dir := t.TempDir()
	path := func(build string) string { return filepath.Join(dir, build) }
	m, err := blockmap.Zero(pages)
	if err != nil {
		t.Fatal(err)
	}
	for p := range int64(pages) {
		build := fmt.Sprintf("bd-%020d", p)
		if m, err = blockmap.Merge(m, build, slices.Values([]blockmap.Change{{Start: p, Count: 1}})); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(build), fill(uint64(p+1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &PageReader{blocks: m, path: path, files: map[string]*memoryFile{}}
}

func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && filepath.Dir(target) == dir {
			n++
		}
	}
	return n
}

func TestPageReaderBoundsItsFiles(t *testing.T) {
	p := manyBuilds(t)
	dir := filepath.Dir(p.path("x"))
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			buf := make([]byte, 3*pageSize)
			for page := i; page+3 <= pages; page++ {
				if err := p.ReadPages(int64(page), buf); err != nil {
					t.Error(err)
					return
				}
				want := slices.Concat(fill(uint64(page+1)), fill(uint64(page+2)), fill(uint64(page+3)))
				if !bytes.Equal(buf, want) {
					t.Errorf("pages from %d are wrong", page)
				}
			}
		})
	}
	readers.Wait()
	if n := openFiles(t, dir); n < 2 || n > maxOpen+4 {
		t.Errorf("%d files are open, want at most %d", n, maxOpen)
	}
	if err := p.Close(); err != nil || openFiles(t, dir) != 0 {
		t.Errorf("%d files are open after Close: %v", openFiles(t, dir), err)
	}
	if err := p.ReadPages(0, make([]byte, pageSize)); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func TestPageReaderRefuses(t *testing.T) {
	p := manyBuilds(t)
	defer p.Close()
	for _, c := range []struct{ page, bytes int64 }{{-1, pageSize}, {pages, pageSize}, {0, 100}, {pages - 1, 2 * pageSize}, {1 << 62, pageSize}} {
		if err := p.ReadPages(c.page, make([]byte, c.bytes)); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := p.ReadPages(0, nil); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(p.path(fmt.Sprintf("bd-%020d", 7)), 100); err != nil {
		t.Fatal(err)
	}
	if err := p.ReadPages(7, make([]byte, pageSize)); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a file that is cut off reads: %v", err)
	}
}
