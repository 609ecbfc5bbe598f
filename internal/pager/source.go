package pager

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// source reads guest memory from the files.
//
// It reads into a buffer and has the kernel copy from there. Mapping the files would save that copy, but a mapping cannot tell what a
// read tells: a file that was cut short in the middle of a page maps as zeros there, an I/O error looks the same as a short file,
// and the page tables for all that was touched stay, uncounted, as large as one part in 512 of the memory. The copy of a page that
// is in the cache costs a fraction of the fault that it answers.
type source struct {
	layout Layout
	files  []*os.File // kept, as their descriptors are used
	fds    []int
}

// newSource checks the whole layout against the files: every extent must lie in its file. ErrInvalid for a layout that is wrong in
// itself, ErrCorrupt for a file that is too short.
func newSource(layout Layout, files []*os.File) (*source, error) {
	s := &source{layout: layout, files: files}
	sizes := make([]uint64, len(files))
	for i, f := range files {
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("memory file %d: %w", i, err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("memory file %s is not a regular file: %w", f.Name(), errs.ErrInvalid)
		}
		sizes[i] = uint64(info.Size())
		s.fds = append(s.fds, int(f.Fd()))
	}
	for at, size := uint64(0), layout.Size(); at < size; {
		e := layout.Find(at)
		if e.Length == 0 || e.Length > size-at || e.File >= len(files) || e.File < -1 || e.File >= 0 && e.Offset < 0 {
			return nil, fmt.Errorf("layout at %#x: file %d of %d, offset %d, length %d: %w", at, e.File, len(files), e.Offset, e.Length, errs.ErrInvalid)
		}
		if e.File >= 0 && (uint64(e.Offset) > sizes[e.File] || e.Length > sizes[e.File]-uint64(e.Offset)) {
			return nil, fmt.Errorf("memory file %s has %d bytes and the layout needs %d from %d on: %w",
				files[e.File].Name(), sizes[e.File], e.Length, e.Offset, errs.ErrCorrupt)
		}
		at += e.Length
	}
	return s, nil
}

// fill reads guest memory from an offset on into buf, whole. ErrCorrupt when a file ends too early.
func (s *source) fill(buf []byte, offset uint64) error {
	for len(buf) > 0 {
		e := s.layout.Find(offset)
		n := min(e.Length, uint64(len(buf)))
		if e.File < 0 {
			clear(buf[:n])
		} else if err := s.read(e.File, buf[:n], e.Offset); err != nil {
			return fmt.Errorf("guest memory at %#x: %w", offset, err)
		}
		buf, offset = buf[n:], offset+n
	}
	return nil
}

func (s *source) read(file int, buf []byte, at int64) error {
	for len(buf) > 0 {
		n, err := unix.Pread(s.fds[file], buf, at)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("memory file %s at %d: %w", s.files[file].Name(), at, err)
		case n == 0:
			return fmt.Errorf("memory file %s ends at or before %d: %w", s.files[file].Name(), at, errs.ErrCorrupt)
		}
		buf, at = buf[n:], at+int64(n)
	}
	return nil
}

// announce tells the kernel that a piece of guest memory will be read soon. It is a hint.
func (s *source) announce(offset, length uint64) {
	if e := s.layout.Find(offset); e.File >= 0 {
		_ = unix.Fadvise(s.fds[e.File], e.Offset, int64(min(e.Length, length)), unix.FADV_WILLNEED)
	}
}
