package devmapper

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/disk"
	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
)

var digest = strings.Repeat("0123456789abcdef", 4)

// TestRefusals: what can't be is refused before anything is made, also where there is no device-mapper.
func TestRefusals(t *testing.T) {
	state := t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	odd := image + "-odd"
	for path, size := range map[string]int{image: 8192, odd: 8191, image + "-empty": 0} {
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
		{"too small", func(s *disk.Spec) { s.SizeBytes = 4096 }, errs.ErrInvalid},
	}
	for _, tt := range tests {
		spec := good
		tt.change(&spec)
		if _, err := New(Config{StateDir: state}).Create(t.Context(), spec); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
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
	list := Failpoints()
	slices.Sort(list)
	if n := len(slices.Compact(slices.Clone(list))); n != len(list) || n < 10 {
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
