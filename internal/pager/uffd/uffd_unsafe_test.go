package uffd

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// TestRequests compares with what a C compiler makes of the kernel's header.
func TestRequests(t *testing.T) {
	for name, v := range map[string][2]uintptr{
		"sizeof uffdio_api":      {unsafe.Sizeof(apiArg{}), 24},
		"sizeof uffdio_range":    {unsafe.Sizeof(rangeArg{}), 16},
		"sizeof uffdio_register": {unsafe.Sizeof(registerArg{}), 32},
		"sizeof uffdio_copy":     {unsafe.Sizeof(copyArg{}), 40},
		"sizeof uffdio_zeropage": {unsafe.Sizeof(zeroArg{}), 32},
		"offset of copy":         {unsafe.Offsetof(copyArg{}.copied), 32},
		"offset of zeropage":     {unsafe.Offsetof(zeroArg{}.zeroed), 24},
		"USERFAULTFD_IOC_NEW":    {iocNew, 0xaa00},
		"UFFDIO_API":             {iocAPI, 0xc018aa3f},
		"UFFDIO_REGISTER":        {iocReg, 0xc020aa00},
		"UFFDIO_UNREGISTER":      {iocUnreg, 0x8010aa01},
		"UFFDIO_WAKE":            {iocWake, 0x8010aa02},
		"UFFDIO_COPY":            {iocCopy, 0xc028aa03},
		"UFFDIO_ZEROPAGE":        {iocZero, 0xc020aa04},
	} {
		if v[0] != v[1] {
			t.Errorf("%s is %#x, want %#x", name, v[0], v[1])
		}
	}
}

func TestDecode(t *testing.T) {
	raw := func(kind Kind, one, two uint64) []byte {
		b := make([]byte, msgBytes)
		b[0] = byte(kind)
		binary.NativeEndian.PutUint64(b[8:], one)
		binary.NativeEndian.PutUint64(b[16:], two)
		return b
	}
	for _, tt := range []struct {
		b    []byte
		want Msg
	}{
		{raw(Fault, 1, 0x7000), Msg{Kind: Fault, Start: 0x7000, FD: -1}},
		{raw(Remove, 0x1000, 0x3000), Msg{Kind: Remove, Start: 0x1000, End: 0x3000, FD: -1}},
		{raw(Fork, 9, 0), Msg{Kind: Fork, FD: 9}},
	} {
		if diff := cmp.Diff(tt.want, decode(tt.b)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestFromFDRefusesOthers(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := FromFD(int(f.Fd())); !errors.Is(err, ErrNotUserfaultfd) {
		t.Errorf("/dev/null: %v", err)
	}
	if _, err := FromFD(1 << 20); err == nil {
		t.Error("a descriptor that is not open is taken")
	}
}
