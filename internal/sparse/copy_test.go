package sparse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

const mib = 1 << 20

func newFile(t interface {
	Fatal(...any)
	Cleanup(func())
}, dir string) *os.File {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// patchwork is a file of data, zeros that were written, and holes.
func patchwork(t *testing.T, size int64) *os.File {
	t.Helper()
	f := newFile(t, t.TempDir())
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := make([]byte, r.IntN(200_000))
		if r.IntN(2) == 0 {
			for i := range b {
				b[i] = byte(r.Uint32())
			}
		}
		if _, err := f.WriteAt(b, r.Int64N(size-int64(len(b)))); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestCopy(t *testing.T) {
	src, dst := patchwork(t, 16*mib+123), newFile(t, t.TempDir())
	if err := Copy(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, src), content(t, dst)) {
		t.Error("the copy differs")
	}
	if used, err := Used(dst.Name()); err != nil || used == 0 || used > 6*mib {
		t.Errorf("the copy takes %d bytes, %v", used, err)
	}
}

// TestCopyLeavesOutZeros, also those that the source has blocks for.
func TestCopyLeavesOutZeros(t *testing.T) {
	src, dst := newFile(t, t.TempDir()), newFile(t, t.TempDir())
	if _, err := src.Write(make([]byte, 3*mib)); err != nil {
		t.Fatal(err)
	}
	if err := Copy(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	if used, err := Used(dst.Name()); err != nil || used != 0 {
		t.Errorf("zeros take %d bytes, %v", used, err)
	}
	if !bytes.Equal(content(t, dst), make([]byte, 3*mib)) {
		t.Error("the copy differs")
	}
}

func TestCopyOfNothing(t *testing.T) {
	src, dst := newFile(t, t.TempDir()), newFile(t, t.TempDir())
	if err := Copy(t.Context(), dst, src); err != nil || len(content(t, dst)) != 0 {
		t.Error(err)
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	src, dst := patchwork(t, 4*mib), newFile(t, t.TempDir())
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Copy(ctx, dst, src); !errors.Is(err, why) {
		t.Error(err)
	}
}

// TestShare: either the file has the content, or nothing was done to it.
func TestShare(t *testing.T) {
	src, dst := patchwork(t, 2*mib+5), newFile(t, t.TempDir())
	shared, err := Share(dst, src)
	if err != nil {
		t.Fatal(err)
	}
	want := content(t, src)
	if !shared {
		want = nil
	}
	if !bytes.Equal(content(t, dst), want) {
		t.Errorf("shared is %v, and the file has something else", shared)
	}
}

// TestShareSaysWhatFailed: only a file system that can't share is no error.
func TestShareSaysWhatFailed(t *testing.T) {
	src, dst := newFile(t, t.TempDir()), newFile(t, t.TempDir())
	src.Close()
	if shared, err := Share(dst, src); shared || !errors.Is(err, unix.EBADF) {
		t.Errorf("%v, %v", shared, err)
	}
}

// TestReplace writes over what is there; what is zero becomes a hole.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		f := newFile(t, dir)
		defer os.Remove(f.Name())
		model := bytes.Repeat([]byte{1}, 32*blockBytes)
		if _, err := f.Write(model); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			at := rapid.IntRange(0, 31).Draw(t, "at")
			var b []byte
			for _, v := range rapid.SliceOfN(rapid.ByteRange(0, 2), 0, 32-at).Draw(t, "blocks") {
				block := make([]byte, blockBytes)
				block[blockBytes-1] = v
				b = append(b, block...)
			}
			if err := Replace(f, b, int64(at*blockBytes)); err != nil {
				t.Fatal(err)
			}
			copy(model[at*blockBytes:], b)
		}
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, model) {
			t.Fatalf("the file differs, %v", err)
		}
	})
	f := newFile(t, dir)
	if _, err := f.Write(bytes.Repeat([]byte{1}, 2*mib)); err != nil {
		t.Fatal(err)
	}
	if err := Replace(f, make([]byte, 2*mib), 0); err != nil {
		t.Fatal(err)
	}
	if used, err := Used(f.Name()); err != nil || used != 0 {
		t.Errorf("zeros take %d bytes, %v", used, err)
	}
}

// TestShorterThanItWas: a file that somebody cuts off meanwhile is no good copy.
func TestShorterThanItWas(t *testing.T) {
	f := newFile(t, t.TempDir())
	if err := readFull(f, make([]byte, 10), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("nothing was read: %v", err)
	}
}
