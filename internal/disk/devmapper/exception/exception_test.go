package exception

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
)

// entry is one line of a store's table.
type entry struct{ old, kept uint64 }

// encode makes a store as the kernel would, with these entries whatever they say. Each chunk of data has the number of the
// device's chunk in it, plus one.
func encode(deviceBytes int64, entries []entry) []byte {
	b := make([]byte, StoreBytes(deviceBytes))
	for i, v := range []uint32{magic, 1, version, ChunkSectors} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	for i, e := range entries {
		at := (1+stride*(i/AreaChunks))*ChunkBytes + entryBytes*(i%AreaChunks)
		binary.LittleEndian.PutUint64(b[at:], e.old)
		binary.LittleEndian.PutUint64(b[at+8:], e.kept)
		if end := e.kept*ChunkBytes + 8; e.kept < uint64(len(b)/ChunkBytes) && end <= uint64(len(b)) {
			binary.LittleEndian.PutUint64(b[end-8:], e.old+1)
		}
	}
	return b
}

// kept gives chunks of the device places in the store in the kernel's order.
func kept(olds ...uint64) []entry {
	var list []entry
	next := uint64(2)
	for _, old := range olds {
		list = append(list, entry{old, next})
		if next++; next%stride == firstArea {
			next++
		}
	}
	return list
}

// collect walks a store and returns where each chunk of the device is.
func collect(b []byte, deviceBytes int64) (map[int64]int64, error) {
	return collectFrom(bytes.NewReader(b), int64(len(b)), deviceBytes)
}

func collectFrom(r io.ReaderAt, storeBytes, deviceBytes int64) (map[int64]int64, error) {
	found := map[int64]int64{}
	err := Walk(r, storeBytes, deviceBytes, func(run Run) error {
		if run.Chunks < 1 || run.Chunks > AreaChunks {
			return errors.New("a run is empty or too long")
		}
		for i := range run.Chunks {
			if _, twice := found[run.Old+i]; twice {
				return errors.New("a chunk comes twice")
			}
			found[run.Old+i] = run.New + i
		}
		return nil
	})
	return found, err
}

