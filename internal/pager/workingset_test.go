package pager

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
)

func encoded(t interface{ Fatal(...any) }, s WorkingSet) []byte {
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWorkingSetSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.Uint32Range(1, 1<<20).Draw(t, "memory")
		s := WorkingSet{uint64(pages) * smallPage, rapid.SliceOf(rapid.Uint32Range(0, pages-1)).Draw(t, "pages")}
		data := encoded(t, s)
		got, err := DecodeWorkingSet(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestWorkingSetDamaged changes every bit and cuts off at every length.
func TestWorkingSetDamaged(t *testing.T) {
	data := encoded(t, WorkingSet{1 << 20, []uint32{3, 1, 2, 255}})
	decode := func(b []byte) error {
		_, err := DecodeWorkingSet(bytes.NewReader(b), int64(len(b)))
		return err
	}
	for i := range data {
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			if err := decode(bad); !errors.Is(err, errs.ErrCorrupt) {
				t.Errorf("byte %d, bit %d: %v", i, bit, err)
			}
		}
		if err := decode(data[:i]); !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	if _, err := DecodeWorkingSet(bytes.NewReader(data[:30]), int64(len(data))); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a file that ends before its size: %v", err)
	}
}

func TestWorkingSetRefuses(t *testing.T) {
	for name, s := range map[string]WorkingSet{
		"a page outside": {8192, []uint32{2}}, "half a page": {5000, nil}, "too large": {1 << 50, nil},
		"too many": {1 << 30, make([]uint32, maxSetPages+1)},
	} {
		if err := s.Encode(&bytes.Buffer{}); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeWorkingSet(f *testing.F) {
	f.Add(encoded(f, WorkingSet{1 << 20, []uint32{3, 1, 2, 255}}))
	f.Add(encoded(f, WorkingSet{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeWorkingSet(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, errs.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(encoded(t, s), data) {
			t.Fatal("what was decoded encodes differently")
		}
	})
}

// record is a set that records into a folder.
func record(t *testing.T, dir string, max int) *set {
	t.Helper()
	s, err := openSet(Config{Layout: zeros(64), Record: filepath.Join(dir, "set"), MaxPages: max}, &Stats{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestRecordIsBoundedAndWritten(t *testing.T) {
	dir := t.TempDir()
	s := record(t, dir, 3)
	for _, p := range []uint64{5, 9, 1, 2} {
		s.note(p * smallPage)
	}
	if err := errors.Join(s.canWrite(), s.finish(), s.finish()); err != nil {
		t.Fatal(err)
	}
	s.note(0)
	got, err := readSet(filepath.Join(dir, "set"), 64*smallPage)
	if diff := cmp.Diff([]uint32{5, 9, 1}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := readSet(filepath.Join(dir, "set"), 65*smallPage); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("for another memory: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
}

func TestRecordThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	s := record(t, dir, 3)
	if err := os.Mkdir(filepath.Join(dir, "set"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.note(0)
	if err := s.finish(); err == nil {
		t.Error("a record over a folder is said to be written")
	}
	if _, err := openSet(Config{Layout: zeros(1), Record: filepath.Join(dir, "none", "set")}, &Stats{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no folder: %v", err)
	}
}

// TestPrefetchIsOnlyAHint starts with sets that are not there or damaged.
func TestPrefetchIsOnlyAHint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "set")
	for _, content := range []string{"", "damaged"} {
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var stats Stats
		s, err := openSet(Config{Layout: zeros(1), Prefetch: path}, &stats)
		if err != nil || len(s.ahead) != 0 || !stats.PrefetchDone || (stats.PrefetchNote != "") != (content != "") {
			t.Errorf("%q: %v, %v", content, stats, err)
		}
	}
}
