package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"

	"wrenn.dev/wrenn/images/internal/roottar"
)

func TestSize(t *testing.T) {
	r := recipe{spare: 30, leastMiB: 1024}
	for _, tc := range []struct{ bytes, wantMiB int64 }{{100 << 20, 1024}, {2000 << 20, 2683}} {
		got := r.size(roottar.Summary{Bytes: tc.bytes})
		if got != tc.wantMiB<<20 {
			t.Errorf("size of %d bytes = %d MiB, want %d", tc.bytes, got>>20, tc.wantMiB)
		}
	}
}

func TestCopyFirst(t *testing.T) {
	lib := t.TempDir()
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	check(t, err)
	_, err = w.Write([]byte("net"))
	check(t, err)
	check(t, w.Close())
	for name, data := range map[string]string{
		"virtio_mmio.ko": "mmio", "virtio_blk.ko": "blk", "failover.ko": "failover", "virtio-net.ko.xz": packed.String(), "ptp_kvm.ko": "ptp",
		"modules.dep": "virtio_mmio.ko:\nvirtio_blk.ko:\nvirtio-net.ko.xz: failover.ko\nfailover.ko:\nptp_kvm.ko:\n",
	} {
		check(t, os.WriteFile(filepath.Join(lib, name), []byte(data), 0o600))
	}
	dir := filepath.Join(t.TempDir(), "first")
	check(t, copyFirst(lib, dir))
	entries, err := os.ReadDir(dir)
	check(t, err)
	var got []string
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		check(t, err)
		got = append(got, e.Name()+" "+string(data))
	}
	want := []string{"00-virtio_mmio.ko mmio", "01-virtio_blk.ko blk", "02-failover.ko failover", "03-virtio_net.ko net", "04-ptp_kvm.ko ptp"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestArchive(t *testing.T) {
	dir, epoch := t.TempDir(), time.Unix(1000, 0)
	check(t, os.MkdirAll(filepath.Join(dir, "6.1/kernel"), 0o700))
	check(t, os.WriteFile(filepath.Join(dir, "6.1/kernel/a.ko"), []byte("a"), 0o600))
	check(t, os.Symlink("/usr/src", filepath.Join(dir, "6.1/build")))
	var b bytes.Buffer
	check(t, archive(&b, dir, epoch))
	var got []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		if !h.ModTime.Equal(epoch) || h.Uid != 0 || h.Mode&0o044 == 0 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		got = append(got, h.Name)
	}
	if want := []string{"././", "./6.1/", "./6.1/kernel/", "./6.1/kernel/a.ko"}; !cmp.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}
}

func TestSteps(t *testing.T) {
	var out bytes.Buffer
	s := &steps{out: &out}
	check(t, s.do("one", func() error { return nil }))
	bad := errors.New("bad")
	if err := s.do("two", func() error { return bad }); !errors.Is(err, bad) || !strings.HasPrefix(err.Error(), "two: ") {
		t.Errorf("do = %v", err)
	}
	if want := "   one ...\n   one: 0.0 s\n   two ...\n"; out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
}

func TestInputsFollowTheFiles(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "f")
		check(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	b := builder{recipe: base, envd: file("envd"), init: file("init"), ramdisk: file("ramdisk")}
	one, err := b.inputs("kernel-1", "packages-1")
	check(t, err)
	b.envd = file("envd")
	if again, err := b.inputs("kernel-1", "packages-1"); err != nil || again != one {
		t.Errorf("the same inputs give %s and %s, %v", one, again, err)
	}
	b.envd = file("another envd")
	if other, err := b.inputs("kernel-1", "packages-1"); err != nil || other == one {
		t.Errorf("another envd gives %s, %v", other, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