func TestWalkFindsWhatWasEncoded(t *testing.T) {
	for _, count := range []int{0, 1, 255, 256, 257, 511, 512, 513} {
		olds := make([]uint64, count)
		for i := range olds {
			olds[i] = uint64(count - 1 - i) // backwards: no runs
		}
		found, err := collect(encode(int64(count)*ChunkBytes, kept(olds...)), int64(count)*ChunkBytes)
		if err != nil || len(found) != count {
			t.Errorf("%d chunks: found %d, %v", count, len(found), err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		device := rapid.Int64Range(1, 1500).Draw(t, "chunks")
		olds := rapid.SliceOfNDistinct(rapid.Uint64Range(0, uint64(device-1)), 0, int(device), rapid.ID).Draw(t, "olds")
		if rapid.Bool().Draw(t, "sorted") {
			slices.Sort(olds)
		}
		want := map[int64]int64{}
		for _, e := range kept(olds...) {
			want[int64(e.old)] = int64(e.kept)
		}
		found, err := collect(encode(device*ChunkBytes, kept(olds...)), device*ChunkBytes)
		if err != nil || !maps.Equal(found, want) {
			t.Fatalf("found %v, %v; want %v", found, err, want)
		}
	})
}

func TestWalkJoinsRuns(t *testing.T) {
	olds := []uint64{7, 8, 9, 3, 4, 11}
	var runs []Run
	b := encode(20*ChunkBytes, kept(olds...))
	err := Walk(bytes.NewReader(b), int64(len(b)), 20*ChunkBytes, func(run Run) error { runs = append(runs, run); return nil })
	want := []Run{{7, 2, 3}, {3, 5, 2}, {11, 7, 1}}
	if err != nil || !slices.Equal(runs, want) {
		t.Errorf("runs %v, %v; want %v", runs, err, want)
	}
}

func TestWalkRefusesWhatTheKernelDoesNotWrite(t *testing.T) {
	const device = 600
	full := make([]uint64, 512)
	for i := range full {
		full[i] = uint64(i)
	}
	tests := map[string][]entry{
		"a chunk beyond the device":      {{device, 2}},
		"a chunk far beyond the device":  {{1 << 63, 2}},
		"a chunk twice":                  {{1, 2}, {1, 3}},
		"the header as data":             {{1, 1<<64 - 1}},
		"metadata as data":               {{1, 1}},
		"the next metadata as data":      {{1, 258}},
		"data beyond the store":          {{1, 1 + 3 + device}},
		"data where the bytes overflow":  {{1, 1 << 52}},
		"two chunks in one":              {{1, 2}, {2, 2}},
		"chunks that go back":            {{1, 3}, {2, 2}},
		"the kernel's count of a run":    {{1, 1<<56 | 2}},
		"a bad one in the second area":   append(kept(full[:256]...), entry{300, 2}),
		"the same in the second area":    append(kept(full[:256]...), entry{0, 259}),
		"an area that is full of itself": slices.Repeat([]entry{{0, 2}}, 256),
	}
	for name, entries := range tests {
		if _, err := collect(encode(device*ChunkBytes, entries), device*ChunkBytes); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := encode(512*ChunkBytes, kept(full...))
	for name, cut := range map[string]int{
		"no area after a full one": (1 + 2*stride) * ChunkBytes, "half an area": (1+stride)*ChunkBytes + 100,
		"only a header": ChunkBytes,
	} {
		if _, err := collect(b[:cut], 512*ChunkBytes); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Walk(bytes.NewReader(b), -1, 0, nil); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("a store of less than nothing: %v", err)
	}
}

func TestCheckHeader(t *testing.T) {
	good := encode(ChunkBytes, nil)
	if err := CheckHeader(bytes.NewReader(good)); err != nil {
		t.Error(err)
	}
	if string(good[:4]) != "SnAp" {
		t.Errorf("the magic is %q on disk", good[:4])
	}
	for at := range headerBytes {
		bad := bytes.Clone(good)
		bad[at] ^= 2
		if err := CheckHeader(bytes.NewReader(bad)); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	invalid := bytes.Clone(good)
	invalid[4] = 0
	for name, b := range map[string][]byte{"marked as invalid": invalid, "empty": nil, "cut off": good[:headerBytes-1]} {
		if err := CheckHeader(bytes.NewReader(b)); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// broken is a file on a failing drive.
type broken struct{ err error }

func (b broken) ReadAt([]byte, int64) (int, error) { return 0, b.err }

// TestErrorsKeepTheirKind: a drive that fails is not a corrupt store, and what the caller's function says comes back.
func TestErrorsKeepTheirKind(t *testing.T) {
	why := errors.New("the drive failed")
	if err := CheckHeader(broken{why}); !errors.Is(err, why) || errors.Is(err, errs.ErrCorrupt) {
		t.Error(err)
	}
	b := encode(3*ChunkBytes, kept(0, 2))
	for stop := range 2 {
		calls := 0
		err := Walk(bytes.NewReader(b), int64(len(b)), 3*ChunkBytes, func(Run) error {
			if calls++; calls > stop {
				return io.ErrClosedPipe
			}
			return nil
		})
		if !errors.Is(err, io.ErrClosedPipe) || calls != stop+1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	}
}

// table is a store whose header is right and whose metadata has these bytes; its data is zero and takes no memory.
type table []byte

// ReadAt implements io.ReaderAt.
func (t table) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	switch chunk := at / ChunkBytes; {
	case chunk == 0:
		copy(b, encode(0, nil))
	case chunk%stride == firstArea:
		if from := chunk / stride * ChunkBytes; from < int64(len(t)) {
			copy(b, t[from:])
		}
	}
	return len(b), nil
}

// FuzzWalk: whatever is in a store's table, no chunk that is named lies outside of the device or the store's data, none comes
// twice, and a refusal is ErrCorrupt.
func FuzzWalk(f *testing.F) {
	for _, entries := range [][]entry{nil, kept(0, 1, 3), {{1, 2}, {1, 3}}, {{3, 300}}} {
		var b []byte
		for _, e := range entries {
			b = binary.LittleEndian.AppendUint64(b, e.old)
			b = binary.LittleEndian.AppendUint64(b, e.kept)
		}
		f.Add(b, uint16(4))
		f.Add(b, uint16(900))
	}
	f.Fuzz(func(t *testing.T, entries []byte, chunks uint16) {
		deviceBytes := int64(chunks%1024) * ChunkBytes
		storeBytes := StoreBytes(deviceBytes)
		found, err := collectFrom(table(entries), storeBytes, deviceBytes)
		if err != nil && !errors.Is(err, errs.ErrCorrupt) {
			t.Fatal(err)
		}
		places := map[int64]bool{}
		for old, kept := range found {
			if old < 0 || old*ChunkBytes >= deviceBytes || kept < 2 || (kept+1)*ChunkBytes > storeBytes ||
				kept%stride == firstArea || places[kept] {
				t.Fatalf("chunk %d of %d bytes in chunk %d of %d bytes", old, deviceBytes, kept, storeBytes)
			}
			places[kept] = true
		}
	})
}

// FuzzCheckHeader: any header is right or ErrCorrupt.
func FuzzCheckHeader(f *testing.F) {
	f.Add(encode(0, nil)[:headerBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		err := CheckHeader(bytes.NewReader(b))
		if good := bytes.HasPrefix(b, encode(0, nil)[:headerBytes]); good != (err == nil) || err != nil && !errors.Is(err, errs.ErrCorrupt) {
			t.Fatalf("%x: %v", b, err)
		}
	})
}

// kernelStore does what the kernel's persistent store does when chunks are rewritten one after another, and notes the last
// chunk of the store that it touches.
func kernelStore(chunks int64) (last int64) {
	const header, stride = 1, AreaChunks + 1
	next := int64(header + 1) // after the header and the first area's metadata
	committed := int64(0)
	area := int64(0)
	last = header
	for range chunks {
		last = max(last, next)
		next++
		if next%stride == header {
			next++ // the chunk is an area's metadata
		}
		if committed++; committed == AreaChunks {
			committed, area = 0, area+1
			last = max(last, header+stride*area) // the next area's metadata is cleared
		}
	}
	return last
}

func TestStoreHoldsAFullRewrite(t *testing.T) {
	check := func(bytes int64) string {
		chunks := (bytes + ChunkBytes - 1) / ChunkBytes
		need := (kernelStore(chunks) + 1) * ChunkBytes
		switch got := StoreBytes(bytes); {
		case got < need:
			return "too small"
		case got > need:
			return "larger than needed"
		}
		return ""
	}
	for _, chunks := range []int64{1, 255, 256, 257, 511, 512, 513, 65536} {
		if bad := check(chunks * ChunkBytes); bad != "" {
			t.Errorf("%d chunks: %s", chunks, bad)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.Int64Range(1, 4<<30).Draw(t, "bytes")
		if bad := check(bytes); bad != "" {
			t.Fatal(bad)
		}
	})
}
