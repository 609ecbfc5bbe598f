package pager

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// layout is extents that follow each other. It is not fast.
type layout []Extent

func zeros(pages uint64) layout { return layout{{File: -1, Length: pages * smallPage}} }

func (l layout) Size() (n uint64) {
	for _, e := range l {
		n += e.Length
	}
	return n
}

func (l layout) Find(offset uint64) Extent {
	for _, e := range l {
		if offset < e.Length {
			e.Length -= offset
			if e.File >= 0 {
				e.Offset += int64(offset)
			}
			return e
		}
		offset -= e.Length
	}
	panic("asked beyond the end")
}

// pages is a file in which each page is filled with a byte of its own.
func pages(t *testing.T, values string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "memory")
	var b bytes.Buffer
	for _, v := range []byte(values) {
		b.Write(bytes.Repeat([]byte{v}, smallPage))
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFillFromSeveralPlaces(t *testing.T) {
	files := []*os.File{pages(t, "abc"), pages(t, "xyz")}
	l := layout{{0, 4096, 4096}, {-1, 0, 1000}, {1, 100, 3096}, {0, 8192, 4096}}
	s, err := newSource(l, files)
	if err != nil {
		t.Fatal(err)
	}
	got := bytes.Repeat([]byte{'?'}, 3*smallPage)
	if err := s.fill(got, 0); err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{bytes.Repeat([]byte("b"), 4096), make([]byte, 1000), bytes.Repeat([]byte("x"), 3096), bytes.Repeat([]byte("c"), 4096)}, nil)
	if !bytes.Equal(got, want) {
		t.Error("the bytes differ")
	}
	part := make([]byte, 200)
	if err := s.fill(part, 4096+900); err != nil || !bytes.Equal(part, want[4096+900:][:200]) {
		t.Errorf("a part from the middle differs: %v", err)
	}
	s.announce(0, 4096)
}

func TestLayoutIsChecked(t *testing.T) {
	files := []*os.File{pages(t, "abc")}
	for name, tt := range map[string]struct {
		l    layout
		want error
	}{
		"good":                {layout{{0, 0, 8192}, {-1, 0, 4096}}, nil},
		"no such file":        {layout{{1, 0, 4096}}, errs.ErrInvalid},
		"no such file at all": {layout{{-2, 0, 4096}}, errs.ErrInvalid},
		"negative offset":     {layout{{0, -4096, 4096}}, errs.ErrInvalid},
		"the file is short":   {layout{{0, 8192, 8192}}, errs.ErrCorrupt},
		"beyond the file":     {layout{{0, 1 << 40, 4096}}, errs.ErrCorrupt},
	} {
		if _, err := newSource(tt.l, files); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, err := newSource(zeros(1), []*os.File{null}); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("a device: %v", err)
	}
}

func TestFileThatGetsShorter(t *testing.T) {
	f := pages(t, "abc")
	s, err := newSource(layout{{0, 0, 3 * smallPage}}, []*os.File{f})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.Name(), smallPage+10); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, smallPage)
	if err := s.fill(buf, 0); err != nil {
		t.Errorf("what is still there: %v", err)
	}
	if err := s.fill(buf, smallPage); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("a page that is cut: %v", err)
	}
}

// TestReadError has a file that cannot be read, which says so.
func TestReadError(t *testing.T) {
	f, err := os.OpenFile(pages(t, "abc").Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := newSource(layout{{0, 0, 3 * smallPage}}, []*os.File{f})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.fill(make([]byte, smallPage), smallPage); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), f.Name()) {
		t.Errorf("%v", err)
	}
}
