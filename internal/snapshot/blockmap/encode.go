package blockmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"wrenn.dev/wrenn/internal/errs"
)

// The encoding, byte by byte, is in docs/snapshot-format.md.
const (
	magic       = "WRENNMAP"
	version     = 1
	headerBytes = 32
	rangeBytes  = 16
)

// MaxEncoded is the length of the longest encoding in bytes.
const MaxEncoded = headerBytes + MaxBuilds*int64(idLength) + MaxRanges*rangeBytes + sha256.Size

// order of bytes in numbers: that of the machines this runs on, so that a dump reads like their memory.
var order = binary.LittleEndian

// Encode returns the map's only encoding.
func (m *Map) Encode() []byte {
	out := make([]byte, 0, encodedBytes(int64(len(m.builds)), int64(len(m.entries))))
	out = append(out, magic...)
	out = order.AppendUint32(out, version)
	out = order.AppendUint32(out, PageSize)
	out = order.AppendUint64(out, uint64(m.pages))
	out = order.AppendUint32(out, uint32(len(m.builds)))
	out = order.AppendUint32(out, uint32(len(m.entries)))
	for _, b := range m.builds {
		out = append(out, b...)
	}
	for i, e := range m.entries {
		out = order.AppendUint32(out, uint32(m.at(i).Count))
		out = order.AppendUint32(out, e.build)
		out = order.AppendUint64(out, uint64(e.offset))
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func encodedBytes(builds, ranges int64) int64 {
	return headerBytes + builds*int64(idLength) + ranges*rangeBytes + sha256.Size
}

// Read decodes a map from the whole of r, and reads no more of it than the longest map has.
func Read(r io.Reader) (*Map, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxEncoded+1))
	if err != nil {
		return nil, fmt.Errorf("read a block map: %w", err)
	}
	return Decode(data)
}

// Decode is the inverse of Encode. It accepts nothing else: what it takes, Encode gives back. Every failure is an
// errs.ErrCorrupt that says what is wrong.
func Decode(data []byte) (*Map, error) {
	m, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("block map: %w: %w", err, errs.ErrCorrupt)
	}
	return m, nil
}

func decode(data []byte) (*Map, error) {
	h, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	body := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
		return nil, fmt.Errorf("sha256 is %x, the trailer says %x", sum, data[len(body):])
	}
	ids, ranges := body[headerBytes:headerBytes+h.builds*int64(idLength)], body[headerBytes+h.builds*int64(idLength):]
	builds, err := decodeBuilds(ids)
	if err != nil {
		return nil, err
	}
	return decodeRanges(ranges, h.pages, builds)
}

// header is what the first bytes say of the rest.
type header struct{ pages, builds, ranges int64 }

// decodeHeader reads the header and checks that the rest has the length that it gives.
func decodeHeader(data []byte) (h header, err error) {
	if len(data) < headerBytes+sha256.Size {
		return h, fmt.Errorf("%d bytes are too few", len(data))
	}
	if got := string(data[:len(magic)]); got != magic {
		return h, fmt.Errorf("starts with %q, not %q", got, magic)
	}
	if v := order.Uint32(data[8:]); v != version {
		return h, fmt.Errorf("version %d; this program reads %d", v, version)
	}
	if n := order.Uint32(data[12:]); n != PageSize {
		return h, fmt.Errorf("pages of %d bytes, not %d", n, PageSize)
	}
	pages := order.Uint64(data[16:])
	if pages < 1 || pages > MaxPages {
		return h, fmt.Errorf("%d pages; want 1 to %d", pages, MaxPages)
	}
	h = header{int64(pages), int64(order.Uint32(data[24:])), int64(order.Uint32(data[28:]))}
	if h.builds > MaxBuilds || h.ranges < 1 || h.ranges > MaxRanges || h.ranges > h.pages {
		return h, fmt.Errorf("%d builds and %d ranges for %d pages", h.builds, h.ranges, h.pages)
	}
	if want := encodedBytes(h.builds, h.ranges); int64(len(data)) != want {
		return h, fmt.Errorf("%d bytes; the header says %d", len(data), want)
	}
	return h, nil
}

func decodeBuilds(ids []byte) ([]string, error) {
	var builds []string
	for ; len(ids) > 0; ids = ids[idLength:] {
		id := string(ids[:idLength])
		if err := CheckBuildID(id); err != nil {
			return nil, err
		}
		if n := len(builds); n > 0 && builds[n-1] >= id {
			return nil, fmt.Errorf("build %s after %s: not sorted", id, builds[n-1])
		}
		builds = append(builds, id)
	}
	return builds, nil
}

// decodeRanges reads the ranges, which must be the form that a builder gives them.
func decodeRanges(data []byte, pages int64, builds []string) (*Map, error) {
	b := &builder{pages: pages, entries: make([]entry, 0, len(data)/rangeBytes)}
	used := make([]bool, len(builds)+1)
	for i := 0; len(data) > 0; i, data = i+1, data[rangeBytes:] {
		count, n, raw := int64(order.Uint32(data)), order.Uint32(data[4:]), order.Uint64(data[8:])
		offset := int64(raw)
		switch {
		case count < 1 || count > pages-b.end:
			return nil, fmt.Errorf("range %d has %d pages from %d of %d", i, count, b.end, pages)
		case int64(n) > int64(len(builds)):
			return nil, fmt.Errorf("range %d is of build number %d of %d", i, n, len(builds))
		case n == 0 && raw != 0, n > 0 && !placed(offset, count):
			return nil, fmt.Errorf("range %d, %d pages of build number %d, is at byte %d", i, count, n, raw)
		case b.continues(n, offset):
			return nil, fmt.Errorf("range %d continues the one before it", i)
		}
		used[n] = true
		b.entries = append(b.entries, entry{start: uint32(b.end), build: n, offset: offset})
		b.end += count
	}
	if b.end != pages {
		return nil, fmt.Errorf("the ranges have %d pages of %d", b.end, pages)
	}
	for i, id := range builds {
		if !used[i+1] {
			return nil, fmt.Errorf("build %s has no range", id)
		}
	}
	return &Map{pages: pages, builds: builds, entries: b.entries}, nil
}
