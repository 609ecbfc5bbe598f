package devmapper

import (
	"errors"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
)

func TestDeviceBytes(t *testing.T) {
	tests := []struct {
		name              string
		asked, base, want int64
		err               error
	}{
		{name: "the base's own", base: 8192, want: 8192},
		{name: "the base's own, rounded up", base: 8192 + 512, want: 12288},
		{name: "larger", asked: 1 << 30, base: 8192, want: 1 << 30},
		{name: "larger, rounded up", asked: 1<<30 + 1, base: 8192, want: 1<<30 + 4096},
		{name: "smaller", asked: 4096, base: 8192, err: errs.ErrInvalid},
		{name: "negative", asked: -1, base: 8192, err: errs.ErrInvalid},
		{name: "the largest", asked: disk.MaxSizeBytes, base: 8192, want: disk.MaxSizeBytes},
		{name: "too large", asked: disk.MaxSizeBytes + 1, base: 8192, err: errs.ErrInvalid},
	}
	for _, tt := range tests {
		got, err := deviceBytes(tt.asked, tt.base)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %d, %v; want %d, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestParseStatus(t *testing.T) {
	tests := []struct {
		status string
		want   disk.Usage
		err    error
	}{
		{status: "16/208 16", want: disk.Usage{UsedBytes: 16 * 512, CapacityBytes: 208 * 512}},
		{status: "0/0 0"},
		{status: "Invalid", want: disk.Usage{Failed: true}},
		{status: "Overflow", want: disk.Usage{Failed: true}},
		{status: "Merge failed", want: disk.Usage{Failed: true}},
		{status: "Unknown", err: errs.ErrCorrupt},
		{status: "", err: errs.ErrCorrupt},
		{status: "16/208", err: errs.ErrCorrupt},
		{status: "16 16", err: errs.ErrCorrupt},
		{status: "-1/208 16", err: errs.ErrCorrupt},
		{status: "209/208 16", err: errs.ErrCorrupt},
		{status: "1/99999999999999999999 16", err: errs.ErrCorrupt},
		{status: strings.Repeat("9", 500), err: errs.ErrCorrupt},
	}
	for _, tt := range tests {
		got, err := parseStatus(tt.status)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: %+v, %v", tt.status, got, err)
		}
	}
}

// FuzzParseStatus: whatever the kernel says, the answer is within bounds or an error of the right kind.
func FuzzParseStatus(f *testing.F) {
	f.Add("16/208 16")
	f.Add("Invalid")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseStatus(s)
		if err != nil && !errors.Is(err, errs.ErrCorrupt) {
			t.Fatal(err)
		}
		if u.UsedBytes < 0 || u.CapacityBytes < u.UsedBytes {
			t.Fatalf("%q: %+v", s, u)
		}
	})
}
