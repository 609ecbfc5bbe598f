package dm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// golden is a load request for uuid "U" with one linear target, as a C program that fills the kernel's structs lays it out
// on a little-endian machine.
var golden = strings.Join([]string{
	"04000000" + "00000000" + "00000000", // version 4.0.0
	"88010000",                           // data_size 392
	"38010000",                           // data_start 312
	"01000000",                           // target_count
	"00000000",                           // open_count
	"01000000",                           // flags: read-only
	"00000000" + "00000000",              // event_nr, padding
	"0000000000000000",                   // dev
	strings.Repeat("00", 128),            // name
	"55" + strings.Repeat("00", 128),     // uuid
	strings.Repeat("00", 7),              // data
	"0000000000000000",                   // sector_start
	"0008000000000000",                   // length 2048
	"00000000",                           // status
	"30000000",                           // next: 48 = 40 + "7:0 0" + zero, rounded up to 8
	"6c696e656172" + strings.Repeat("00", 10), // "linear"
	"373a302030" + "00" + "0000",              // "7:0 0"
	strings.Repeat("00", 32),                  // room for the answer
}, "")

func TestEncode(t *testing.T) {
	r := request{uuid: "U", flags: unix.DM_READONLY_FLAG, table: []Target{{Sectors: 2048, Type: "linear", Params: "7:0 0"}}}
	got, err := r.encode(80)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("encoded\n%s\nwant\n%s", hex.Dump(got), hex.Dump(want))
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	for name, r := range map[string]request{
		"name":   {name: strings.Repeat("n", 128)},
		"uuid":   {uuid: strings.Repeat("u", 129)},
		"type":   {table: []Target{{Type: strings.Repeat("t", 16)}}},
		"params": {table: []Target{{Type: "linear", Params: "a\x00b"}}},
	} {
		if _, err := r.encode(0); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	longest := request{name: strings.Repeat("n", 127), uuid: strings.Repeat("u", 128)}
	buf, err := longest.encode(0)
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := decode(buf)
	if err != nil || h.name != longest.name || h.uuid != longest.uuid {
		t.Errorf("decoded %+v, %v", h, err)
	}
}

// answer is a buffer as the kernel leaves it: a header with the given payload.
func answer(t testing.TB, r request, payload []byte, fill func(header []byte)) []byte {
	t.Helper()
	buf, err := r.encode(len(payload) + 64)
	if err != nil {
		t.Fatal(err)
	}
	order.PutUint32(buf[offSize:], uint32(headerBytes+len(payload)))
	copy(buf[headerBytes:], payload)
	if fill != nil {
		fill(buf)
	}
	return buf
}

func TestDecodeHeader(t *testing.T) {
	buf := answer(t, request{name: "wrenn-x", uuid: "WRENN-x"}, []byte("payload"), func(b []byte) {
		order.PutUint32(b[offTargets:], 3)
		order.PutUint32(b[offOpens:], 2)
		order.PutUint32(b[offFlags:], unix.DM_ACTIVE_PRESENT_FLAG)
		order.PutUint64(b[offDev:], unix.Mkdev(254, 7))
	})
	h, payload, err := decode(buf)
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Name: "wrenn-x", UUID: "WRENN-x", Dev: unix.Mkdev(254, 7), Opens: 2, Live: true}
	if diff := cmp.Diff(want, h.info()); diff != "" || h.targets != 3 || string(payload) != "payload" {
		t.Errorf("targets %d, payload %q, %s", h.targets, payload, diff)
	}
}

