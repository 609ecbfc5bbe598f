// Package pagertest has what a pager needs to be tried out without a machine: memory in files with a layout, a process that behaves
// towards a pager as Firecracker does, a process that is a pager, and a plain loop to compare with.
//
// Tests and bench programs use it. A program that does calls Main first of all: the processes are the program itself, started again.
package pagertest

import (
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"

	"wrenn.dev/wrenn/internal/pager"
)

// Page is the page size that everything here counts in.
const Page = 4096

// Piece is an extent and where in guest memory it begins.
type Piece struct {
	At uint64
	pager.Extent
}

// Pieces is a layout: pieces in order and without gaps. It implements pager.Layout.
type Pieces []Piece

// Find implements pager.Layout.
func (p Pieces) Find(offset uint64) pager.Extent {
	i := sort.Search(len(p), func(i int) bool { return p[i].At > offset }) - 1
	e, into := p[i].Extent, offset-p[i].At
	e.Length -= into
	if e.File >= 0 {
		e.Offset += int64(into)
	}
	return e
}

// Size implements pager.Layout.
func (p Pieces) Size() uint64 {
	if len(p) == 0 {
		return 0
	}
	last := p[len(p)-1]
	return last.At + last.Length
}

// Memory is guest memory in files.
type Memory struct {
	Layout Pieces
	Paths  []string
}

// Random makes memory of so many pages in a folder: files with random bytes, and pieces of 1 to longest pages from them, one in
// four of zeros. The same seed gives the same memory.
func Random(dir string, pages, files, longest int, seed uint64) (Memory, error) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	var m Memory
	ends := make([]int64, files)
	for at := 0; at < pages; {
		n := min(1+rnd.IntN(longest), pages-at)
		e := pager.Extent{File: -1, Length: uint64(n) * Page}
		if rnd.IntN(4) > 0 {
			e.File = rnd.IntN(files)
			e.Offset = ends[e.File]
			ends[e.File] += int64(n) * Page
		}
		m.Layout = append(m.Layout, Piece{uint64(at) * Page, e})
		at += n
	}
	for i, size := range ends {
		path := filepath.Join(dir, fmt.Sprintf("memory-%d-%d", seed, i))
		m.Paths = append(m.Paths, path)
		if err := randomFile(path, size, rand.NewChaCha8([32]byte{byte(seed), byte(i)})); err != nil {
			return Memory{}, err
		}
	}
	return m, nil
}

// Flat makes memory of so many pages in a folder that is one file.
func Flat(dir string, pages int, seed uint64) (Memory, error) {
	path := filepath.Join(dir, fmt.Sprintf("flat-%d", seed))
	size := uint64(pages) * Page
	m := Memory{Pieces{{0, pager.Extent{Length: size}}}, []string{path}}
	return m, randomFile(path, int64(size), rand.NewChaCha8([32]byte{byte(seed)}))
}

func randomFile(path string, size int64, random io.Reader) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	_, err = io.CopyN(f, random, size)
	return err
}

// Open opens the files.
func (m Memory) Open() ([]*os.File, error) {
	var files []*os.File
	for _, path := range m.Paths {
		f, err := os.Open(path)
		if err != nil {
			CloseAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// Sums returns the checksum of each page of the memory, which is what a Victim reports, too.
func (m Memory) Sums() ([]uint32, error) {
	files, err := m.Open()
	if err != nil {
		return nil, err
	}
	defer CloseAll(files)
	sums := make([]uint32, 0, m.Layout.Size()/Page)
	buf := make([]byte, Page)
	for at := uint64(0); at < m.Layout.Size(); at += Page {
		e := m.Layout.Find(at)
		clear(buf)
		if e.File >= 0 {
			if _, err := files[e.File].ReadAt(buf, e.Offset); err != nil {
				return nil, err
			}
		}
		sums = append(sums, Sum(buf))
	}
	return sums, nil
}

// Sum is the checksum of a page.
func Sum(page []byte) uint32 { return crc32.ChecksumIEEE(page) }
