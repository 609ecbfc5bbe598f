package pager

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"wrenn.dev/wrenn/internal/errs"
)

// hello is a message as Firecracker 1.16 sends it.
const hello = `[{"base_host_virt_addr":140000000000000,"size":3221225472,"offset":0,"page_size":4096,"page_size_kib":4096},
 {"base_host_virt_addr":150000000000000,"size":1073741824,"offset":3221225472,"page_size":4096,"page_size_kib":4096}]`

func TestDecodeRegions(t *testing.T) {
	const base = 1 << 30
	one := func(rest string) string { return fmt.Sprintf(`[{"base_host_virt_addr":%d,%s}]`, base, rest) }
	for _, tt := range []struct {
		name, body string
		want       []Region // nil: ErrInvalid
	}{
		{"two", strings.ReplaceAll(strings.ReplaceAll(hello, "140000000000000", "4096000"), "150000000000000", "8589934592"),
			[]Region{{4096000, 3 << 30, 0, 4096}, {8 << 30, 1 << 30, 3 << 30, 4096}}},
		{"the old name of the page size", one(`"size":2097152,"offset":0,"page_size_kib":2097152`), []Region{{base, hugePage, 0, hugePage}}},
		{"no page size", one(`"size":4096,"offset":8192`), []Region{{base, 4096, 8192, 4096}}},
		{"a field of tomorrow", one(`"size":4096,"offset":0,"is_guest_memfd":true`), []Region{{base, 4096, 0, 4096}}},
		{"none", `[]`, nil},
		{"null", `null`, nil},
		{"no array", `{}`, nil},
		{"no size", one(`"offset":0`), nil},
		{"negative", one(`"size":-4096,"offset":0`), nil},
		{"empty", one(`"size":0,"offset":0`), nil},
		{"no whole page", one(`"size":4097,"offset":0`), nil},
		{"offset in a page", one(`"size":4096,"offset":1`), nil},
		{"a page of another size", one(`"size":8192,"offset":0,"page_size":8192`), nil},
		{"beyond memory", one(`"size":8192,"offset":4294963200`), nil},
		{"offset beyond memory", one(`"size":4096,"offset":18446744073709547520`), nil},
		{"size overflows", one(`"size":18446744073709547520,"offset":0`), nil},
		{"address overflows", `[{"base_host_virt_addr":18446744073709547520,"size":8192,"offset":0}]`, nil},
		{"at address zero", `[{"base_host_virt_addr":0,"size":8192,"offset":0}]`, nil},
		{"overlap in the process", `[{"base_host_virt_addr":8192,"size":8192,"offset":0},{"base_host_virt_addr":12288,"size":8192,"offset":8192}]`, nil},
		{"overlap in the guest", `[{"base_host_virt_addr":8192,"size":8192,"offset":0},{"base_host_virt_addr":81920,"size":8192,"offset":4096}]`, nil},
		{"too many", "[" + strings.Repeat(`{},`, maxRegions) + "{}]", nil},
	} {
		got, err := decodeRegions([]byte(tt.body), 4<<30)
		if (err == nil) != (tt.want != nil) || err != nil && !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func FuzzDecodeRegions(f *testing.F) {
	f.Add([]byte(hello))
	f.Add([]byte(`[{"base_host_virt_addr":4096,"size":4096,"offset":0}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		const total = 4 << 30
		regions, err := decodeRegions(data, total)
		if err != nil && !errors.Is(err, errs.ErrInvalid) {
			t.Fatal(err)
		}
		sum := uint64(0)
		for _, r := range regions {
			if r.Base+r.Size < r.Base || r.Offset+r.Size > total || r.Size/r.PageSize == 0 {
				t.Fatalf("%+v", r)
			}
			sum += r.Size
		}
		if sum > total {
			t.Fatalf("%d bytes in all", sum)
		}
	})
}
