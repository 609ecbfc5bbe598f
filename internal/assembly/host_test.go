package assembly

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

func TestReadCPU(t *testing.T) {
	const amd = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nmodel name\t: AMD EPYC Processor\nstepping\t: 2\n"
	path := filepath.Join(t.TempDir(), "cpuinfo")
	for text, want := range map[string]manifest.CPU{
		amd:                                 {Vendor: "AuthenticAMD", Family: 23, Model: 1, Stepping: 2},
		amd + "\nvendor_id\t: Other\n":      {Vendor: "AuthenticAMD", Family: 23, Model: 1, Stepping: 2},
		"":                                  {},
		"vendor_id : X\ncpu family : old\n": {},
		"cpu family : 6\nmodel : 85\nstepping : 7\n": {},
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := readCPU(path)
		if got != want || (want == manifest.CPU{}) != errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
