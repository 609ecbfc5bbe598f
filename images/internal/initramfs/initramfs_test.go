package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
)

func archiveOf(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	mods := []Module{{Name: "virtio_mmio", Data: []byte("one")}, {Name: "virtio-net", Data: []byte("three"), Optional: true}}
	if err := Write(&b, []byte("program"), mods); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestWrite reads the archive with another implementation.
func TestWrite(t *testing.T) {
	var got []string
	inodes := map[int64]bool{}
	for r := cpio.NewReader(bytes.NewReader(archiveOf(t))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if inodes[h.Inode] || h.Uid != 0 || h.Guid != 0 || h.Links != 1 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		inodes[h.Inode] = true
		got = append(got, fmt.Sprintf("%s %o %q", h.Name, h.Mode, data))
	}
	want := []string{
		`dev 40700 ""`, `dev/console 20600 ""`, `dev/null 20600 ""`, `dev/kmsg 20600 ""`, `newroot 40700 ""`, `modules 40700 ""`,
		`modules/00-virtio_mmio.ko 100600 "one"`, `modules/01-virtio_net.optional.ko 100600 "three"`, `init 100700 "program"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestDeviceNumbers(t *testing.T) {
	b := archiveOf(t)
	for name, want := range map[string]string{
		"dev/console": "0000000500000001", "dev/null": "0000000100000003", "dev/kmsg": "000000010000000b",
	} {
		at := bytes.Index(b, []byte(name+"\x00"))
		if at < 32 || string(b[at-32:at-16]) != want {
			t.Errorf("%s has device number %q, want %q", name, b[at-32:at-16], want)
		}
	}
}

func TestSameInputsSameBytes(t *testing.T) {
	if !bytes.Equal(archiveOf(t), archiveOf(t)) {
		t.Error("two archives of the same files differ")
	}
}
