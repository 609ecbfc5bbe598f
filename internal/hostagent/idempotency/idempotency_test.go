package idempotency

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

func open(t *testing.T, dir string) *Keys {
	t.Helper()
	k, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOnce(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir)
	var calls atomic.Int32
	fn := func(context.Context) ([]byte, error) { return fmt.Appendf(nil, "answer %d", calls.Add(1)), nil }
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a, err := k.Do(t.Context(), "key", []byte("request"), fn); err != nil || string(a) != "answer 1" {
				t.Errorf("%s, %v", a, err)
			}
		})
	}
	wg.Wait()
	k = open(t, dir) // a restart
	if a, err := k.Do(t.Context(), "key", []byte("request"), fn); err != nil || string(a) != "answer 1" {
		t.Errorf("after a restart: %s, %v", a, err)
	}
	if _, err := k.Do(t.Context(), "key", []byte("another"), fn); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("another request: %v", err)
	}
	if a, err := k.Do(t.Context(), "other", []byte("request"), fn); err != nil || string(a) != "answer 2" {
		t.Errorf("another key: %s, %v", a, err)
	}
}

func TestFailuresAreTriedAnew(t *testing.T) {
	k := open(t, t.TempDir())
	broken := errors.New("broken")
	if _, err := k.Do(t.Context(), "key", nil, func(context.Context) ([]byte, error) { return []byte("half"), broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if a, err := k.Do(t.Context(), "key", nil, func(context.Context) ([]byte, error) { return []byte("x"), nil }); err != nil || string(a) != "x" {
		t.Errorf("%s, %v", a, err)
	}
}

func TestWhoHangsUpStopsNothing(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := open(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := k.Do(ctx, "key", nil, func(ctx context.Context) ([]byte, error) {
			time.Sleep(time.Minute)
			return []byte("done"), ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		a, err := k.Do(t.Context(), "key", nil, func(context.Context) ([]byte, error) { return nil, errors.New("a second call") })
		if err != nil || string(a) != "done" {
			t.Errorf("%s, %v", a, err)
		}
	})
}

func TestADay(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := open(t, dir)
		n := 0
		fn := func(context.Context) ([]byte, error) { n++; return nil, nil }
		for _, after := range []time.Duration{0, Lifetime - time.Minute, 2 * time.Minute} {
			time.Sleep(after)
			if _, err := k.Do(t.Context(), "key", nil, fn); err != nil {
				t.Error(err)
			}
		}
		if n != 2 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestBounded(t *testing.T) {
	k := open(t, t.TempDir())
	for i := range MaxAnswers + 10 { // without the disk, which would take long
		name := Name(fmt.Sprint(i))
		k.begin(name, "")
		k.entries[name].Time = time.Now()
		k.order = append(k.order, name)
	}
	if len(k.entries) > MaxAnswers || len(k.order) > MaxAnswers {
		t.Errorf("%d answers", len(k.entries))
	}
}

func TestWhatIsNoAnswerGoes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".half", "x.json", "y"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}
