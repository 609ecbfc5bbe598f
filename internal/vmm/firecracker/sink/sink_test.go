package sink

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pipe makes a named pipe and opens both ends twice: once for the reader, once for the writer, as a jail's is.
func pipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	reader, writer = open(), open()
	t.Cleanup(func() { writer.Close() })
	return reader, writer
}

// write writes without waiting for room, as Firecracker does.
func write(f *os.File, p []byte) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), p)
		return true
	})
	return errors.Join(cerr, err)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

func TestKeepsWhatCame(t *testing.T) {
	r, w := pipe(t)
	s := New(r)
	defer s.Close()
	if err := write(w, []byte("one\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first line did not come", func() bool { return string(s.Tail()) == "one\n" })
	if err := write(w, []byte("two\n")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got := string(s.Tail()); got != "one\ntwo\n" {
		t.Errorf("after Close: %q", got)
	}
	s.Close()
}

func TestFloodIsBoundedAndKeepsTheEnd(t *testing.T) {
	r, w := pipe(t)
	s := New(r)
	defer s.Close()
	began, dropped := time.Now(), 0
	for i := range 10000 {
		if err := write(w, bytes.Repeat([]byte{byte('a' + i%26)}, 1024)); errors.Is(err, unix.EAGAIN) {
			dropped++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > pause*time.Duration(10000/64) {
		t.Errorf("the writer was held up for %v", took)
	}
	if dropped == 0 {
		t.Error("nothing was dropped: the pipe has no bound")
	}
	if n := len(s.Tail()); n > Capacity {
		t.Errorf("%d bytes are kept", n)
	}
	s.Close()
	s.Close()
	if got := s.Tail(); len(got) > Capacity || len(got) == 0 {
		t.Errorf("%d bytes are kept after Close", len(got))
	}
}

func TestCapacity(t *testing.T) {
	s := &Sink{}
	for range 3 {
		s.add([]byte(strings.Repeat("x", Capacity-1)))
	}
	s.add([]byte("end"))
	if got := s.Tail(); len(got) != Capacity || !bytes.HasSuffix(got, []byte("xend")) {
		t.Errorf("%d bytes, end %q", len(got), got[len(got)-4:])
	}
}

// TestWriterOutlivesReader is why a writer has both ends open: it must not be ended by a broken pipe.
func TestWriterOutlivesReader(t *testing.T) {
	r, w := pipe(t)
	New(r).Close()
	if err := write(w, []byte("nobody reads")); err != nil {
		t.Errorf("write without a reader: %v", err)
	}
	again, err := os.OpenFile(w.Name(), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := New(again)
	s.Close()
	if got := string(s.Tail()); got != "nobody reads" {
		t.Errorf("the next reader got %q", got)
	}
}
