package sparse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
)

func create(t *testing.T, size int64, at ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, offset := range at {
		if _, err := f.WriteAt(bytes.Repeat([]byte{1}, 4096), offset); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func runs(t *testing.T, f *os.File, unit int64) (got [][2]int64) {
	t.Helper()
	err := Walk(t.Context(), f, unit, func(start, end int64) error {
		got = append(got, [2]int64{start, end})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWalkFindsDataAndWidensIt(t *testing.T) {
	f := create(t, 1<<20+100, 8192, 12288, 65536)
	if d := cmp.Diff([][2]int64{{8192, 16384}, {65536, 69632}}, runs(t, f, 4096)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([][2]int64{{0, 65536}, {65536, 131072}}, runs(t, f, 65536)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([][2]int64{{0, 1<<20 + 100}}, runs(t, f, 2<<20)); d != "" {
		t.Error(d)
	}
	if got := runs(t, create(t, 0), 4096); got != nil {
		t.Error(got)
	}
}

func TestWalkEnds(t *testing.T) {
	f := create(t, 1<<20, 0, 65536)
	boom := errors.New("boom")
	if err := Walk(t.Context(), f, 4096, func(int64, int64) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Walk(ctx, f, 4096, func(int64, int64) error { calls++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Error(err, calls)
	}
}

func TestPunchAndUsed(t *testing.T) {
	f := create(t, 1<<20, 0, 4096, 8192)
	if err := Punch(f, 4096, 4096); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][2]int64{{0, 4096}, {8192, 12288}}, runs(t, f, 4096)); d != "" {
		t.Error(d)
	}
	if err := f.Sync(); err != nil { // a file system may count blocks only when it has placed them
		t.Fatal(err)
	}
	if n, err := Used(f.Name()); err != nil || n < 8192 || n > 65536 {
		t.Error(n, err)
	}
}

func TestCopyKeepsContent(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		src, err := os.Create(filepath.Join(dir, "src"))
		if err != nil {
			rt.Fatal(err)
		}
		defer src.Close()
		dst, err := os.Create(filepath.Join(dir, "dst"))
		if err != nil {
			rt.Fatal(err)
		}
		defer dst.Close()
		for range rapid.IntRange(0, 5).Draw(rt, "pieces") {
			data := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, rapid.IntRange(1, 20_000).Draw(rt, "length"))
			if _, err := src.WriteAt(data, rapid.Int64Range(0, 300_000).Draw(rt, "at")); err != nil {
				rt.Fatal(err)
			}
		}
		if err := Copy(t.Context(), dst, src); err != nil {
			rt.Fatal(err)
		}
		want, _ := os.ReadFile(src.Name())
		got, err := os.ReadFile(dst.Name())
		if err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("%d bytes, want %d: %v", len(got), len(want), err)
		}
		if in, out := len(runs(t, src, 4096)), len(runs(t, dst, 4096)); in == 0 && out != 0 {
			rt.Fatalf("a file of holes became %d runs of data", out)
		}
	})
}

func TestCheckGrain(t *testing.T) {
	if err := CheckGrain(create(t, 1), 1<<20); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		kind, fsBlock, fileBlock int64
		ok                       bool
	}{
		{unix.EXT4_SUPER_MAGIC, 4096, 4096, true},
		{unix.EXT4_SUPER_MAGIC, 1024, 1024, true},
		{unix.XFS_SUPER_MAGIC, 4096, 1 << 20, true}, // a stripe: a hint
		{unix.XFS_SUPER_MAGIC, 65536, 65536, false},
		{0x2fc12fc1, 131072, 4096, false}, // ZFS
		{unix.TMPFS_MAGIC, 4096, 4096, true},
		{unix.TMPFS_MAGIC, 4096, 2 << 20, false}, // huge=always
	} {
		err := checkGrain("f", c.kind, c.fsBlock, c.fileBlock, 4096)
		if c.ok != (err == nil) || (!c.ok && !errors.Is(err, errs.ErrFailedPrecondition)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
