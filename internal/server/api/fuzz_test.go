package api

import (
	"errors"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/server/contract"
	"wrenn.dev/wrenn/openapi"
)

// FuzzTerminalControl: whatever a caller sends as a text message is a size that a terminal can have, or refused.
func FuzzTerminalControl(f *testing.F) {
	doc, err := contract.Load(openapi.JSON)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{`{"type":"resize","cols":80,"rows":24}`, `{"type":"resize","cols":65536,"rows":1}`, `{"type":"resize","cols":1e3,"rows":1}`,
		`{"type":"resize","cols":1,"cols":2,"rows":3}`, `{"Type":"resize","cols":1,"rows":1}`, `[]`, `null`, "\xff", `{"type":"resize"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		size, err := resizing(doc, text)
		if err != nil {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if size.Cols < 1 || size.Cols > 65535 || size.Rows < 1 || size.Rows > 65535 {
			t.Errorf("%q: %v", text, size)
		}
	})
}

// FuzzByteRange: a part is never larger than the file, and never outside of it but beyond its end.
func FuzzByteRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=5-", "bytes=-5", "bytes=-0", "bytes=9-1", "bytes=1-2,3-4", "bytes=99999999999999999999-", "bytes=-", "x"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		first, last, part := byteRange(header, size)
		if !part {
			return
		}
		if first < 0 || size == 0 || first < size && (last < first || last >= size) {
			t.Errorf("%q of %d: %d to %d", header, size, first, last)
		}
	})
}