func TestDecodeBounds(t *testing.T) {
	bounds := func(start, size uint32) []byte {
		return answer(t, request{}, nil, func(b []byte) {
			order.PutUint32(b[offStart:], start)
			order.PutUint32(b[offSize:], size)
		})
	}
	// What the kernel says when it has no payload: the header without its padding.
	if _, payload, err := decode(bounds(headerBytes, headerBytes-7)); err != nil || len(payload) != 0 {
		t.Errorf("no payload: %q, %v", payload, err)
	}
	for name, buf := range map[string][]byte{
		"too long": bounds(headerBytes, 1<<20), "too far": bounds(1<<20, headerBytes), "too short": make([]byte, headerBytes-1),
	} {
		if _, _, err := decode(buf); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// deviceEntry is one struct dm_name_list with its padding.
func deviceEntry(dev uint64, next uint32, name string) []byte {
	b := order.AppendUint32(order.AppendUint64(nil, dev), next)
	return append(b, name+"\x00"...)
}

func TestDecodeDevices(t *testing.T) {
	two := append(deviceEntry(1, 24, "a")[:14], make([]byte, 10)...)
	two = append(two, deviceEntry(2, 0, "bc")...)
	tests := []struct {
		name    string
		payload []byte
		want    []Device
		bad     bool
	}{
		{name: "nothing"},
		{name: "no device", payload: deviceEntry(0, 0, "")},
		{name: "two", payload: two, want: []Device{{"a", 1}, {"bc", 2}}},
		{name: "cut off", payload: deviceEntry(1, 14, "a"), bad: true},
		{name: "too short", payload: []byte{1, 2, 3}, bad: true},
		{name: "beyond the end", payload: deviceEntry(1, 1000, "a"), bad: true},
		{name: "in place", payload: deviceEntry(1, 4, "a"), bad: true},
	}
	for _, tt := range tests {
		got, err := decodeDevices(tt.payload)
		if errors.Is(err, errs.ErrCorrupt) != tt.bad || (err != nil) != tt.bad {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); !tt.bad && diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestDecodeVersions(t *testing.T) {
	entry := func(next uint32, major uint32, name string) []byte {
		b := order.AppendUint32(nil, next)
		for _, v := range []uint32{major, 2, 3} {
			b = order.AppendUint32(b, v)
		}
		return append(b, (name + "\x00\x00\x00\x00\x00\x00\x00\x00")[:8]...)
	}
	got, err := decodeVersions(append(entry(24, 1, "zero"), entry(0, 9, "error")...))
	want := []Version{{"zero", [3]uint32{1, 2, 3}}, {"error", [3]uint32{9, 2, 3}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for name, payload := range map[string][]byte{
		"in place": entry(3, 1, "a"), "beyond": entry(999, 1, "a"), "cut off": entry(24, 1, "a"), "short": {1},
	} {
		if _, err := decodeVersions(payload); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeTargets(t *testing.T) {
	first, err := Target{Sectors: 8, Type: "snapshot", Params: "16/208 16"}.encode()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Target{Start: 8, Sectors: 8, Type: "zero"}.encode()
	if err != nil {
		t.Fatal(err)
	}
	order.PutUint32(second[20:], uint32(len(first)+len(second))) // an answer counts from the start
	table := append(bytes.Clone(first), second...)
	got, err := decodeTargets(table, 2)
	want := []Target{{0, 8, "snapshot", "16/208 16"}, {8, 8, "zero", ""}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := decodeTargets(table, 3); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("three of two: %v", err)
	}
	order.PutUint32(table[20:], 0)
	if _, err := decodeTargets(table, 2); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("backwards: %v", err)
	}
}

func TestKinds(t *testing.T) {
	tests := []struct {
		err  error
		want error
	}{
		{unix.ENXIO, errs.ErrNotFound}, {unix.EBUSY, errs.ErrAlreadyExists}, {unix.ENOMEM, errs.ErrResourceExhausted},
		{unix.EINVAL, unix.EINVAL},
	}
	for _, tt := range tests {
		if got := wrap("create", "x", tt.err, errs.ErrAlreadyExists); !errors.Is(got, tt.want) || !errors.Is(got, tt.err) {
			t.Errorf("%v became %v", tt.err, got)
		}
	}
	if wrap("create", "x", nil, errs.ErrAlreadyExists) != nil {
		t.Error("nil became an error")
	}
}

// FuzzDecode feeds any answer to every decoder: none may panic, hang or read outside of it.
func FuzzDecode(f *testing.F) {
	f.Add(answer(f, request{uuid: "U"}, deviceEntry(1, 0, "a"), nil))
	spec, err := Target{Sectors: 8, Type: "snapshot", Params: "Invalid"}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(answer(f, request{uuid: "U"}, spec, func(b []byte) { order.PutUint32(b[offTargets:], 1) }))
	f.Fuzz(func(t *testing.T, buf []byte) {
		h, payload, err := decode(buf)
		if err != nil {
			if !errors.Is(err, errs.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		for _, err := range []error{
			second(decodeDevices(payload)), second(decodeVersions(payload)), second(decodeTargets(payload, h.targets)),
		} {
			if err != nil && !errors.Is(err, errs.ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }
