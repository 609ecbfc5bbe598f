package loop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestNumber(t *testing.T) {
	r := NewRegistry(filepath.Join(t.TempDir(), "loops"))
	for content, want := range map[string]int{
		"7\n": 7, "1048575": 1048575, "": -1, "seven": -1, "-1": -1, "1048576": -1, strings.Repeat("1", 1<<20): -1,
	} {
		entry := filepath.Join(r.dir, "digest")
		if err := os.MkdirAll(entry, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := replace(filepath.Join(entry, numberFile), content); err != nil {
			t.Fatal(err)
		}
		if got, err := r.number("digest"); got != want || err != nil {
			t.Errorf("%.20q: %d, %v; want %d", content, got, err, want)
		}
	}
	if got, err := r.number("none"); got != -1 || err != nil {
		t.Errorf("no entry: %d, %v", got, err)
	}
}

func TestDeviceName(t *testing.T) {
	if got := deviceName(strings.Repeat("a", 64)); len(got) != maxNameBytes || !strings.HasPrefix(got, Prefix) {
		t.Errorf("%q has %d bytes", got, len(got))
	}
}

// TestExclusively: one at a time, also among goroutines of one process.
func TestExclusively(t *testing.T) {
	r := NewRegistry(filepath.Join(t.TempDir(), "loops"))
	var inside, total atomic.Int32 // the race detector knows nothing of locks on files
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := r.exclusively(t.Context(), func() error {
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d are inside", n)
				}
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				total.Add(1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := total.Load(); n != 8 {
		t.Errorf("%d of 8 ran", n)
	}
}

// TestExclusivelySeesTheEndOfItsContext although whoever holds the lock does not move.
func TestExclusivelySeesTheEndOfItsContext(t *testing.T) {
	r := NewRegistry(filepath.Join(t.TempDir(), "loops"))
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := r.exclusively(t.Context(), func() error {
		time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
		return r.exclusively(ctx, func() error { t.Error("both are inside"); return nil })
	})
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// TestPruneForgetsWhatIsGone: an entry without a device behind it, and one that says nothing.
func TestPruneForgetsWhatIsGone(t *testing.T) {
	r := NewRegistry(filepath.Join(t.TempDir(), "loops"))
	if err := r.Prune(t.Context()); err != nil {
		t.Errorf("no folder: %v", err)
	}
	for name, content := range map[string]string{"gone": "1048575\n", "half": ""} {
		if err := os.MkdirAll(filepath.Join(r.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := replace(filepath.Join(r.dir, name, numberFile), content); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(r.dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
