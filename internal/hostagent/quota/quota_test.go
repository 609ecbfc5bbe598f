package quota

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

var one = Amount{Sandboxes: 1, VCPUs: 2, MemoryMiB: 512, DiskBytes: 1 << 30}

func TestEachLimit(t *testing.T) {
	for what, limits := range map[string]Amount{
		"sandboxes": {Sandboxes: 2}, "CPUs": {VCPUs: 4}, "memory": {MemoryMiB: 1024}, "disk": {DiskBytes: 2 << 30},
	} {
		l := New(limits)
		for _, name := range []string{"a", "b"} {
			if err := l.Reserve(name, one); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		before := l.Used()
		if err := l.Reserve("c", one); !errors.Is(err, errs.ErrResourceExhausted) || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if l.Used() != before {
			t.Errorf("%s: what was refused is counted: %+v", what, l.Used())
		}
		l.Set("a", Amount{})
		if err := l.Reserve("c", one); err != nil {
			t.Errorf("%s: after one went: %v", what, err)
		}
	}
}

func TestSleepersHoldTheirDisk(t *testing.T) {
	l := New(Amount{Sandboxes: 1, DiskBytes: 2 << 30})
	if err := l.Reserve("a", one); err != nil {
		t.Fatal(err)
	}
	l.Set("a", one.Asleep())
	if err := l.Reserve("b", one); err != nil {
		t.Error(err)
	}
	if err := l.Reserve("a", one); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("the sleeper woke over the limit: %v", err)
	}
	if got := l.Used(); got.DiskBytes != 2<<30 || got.Sandboxes != 1 {
		t.Errorf("%+v", got)
	}
}

func TestOverTheLimitOneMayStillGiveBack(t *testing.T) {
	l := New(Amount{VCPUs: 1})
	l.Set("a", one) // adopted
	if err := l.Reserve("a", Amount{Sandboxes: 1, VCPUs: 2}); err != nil {
		t.Error(err)
	}
}

func TestSplit(t *testing.T) {
	l := New(Amount{Sandboxes: 3})
	if err := l.Reserve("fork", one.Times(3)); err != nil {
		t.Fatal(err)
	}
	l.Split("fork", []string{"a", "b"}, one)
	if got := l.Used(); got != one.Times(2) {
		t.Errorf("%+v", got)
	}
}

func TestNeverOverUnderARace(t *testing.T) {
	l := New(Amount{Sandboxes: 10})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { _ = l.Reserve(string(rune('A'+i)), one) })
	}
	wg.Wait()
	if l.Used().Sandboxes != 10 {
		t.Errorf("%+v", l.Used())
	}
}
