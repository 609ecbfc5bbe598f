// Package exception reads the file in which dm-snapshot keeps the changes of a disk: what the kernel calls a persistent
// exception store. It reads it without the kernel, so that a frozen disk can be looked at where there is no device-mapper.
//
// # The format
//
// Its source is the kernel's drivers/md/dm-snap-persistent.c. All numbers are little-endian. The unit is the chunk; a header
// names its size, and 4096 bytes is the only one that our driver makes and this package takes.
//
//	chunk 0          the header: u32 magic "SnAp", u32 valid, u32 version, u32 sectors a chunk; then nothing
//	chunk 1          the metadata of area 0: 256 entries of {u64 old chunk, u64 new chunk}
//	chunks 2 to 257  the data of area 0
//	chunk 258        the metadata of area 1, and so on: an area every 257 chunks
//
// An entry says that the chunk "old" of the device is kept in the chunk "new" of the store; a chunk that no entry names is
// the base's. The table ends at the first entry whose new chunk is 0. An area that is full has another one after it, which the
// kernel clears before it writes the last entry, so that the end is always there.
//
// The kernel hands data chunks out in ascending order and commits them in that order (both since Linux 3.14), and goes on
// after the highest one when it reads a store again. The new chunks therefore rise through the whole table, and a device's
// chunk has one entry. What says otherwise was not written by the kernel, and is refused.
//
// The header's valid flag is cleared when a write was lost; such a store is refused too.
//
// It is a leaf package.
package exception

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"wrenn.dev/wrenn/internal/errs"
)

// The sizes of the format with our size of chunk.
const (
	ChunkBytes   = 4096
	ChunkSectors = ChunkBytes / 512
	AreaChunks   = ChunkBytes / entryBytes // data chunks an area

	entryBytes = 16
	stride     = 1 + AreaChunks // from one area's metadata to the next one's
	firstArea  = 1              // the chunk after the header
)

// What a header says.
const (
	magic       = 0x70416e53 // "SnAp"
	version     = 1
	headerBytes = 16
)

// StoreBytes is the size of a store that a device of this size can't overflow although every chunk of it is rewritten.
//
// The kernel clears the next area's metadata as soon as an area is full, so there is one metadata chunk more than areas
// full of data: without it, the very last write would fail.
func StoreBytes(deviceBytes int64) int64 {
	chunks := (deviceBytes + ChunkBytes - 1) / ChunkBytes
	areas := chunks/AreaChunks + 1
	return (1 + areas + chunks) * ChunkBytes
}

// CheckHeader reads a store's header. ErrCorrupt when it is none, one of another version or size of chunk, or one that the
// kernel has marked as invalid because it lost a write.
func CheckHeader(r io.ReaderAt) error {
	var b [headerBytes]byte
	if err := readAt(r, b[:], 0); err != nil {
		return err
	}
	field := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	switch {
	case field(0) != magic:
		return corrupt("it starts with %#x and is no store of dm-snapshot", field(0))
	case field(1) != 1:
		return corrupt("its valid flag is %d: it lost a write", field(1))
	case field(2) != version:
		return corrupt("it is of version %d, not %d", field(2), version)
	case field(3) != ChunkSectors:
		return corrupt("its chunks have %d sectors, not %d", field(3), ChunkSectors)
	}
	return nil
}

// Run is consecutive chunks of the device that are kept in consecutive chunks of the store.
type Run struct {
	// Old is the first chunk's number on the device, New in the store.
	Old, New int64
	// Chunks is how many there are, at least 1 and at most AreaChunks.
	Chunks int64
}

// Walk checks the header of a store of storeBytes and gives fn every chunk that it keeps of a device of deviceBytes, in runs,
// each chunk of the device once. It uses memory for one bit a chunk of the device. ErrCorrupt when the store says anything
// that the kernel would not have written; what fn was given before that is no good either. An error of fn ends it.
func Walk(r io.ReaderAt, storeBytes, deviceBytes int64, fn func(Run) error) error {
	if storeBytes < 0 || deviceBytes < 0 {
		return fmt.Errorf("a store of %d bytes for a device of %d: %w", storeBytes, deviceBytes, errs.ErrInvalid)
	}
	if err := CheckHeader(r); err != nil {
		return err
	}
	device := (uint64(deviceBytes) + ChunkBytes - 1) / ChunkBytes
	w := walk{r: r, chunks: uint64(storeBytes) / ChunkBytes, device: device, seen: make([]uint64, device/64+1), last: firstArea}
	for area := uint64(0); ; area++ {
		if full, err := w.area(area, fn); err != nil || !full {
			return err
		}
	}
}

// walk is a Walk under way.
type walk struct {
	r      io.ReaderAt
	chunks uint64   // of the store
	device uint64   // chunks of the device
	seen   []uint64 // a bit for each chunk of the device
	last   uint64   // the highest chunk of the store so far
}

// area reads one area's metadata, gives its runs to fn and says whether it is full, so that there is another.
func (w *walk) area(number uint64, fn func(Run) error) (full bool, err error) {
	at := firstArea + stride*number
	if at >= w.chunks {
		return false, corrupt("its table goes on beyond its end, at chunk %d of %d", at, w.chunks)
	}
	var table [ChunkBytes]byte
	if err := readAt(w.r, table[:], int64(at)*ChunkBytes); err != nil {
		return false, err
	}
	var run Run
	for b := table[:]; len(b) > 0; b = b[entryBytes:] {
		old, kept := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		if kept == 0 {
			return false, flush(run, fn)
		}
		if err := w.check(old, kept); err != nil {
			return false, err
		}
		if run.Chunks > 0 && int64(old) == run.Old+run.Chunks && int64(kept) == run.New+run.Chunks {
			run.Chunks++
			continue
		}
		if err := flush(run, fn); err != nil {
			return false, err
		}
		run = Run{Old: int64(old), New: int64(kept), Chunks: 1}
	}
	return true, flush(run, fn)
}

// check refuses an entry that the kernel would not have written after those before it.
func (w *walk) check(old, kept uint64) error {
	switch {
	case old >= w.device:
		return corrupt("it keeps chunk %d of a device of %d", old, w.device)
	case w.seen[old/64]&(1<<(old%64)) != 0:
		return corrupt("it keeps chunk %d twice", old)
	case kept >= w.chunks:
		return corrupt("it keeps a chunk in chunk %d of %d", kept, w.chunks)
	case kept <= w.last:
		return corrupt("it keeps a chunk in chunk %d, after chunk %d", kept, w.last)
	case kept%stride == firstArea:
		return corrupt("it keeps a chunk in chunk %d, which is metadata", kept)
	}
	w.seen[old/64] |= 1 << (old % 64)
	w.last = kept
	return nil
}

func flush(run Run, fn func(Run) error) error {
	if run.Chunks == 0 {
		return nil
	}
	return fn(run)
}

// readAt fills b. A store that ends before is corrupt.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case errors.Is(err, io.EOF):
		return corrupt("it ends within %d bytes at %d", len(b), at)
	}
	return fmt.Errorf("exception store: %w", err)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("exception store: "+format+": %w", append(args, errs.ErrCorrupt)...)
}
