package template

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// put stores a small template and returns it.
func put(t *testing.T, s *Store, name string) Template {
	t.Helper()
	blob := func(text string) Blob {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := s.Add(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := s.Put(t.Context(), Template{
		Name: name, Rootfs: blob("root"), Kernel: blob("kernel"), Initramfs: blob("initramfs"), Modules: blob("modules"),
		KernelVersion: "6.12", VCPUs: 1, MemoryMiB: 256, Recipe: "base",
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPutGetList(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "new"))
	want := put(t, s, "base")
	put(t, s, "a.b-c_1")
	got, err := s.Get("base")
	if err != nil || got != want {
		t.Fatalf("Get = %+v, %v; want %+v", got, err, want)
	}
	if !strings.HasPrefix(got.ID, "tp-") || len(got.ID) != 23 {
		t.Errorf("ID = %q", got.ID)
	}
	names, err := s.List()
	if err != nil || !cmp.Equal(names, []string{"a.b-c_1", "base"}) {
		t.Errorf("List = %q, %v", names, err)
	}
	if err := s.Verify(t.Context(), "base"); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestBlobsAreReadOnlyAndStoredOnce(t *testing.T) {
	s := Open(t.TempDir())
	first, second := put(t, s, "one"), put(t, s, "two")
	if first.ID != second.ID {
		t.Errorf("the same content has the ids %s and %s", first.ID, second.ID)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil || len(entries) != 4 {
		t.Fatalf("blobs: %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestGetErrors(t *testing.T) {
	s := Open(t.TempDir())
	_, err := s.Get("base")
	if !errors.Is(err, errs.ErrNotFound) || !strings.Contains(err.Error(), "there is none in") {
		t.Errorf("empty store: %v", err)
	}
	put(t, s, "base")
	put(t, s, "web")
	_, err = s.Get("bse")
	if !errors.Is(err, errs.ErrNotFound) || !strings.HasSuffix(err.Error(), "there are: base, web") {
		t.Errorf("unknown: %v", err)
	}
	for _, name := range []string{"", "..", "../base", "Base", "-a", "a/b", strings.Repeat("a", 64), "a\n"} {
		var field *errs.FieldError
		if _, err := s.Get(name); !errors.As(err, &field) || field.Field != "template" {
			t.Errorf("Get(%q) = %v", name, err)
		}
	}
}

func TestCorrupt(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s *Store, tm Template){
		"blob gone":    func(t *testing.T, s *Store, tm Template) { check(t, os.Remove(s.Path(tm.Kernel.Digest))) },
		"blob shorter": func(t *testing.T, s *Store, tm Template) { check(t, os.Truncate(s.Path(tm.Rootfs.Digest), 2)) },
		"blob a link": func(t *testing.T, s *Store, tm Template) {
			check(t, os.Remove(s.Path(tm.Modules.Digest)))
			check(t, os.Symlink("/etc/passwd", s.Path(tm.Modules.Digest)))
		},
		"json cut": func(t *testing.T, s *Store, _ Template) { check(t, os.Truncate(s.file("base"), 40)) },
		"other name": func(t *testing.T, s *Store, _ Template) {
			put(t, s, "web")
			check(t, os.Rename(s.file("web"), s.file("base")))
		},
		"unknown field": func(t *testing.T, s *Store, _ Template) { replace(t, s.file("base"), `"vcpus"`, `"cpus"`) },
		"changed": func(t *testing.T, s *Store, _ Template) {
			replace(t, s.file("base"), `"memoryMiB": 256`, `"memoryMiB": 512`)
		},
		"bad digest": func(t *testing.T, s *Store, tm Template) { replace(t, s.file("base"), tm.Kernel.Digest, "../../x") },
	} {
		t.Run(name, func(t *testing.T) {
			s := Open(t.TempDir())
			spoil(t, s, put(t, s, "base"))
			if _, err := s.Get("base"); !errors.Is(err, errs.ErrCorrupt) {
				t.Errorf("Get = %v, want ErrCorrupt", err)
			}
		})
	}
}

func TestVerifyHashes(t *testing.T) {
	s := Open(t.TempDir())
	tm := put(t, s, "base")
	path := s.Path(tm.Rootfs.Digest)
	check(t, os.Chmod(path, 0o600))
	check(t, os.WriteFile(path, []byte("tooR"), 0o600))
	if _, err := s.Get("base"); err != nil {
		t.Errorf("Get looks at lengths only: %v", err)
	}
	if err := s.Verify(t.Context(), "base"); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("Verify = %v, want ErrCorrupt", err)
	}
	if _, err := s.Put(t.Context(), tm); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("Put = %v, want ErrCorrupt", err)
	}
}

func TestPutRefusesIncomplete(t *testing.T) {
	s := Open(t.TempDir())
	whole := put(t, s, "base")
	for name, change := range map[string]func(*Template){
		"name":   func(tm *Template) { tm.Name = "Ä" },
		"digest": func(tm *Template) { tm.Kernel.Digest = strings.ToUpper(tm.Kernel.Digest) },
		"size":   func(tm *Template) { tm.Modules.Size = 0 },
		"vcpus":  func(tm *Template) { tm.VCPUs = 0 },
		"memory": func(tm *Template) { tm.MemoryMiB = -1 },
	} {
		tm := whole
		change(&tm)
		if _, err := s.Put(t.Context(), tm); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: Put = %v, want ErrInvalid", name, err)
		}
	}
}

func TestAddKeepsHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	data := bytes.Repeat([]byte("data"), 1<<18)
	for _, at := range []int64{8 << 20, 40 << 20} {
		_, err := f.WriteAt(data, at)
		check(t, err)
	}
	check(t, f.Truncate(64<<20+5))
	s := Open(t.TempDir())
	blob, err := s.Add(t.Context(), path)
	check(t, err)
	var st unix.Stat_t
	check(t, unix.Stat(s.Path(blob.Digest), &st))
	if blob.Size != 64<<20+5 || st.Size != blob.Size || st.Blocks*512 > 4<<20 {
		t.Errorf("size %d, file size %d, %d bytes on disk", blob.Size, st.Size, st.Blocks*512)
	}
	want, err := os.ReadFile(path)
	check(t, err)
	got, err := os.ReadFile(s.Path(blob.Digest))
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the copy differs")
	}
}

func TestAddFailsWhole(t *testing.T) {
	s := Open(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(path, []byte("x"), 0o600))
	if _, err := s.Add(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("Add = %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPrune(t *testing.T) {
	s := Open(t.TempDir())
	tm := put(t, s, "base")
	path := filepath.Join(t.TempDir(), "f")
	check(t, os.WriteFile(path, []byte("nobody's"), 0o600))
	stray, err := s.Add(t.Context(), path)
	check(t, err)
	check(t, s.Prune(time.Hour))
	if _, err := os.Stat(s.Path(stray.Digest)); err != nil {
		t.Errorf("a young blob is gone: %v", err)
	}
	check(t, s.Prune(0))
	if _, err := os.Stat(s.Path(stray.Digest)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unused blob is still there: %v", err)
	}
	if _, err := s.Get(tm.Name); err != nil {
		t.Errorf("a template lost a blob: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"base"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := decode(text); err != nil && !errors.Is(err, errs.ErrCorrupt) {
			t.Errorf("decode: %v is not ErrCorrupt", err)
		}
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	if !bytes.Contains(text, []byte(from)) {
		t.Fatalf("%s has no %s", path, from)
	}
	check(t, os.WriteFile(path, bytes.ReplaceAll(text, []byte(from), []byte(to)), 0o600))
}
