//go:build hosttest

package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
)

// image makes a file of 1 MiB, whose name no other test's file has.
func image(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(bytes.Repeat([]byte("wrenn"), 1<<20/5+1)[:1<<20]); err != nil {
		t.Fatal(err)
	}
	return f
}

func attach(t *testing.T, f *os.File, spec Spec) *Device {
	t.Helper()
	d, err := Attach(t.Context(), f, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestAttach(t *testing.T) {
	f := image(t)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		d := attach(t, f, Spec{Name: "some-name", ReadOnly: readOnly})
		s, err := d.Status()
		want := Status{Dev: st.Dev, Inode: st.Ino, Name: "wrenn-some-name", ReadOnly: readOnly, AutoClear: true, Whole: true}
		if err != nil || s != want {
			t.Errorf("status %+v, %v; want %+v", s, err, want)
		}
		if want := fmt.Sprintf("7:%d", d.Number); d.Table() != want {
			t.Errorf("table name %q, want %q", d.Table(), want)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := AwaitGone(t.Context(), f.Name()); err != nil {
			t.Errorf("the device stays after its last close: %v", err)
		}
	}
}

// TestDirect: past the page cache where the file system can, silently through it where it can't.
func TestDirect(t *testing.T) {
	d := attach(t, image(t), Spec{Name: "direct", Direct: true})
	if _, err := d.Status(); err != nil {
		t.Error(err)
	}
}

// TestHeldBySomebodyElse: the device lives as long as anybody has it open.
func TestHeldBySomebodyElse(t *testing.T) {
	f := image(t)
	first := attach(t, f, Spec{Name: "held"})
	second, err := Open(first.Number)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := second.Status(); err != nil {
		t.Errorf("it went although it is open: %v", err)
	}
	second.Close()
	if err := AwaitGone(t.Context(), f.Name()); err != nil {
		t.Error(err)
	}
}

func TestAwaitGoneGivesUp(t *testing.T) {
	f := image(t)
	attach(t, f, Spec{Name: "stays"})
	if err := AwaitGone(t.Context(), f.Name()); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("the device is there: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the caller left")
	cancel(why)
	if err := AwaitGone(ctx, f.Name()); !errors.Is(err, why) {
		t.Errorf("the caller left: %v", err)
	}
}

// TestManyAtOnce: each gets a device of its own although all ask for a free one at the same time.
func TestManyAtOnce(t *testing.T) {
	const many = 16
	f := image(t)
	var mu sync.Mutex
	seen := map[int]bool{}
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			d, err := Attach(t.Context(), f, Spec{Name: "many"})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { d.Close() })
			mu.Lock()
			defer mu.Unlock()
			if seen[d.Number] {
				t.Errorf("loop%d was given out twice", d.Number)
			}
			seen[d.Number] = true
		})
	}
	wg.Wait()
}

func TestOpenOfNone(t *testing.T) {
	if _, err := Open(1 << 19); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("a device that is not there: %v", err)
	}
}

// TestRegistryShares: one device for all, from any process, until the last one lets go.
func TestRegistryShares(t *testing.T) {
	f := image(t)
	dir := filepath.Join(t.TempDir(), "loops")
	const digest = "0123456789"
	numbers := make(chan int, 8)
	var wg sync.WaitGroup
	for range cap(numbers) {
		wg.Go(func() {
			d, err := NewRegistry(dir).Acquire(t.Context(), digest, f)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { d.Close() })
			numbers <- d.Number
		})
	}
	wg.Wait()
	close(numbers)
	first := <-numbers
	for n := range numbers {
		if n != first {
			t.Errorf("loop%d and loop%d show one image", first, n)
		}
	}
}

// TestRegistryForgets: the entry goes with the device, and the next one is as good.
func TestRegistryForgets(t *testing.T) {
	f := image(t)
	r := NewRegistry(filepath.Join(t.TempDir(), "loops"))
	for range 2 {
		d, err := r.Acquire(t.Context(), "0123456789", f)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := d.Status(); err != nil || !s.ReadOnly || s.Name != deviceName("0123456789") {
			t.Errorf("status %+v, %v", s, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.Prune(t.Context()); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(r.dir)
		if err != nil || len(left) != 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}
