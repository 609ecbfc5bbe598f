package blockmap

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

// example is the map of the example in docs/snapshot-format.md.
func example(t testing.TB) *Map {
	a := merge(t, zero(t, 256), buildA, Change{Start: 0, Count: 16, Offset: 0})
	return merge(t, a, buildB, Change{Start: 4, Count: 2, Offset: 4 * PageSize}, Change{Start: 8, Count: 1, Zero: true})
}

func TestDocumentedExample(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/snapshot-format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(doc), "```hex block map\n")
	if !ok {
		t.Fatal("the document has no example of a block map")
	}
	block, _, _ = strings.Cut(block, "```")
	var text strings.Builder
	for _, m := range regexp.MustCompile(`(?m)^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)`).FindAllStringSubmatch(block, -1) {
		text.WriteString(strings.ReplaceAll(m[1], " ", ""))
	}
	want := example(t).Encode()
	got, err := hex.DecodeString(text.String())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the document's example is not what the encoder writes (%v); want\n%s", err, hex.Dump(want))
	}
}

// reseal gives changed bytes a right checksum, so that the checks behind it are reached.
func reseal(data []byte) []byte {
	body := data[:len(data)-sha256.Size]
	sum := sha256.Sum256(body)
	return append(slices.Clone(body), sum[:]...)
}

func TestDecodeRefuses(t *testing.T) {
	good := example(t).Encode()
	ranges := headerBytes + 2*idLength
	set := func(at int, value uint64, size int) func([]byte) []byte {
		return func(b []byte) []byte {
			for i := range size {
				b[at+i] = byte(value >> (8 * i))
			}
			return reseal(b)
		}
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		says   string
	}{
		"empty":           {func([]byte) []byte { return nil }, "too few"},
		"magic":           {set(0, 'X', 1), "starts with"},
		"version":         {set(8, 2, 4), "version 2"},
		"page size":       {set(12, 8192, 4), "8192 bytes"},
		"no pages":        {set(16, 0, 8), "0 pages"},
		"huge":            {set(16, 1<<63, 8), "pages; want"},
		"pages too many":  {set(16, 257, 8), "256 pages of 257"},
		"many builds":     {set(24, 1<<31, 4), "builds and"},
		"many ranges":     {set(28, 1<<31, 4), "ranges for"},
		"one range less":  {set(28, 5, 4), "the header says"},
		"id":              {set(headerBytes, '/', 1), "build id"},
		"order of ids":    {set(headerBytes+3, 'c', 1), "not sorted"},
		"empty range":     {set(ranges, 0, 4), "range 0 has 0 pages"},
		"long range":      {set(ranges, 1000, 4), "range 0 has 1000"},
		"build number":    {set(ranges+4, 3, 4), "build number 3"},
		"not aligned":     {set(ranges+8, 1, 8), "at byte 1"},
		"offset negative": {set(ranges+8, 1<<63, 8), "at byte"},
		"zero has place":  {set(len(good)-sha256.Size-8, PageSize, 8), "at byte 4096"},
		"continues":       {set(ranges+16+4, 1, 4), "continues"},
		"unused build":    {set(ranges+16+4, 0, 12), "has no range"},
		"trailing":        {func(b []byte) []byte { return append(b, 0) }, "the header says"},
		"checksum":        {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "trailer"},
	} {
		m, err := Decode(c.change(slices.Clone(good)))
		if m != nil || !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func TestAnyFlippedOrCutByteIsNoticed(t *testing.T) {
	good := example(t).Encode()
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := Decode(bad); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if _, err := Decode(good[:i]); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(example(f).Encode(), true)
	f.Add(zero(f, 1).Encode(), false)
	f.Add(zero(f, MaxPages).Encode(), true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed && len(data) > sha256.Size {
			data = reseal(data)
		}
		m, err := Decode(data)
		if err != nil {
			if !errors.Is(err, errs.ErrCorrupt) {
				t.Fatalf("%v is no ErrCorrupt", err)
			}
			return
		}
		if !bytes.Equal(m.Encode(), data) {
			t.Fatal("another encoding was accepted")
		}
		var end int64
		for r := range m.Ranges() {
			if r.Start != end || r.Count < 1 || m.Find(r.End()-1) != r {
				t.Fatalf("range %+v after page %d", r, end)
			}
			end = r.End()
		}
		if end != m.Pages() {
			t.Fatalf("%d pages of %d", end, m.Pages())
		}
	})
}
