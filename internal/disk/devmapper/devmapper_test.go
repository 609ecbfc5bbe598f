package devmapper

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/disk/devmapper/exception"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

var digest = strings.Repeat("0123456789abcdef", 4)

// TestRefusals: what can't be is refused before anything is made, also where there is no device-mapper.
func TestRefusals(t *testing.T) {
	state := t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	odd := image + "-odd"
	storeSize := int(exception.StoreBytes(8192))
	for path, size := range map[string]int{image: 8192, odd: 8191, image + "-empty": 0, image + "-store": storeSize,
		image + "-long-store": storeSize + 4096} {
		if err := os.WriteFile(path, make([]byte, size), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	good := disk.Spec{ID: id.New(), Base: disk.Base{Digest: digest, Path: image}}
	tests := []struct {
		name   string
		change func(*disk.Spec)
		want   error
	}{
		{"no id", func(s *disk.Spec) { s.ID = "" }, errs.ErrInvalid},
		{"an id that is a path", func(s *disk.Spec) { s.ID = "../../etc" }, errs.ErrInvalid},
		{"a digest that is a path", func(s *disk.Spec) { s.Base.Digest = "../" + digest[3:] }, errs.ErrInvalid},
		{"a digest in capitals", func(s *disk.Spec) { s.Base.Digest = strings.ToUpper(digest) }, errs.ErrInvalid},
		{"no image", func(s *disk.Spec) { s.Base.Path += "-none" }, errs.ErrNotFound},
		{"an empty image", func(s *disk.Spec) { s.Base.Path += "-empty" }, errs.ErrInvalid},
		{"an image of half a sector", func(s *disk.Spec) { s.Base.Path = odd }, errs.ErrInvalid},
		{"a folder", func(s *disk.Spec) { s.Base.Path = state }, errs.ErrInvalid},
		{"no store", func(s *disk.Spec) { s.Store = image + "-none" }, errs.ErrNotFound},
		{"a store of zeros", func(s *disk.Spec) { s.Store = image + "-store" }, errs.ErrCorrupt},
		{"a store of another size", func(s *disk.Spec) { s.Store = image + "-long-store" }, errs.ErrCorrupt},
		{"a store that is a folder", func(s *disk.Spec) { s.Store = state }, errs.ErrCorrupt},
		{"too small", func(s *disk.Spec) { s.SizeBytes = 4096 }, errs.ErrInvalid},
	}
	for _, tt := range tests {
		spec := good
		tt.change(&spec)
		d := New(Config{StateDir: state})
		if _, err := d.Create(t.Context(), spec); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.name == "no id" || tt.name == "an id that is a path" {
			continue // Flatten has none
		}
		err := d.Flatten(t.Context(), spec.Base, cmp.Or(spec.Store, image+"-store"), spec.SizeBytes, filepath.Join(state, "flat"))
		if !errors.Is(err, tt.want) {
			t.Errorf("flatten with %s: %v", tt.name, err)
		}
	}
	left, err := os.ReadDir(state)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestReserve(t *testing.T) {
	d := New(Config{StateDir: t.TempDir(), ReserveBytes: 1 << 60})
	if err := d.room(); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("an exabyte is free: %v", err)
	}
	d = New(Config{StateDir: d.cfg.StateDir, ReserveBytes: -1})
	if err := d.room(); err != nil {
		t.Error(err)
	}
}

// TestCopyLeavesTheReserve: a copy that would fill the file system is refused, and what it would take counts.
func TestCopyLeavesTheReserve(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := New(Config{StateDir: dir, ReserveBytes: 1})
	if err := d.roomFor(f, 1); err != nil {
		t.Error(err)
	}
	if err := d.roomFor(f, 1<<60); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("an exabyte is free: %v", err)
	}
}

// TestFreezeRefusals: without a disk there is nothing to freeze, also where there is no device-mapper.
func TestFreezeRefusals(t *testing.T) {
	d, dst := New(Config{StateDir: t.TempDir()}), filepath.Join(t.TempDir(), "dst")
	for sandboxID, want := range map[string]error{"": errs.ErrInvalid, "../x": errs.ErrInvalid, id.New(): errs.ErrNotFound} {
		if _, err := d.Freeze(t.Context(), sandboxID, dst); !errors.Is(err, want) {
			t.Errorf("%q: %v", sandboxID, err)
		}
	}
	if _, err := os.Lstat(dst); !errors.Is(err, os.ErrNotExist) {
		t.Error("a file is left", err)
	}
}

// TestFlatten puts the chunks of a hand-made store over an image: data, zeros over data, and data beyond the image.
func TestFlatten(t *testing.T) {
	const chunk, size = exception.ChunkBytes, 5 * exception.ChunkBytes
	dir := t.TempDir()
	image, path, dst := filepath.Join(dir, "image"), filepath.Join(dir, "store"), filepath.Join(dir, "flat")
	base := bytes.Repeat([]byte{'b'}, 3*chunk-512)
	store := make([]byte, exception.StoreBytes(size))
	copy(store, "SnAp\x01\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00")
	for i, old := range []byte{1, 4, 0} {
		store[chunk+16*i], store[chunk+16*i+8] = old, byte(i+2)
	}
	copy(store[3*chunk:], bytes.Repeat([]byte{'4'}, chunk))
	copy(store[4*chunk:], bytes.Repeat([]byte{'0'}, chunk))
	want := append(bytes.Clone(base), make([]byte, size-len(base))...)
	copy(want[chunk:2*chunk], make([]byte, chunk))
	copy(want[4*chunk:], bytes.Repeat([]byte{'4'}, chunk))
	copy(want, bytes.Repeat([]byte{'0'}, chunk))
	for name, b := range map[string][]byte{image: base, path: store} {
		if err := os.WriteFile(name, b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	d := New(Config{StateDir: dir})
	if err := d.Flatten(t.Context(), disk.Base{Digest: digest, Path: image}, path, size, dst); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image differs, %v", err)
	}

	store[chunk+16] = 1 // chunk 1 twice
	bad := path + "-bad"
	if err := os.WriteFile(bad, store, 0o400); err != nil {
		t.Fatal(err)
	}
	err := d.Flatten(t.Context(), disk.Base{Digest: digest, Path: image}, bad, size, dst+"-bad")
	if _, statErr := os.Lstat(dst + "-bad"); !errors.Is(err, errs.ErrCorrupt) || !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("a corrupt table: %v, %v", err, statErr)
	}
}

func TestOwner(t *testing.T) {
	sandboxID := id.New()
	for uuid, ours := range map[string]bool{
		"WRENN-" + sandboxID: true, "WRENN-" + sandboxID + "-base": true,
		sandboxID: false, "WRENN-": false, "LVM-" + sandboxID: false, "": false, "WRENN-" + sandboxID + "-base-base": false,
	} {
		got, ok := owner(uuid)
		if ok != ours || ok && got != sandboxID {
			t.Errorf("%q: %q, %v", uuid, got, ok)
		}
	}
}

// TestFailpointsAreDistinct: a name that stands for two steps would leave one of them untested.
func TestFailpointsAreDistinct(t *testing.T) {
	list := slices.Concat(Failpoints(), RestoreFailpoints(), FreezeFailpoints(), FlattenFailpoints())
	slices.Sort(list)
	if n := len(slices.Compact(slices.Clone(list))); n != len(list) || n < 20 {
		t.Errorf("%d names, %d different: %v", len(list), n, list)
	}
}

// TestHalfMade: a store without a device, as a killed Create leaves it, is listed, has no usage and is removed.
func TestHalfMade(t *testing.T) {
	d := New(Config{StateDir: filepath.Join(t.TempDir(), "with[odd]*name")})
	sandboxID := id.New()
	store := d.storePath(sandboxID)
	if err := os.MkdirAll(filepath.Dir(store), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(store, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(d.cfg.StateDir, "loops", digest), 0o700); err != nil {
		t.Fatal(err)
	}
	ids, err := d.List(t.Context())
	if err != nil || !slices.Contains(ids, sandboxID) {
		t.Errorf("List: %v, %v", ids, err)
	}
	if err := d.Remove(t.Context(), sandboxID); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{d.folder(sandboxID), filepath.Join(d.cfg.StateDir, "loops", digest)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// TestRemoveLeavesTheFolderOfOthers: the sandbox's record is not the driver's.
func TestRemoveLeavesTheFolderOfOthers(t *testing.T) {
	d := New(Config{StateDir: t.TempDir()})
	sandboxID := id.New()
	record := filepath.Join(d.folder(sandboxID), "record.json")
	if err := os.MkdirAll(filepath.Dir(record), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), sandboxID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(record); err != nil {
		t.Error(err)
	}
}

func TestNode(t *testing.T) {
	if _, err := node(1 << 40); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("a device that is not there: %v", err)
	}
}
