package cmdline

import (
	"errors"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestParse(t *testing.T) {
	plain := Args{Root: "/dev/vda", Modules: "/dev/vdb", Metadata: true}
	for _, tc := range []struct {
		line string
		want Args
		err  error
	}{
		{"", plain, nil},
		{"quiet loglevel=1 reboot=k panic=1 rdinit=/init\n", plain, nil},
		{"root=/dev/vda rw virtio_mmio.device=4K@0xd0000000:5", plain, nil},
		{"ro", Args{Root: "/dev/vda", ReadOnly: true, Modules: "/dev/vdb", Metadata: true}, nil},
		{"ro rw", plain, nil},
		{"root=/dev/vdc1 wrenn.modules=none wrenn.metadata=off", Args{Root: "/dev/vdc1"}, nil},
		{"wrenn.modules=/dev/vdd", Args{Root: "/dev/vda", Modules: "/dev/vdd", Metadata: true}, nil},
		{`"root=/dev/vde" x="a ro b"`, Args{Root: "/dev/vde", Modules: "/dev/vdb", Metadata: true}, nil},
		{"quiet -- ro root=/dev/vdz", plain, nil},
		{"root=LABEL=x", Args{}, errs.ErrInvalid},
		{"root=/dev/../etc/passwd", Args{}, errs.ErrInvalid},
		{"root", Args{}, errs.ErrInvalid},
		{"wrenn.modules=", Args{}, errs.ErrInvalid},
		{"wrenn.metadata=no", Args{}, errs.ErrInvalid},
	} {
		got, err := Parse(tc.line)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("Parse(%q) = %+v, %v; want %+v, %v", tc.line, got, err, tc.want, tc.err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`root=/dev/vda ro x="a b" -- y`)
	f.Add(`"wrenn.modules=/dev/vdb`)
	f.Fuzz(func(t *testing.T, line string) {
		a, err := Parse(line)
		if err != nil {
			if !errors.Is(err, errs.ErrInvalid) {
				t.Errorf("Parse: %v is not ErrInvalid", err)
			}
			return
		}
		if !isDevice(a.Root) || a.Modules != "" && !isDevice(a.Modules) {
			t.Errorf("Parse(%q) = %+v", line, a)
		}
	})
}
