package pager

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"wrenn.dev/wrenn/internal/errs"
)

// maxSetPages bounds a working set: 4 GiB of memory that is needed at once.
const maxSetPages = 1 << 20

// The file of a working set, all numbers little-endian: a header of magic (8 bytes), version (4), number of pages (4) and size of the
// guest memory in bytes (8); the pages, 4 bytes each; and the CRC-32C of all before (4).
const (
	setMagic   = "wrennset"
	setVersion = 1
	setHeader  = 24
	setTrailer = 4
)

// The checksum is what makes an atomic rename enough: a file that a crash has torn is refused.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WorkingSet is which pages a machine needed first, in that order. A page is 4096 bytes; its number counts from the start of guest
// memory.
type WorkingSet struct {
	Memory uint64 // the size of guest memory
	Pages  []uint32
}

// check refuses pages outside of memory, and memory that page numbers cannot count.
func (s WorkingSet) check() error {
	switch {
	case len(s.Pages) > maxSetPages:
		return fmt.Errorf("working set of %d pages; at most %d: %w", len(s.Pages), maxSetPages, errs.ErrInvalid)
	case s.Memory%smallPage != 0 || s.Memory/smallPage > 1<<32:
		return fmt.Errorf("working set of a memory of %d bytes: %w", s.Memory, errs.ErrInvalid)
	}
	for _, p := range s.Pages {
		if uint64(p) >= s.Memory/smallPage {
			return fmt.Errorf("working set: page %d in a memory of %d bytes: %w", p, s.Memory, errs.ErrInvalid)
		}
	}
	return nil
}

// Encode writes the file. ErrInvalid for pages outside of memory.
func (s WorkingSet) Encode(w io.Writer) error {
	if err := s.check(); err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	b := bufio.NewWriterSize(io.MultiWriter(w, sum), 8<<10)
	head := make([]byte, setHeader)
	copy(head, setMagic)
	binary.LittleEndian.PutUint32(head[8:], setVersion)
	binary.LittleEndian.PutUint32(head[12:], uint32(len(s.Pages)))
	binary.LittleEndian.PutUint64(head[16:], s.Memory)
	_, _ = b.Write(head) // an error stays until Flush
	var page [4]byte
	for _, p := range s.Pages {
		binary.LittleEndian.PutUint32(page[:], p)
		_, _ = b.Write(page[:])
	}
	if err := b.Flush(); err != nil {
		return err
	}
	_, err := w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// DecodeWorkingSet reads a file of size bytes. ErrCorrupt when it is damaged or not one.
func DecodeWorkingSet(r io.Reader, size int64) (WorkingSet, error) {
	bad := func(problem string) (WorkingSet, error) {
		return WorkingSet{}, fmt.Errorf("working set: %s: %w", problem, errs.ErrCorrupt)
	}
	if size < setHeader+setTrailer || size > setHeader+4*maxSetPages+setTrailer {
		return bad(fmt.Sprintf("%d bytes", size))
	}
	sum := crc32.New(castagnoli)
	in := bufio.NewReaderSize(io.LimitReader(r, size), 8<<10)
	var head [setHeader]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return bad(err.Error())
	}
	sum.Write(head[:])
	count := binary.LittleEndian.Uint32(head[12:])
	switch {
	case !bytes.HasPrefix(head[:], []byte(setMagic)):
		return bad("it is something else")
	case binary.LittleEndian.Uint32(head[8:]) != setVersion:
		return bad(fmt.Sprintf("version %d; this reads %d", binary.LittleEndian.Uint32(head[8:]), setVersion))
	case size != setHeader+4*int64(count)+setTrailer:
		return bad(fmt.Sprintf("%d bytes for %d pages", size, count))
	}
	s := WorkingSet{Memory: binary.LittleEndian.Uint64(head[16:]), Pages: make([]uint32, count)}
	var word [4]byte
	for i := range s.Pages {
		if _, err := io.ReadFull(in, word[:]); err != nil {
			return bad(err.Error())
		}
		sum.Write(word[:])
		s.Pages[i] = binary.LittleEndian.Uint32(word[:])
	}
	if _, err := io.ReadFull(in, word[:]); err != nil || binary.LittleEndian.Uint32(word[:]) != sum.Sum32() {
		return bad("the checksum differs")
	}
	if err := s.check(); err != nil {
		return bad(err.Error())
	}
	return s, nil
}
