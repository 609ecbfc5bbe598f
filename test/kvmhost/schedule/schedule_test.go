package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// farm makes fake hosts and counts them.
type farm struct {
	do   func(ctx context.Context, host, item int) (string, error)
	boot func(host int) error

	mu     sync.Mutex
	open   map[*fake]bool
	booted int
	done   []int // items in the order that they were begun
	faults []string
}

type fake struct {
	farm *farm
	n    int
	busy bool
	lost bool
}

func (f *farm) Boot(_ context.Context, n int) (Host[int, string], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.booted++
	if f.boot != nil {
		if err := f.boot(n); err != nil {
			return nil, err
		}
	}
	if f.open == nil {
		f.open = map[*fake]bool{}
	}
	h := &fake{farm: f, n: n}
	f.open[h] = true
	return h, nil
}

func (h *fake) Do(ctx context.Context, item int) (string, error) {
	f := h.farm
	f.mu.Lock()
	if h.busy || h.lost || !f.open[h] {
		f.faults = append(f.faults, fmt.Sprintf("host %d was used while busy, lost or closed", h.n))
	}
	h.busy = true
	f.done = append(f.done, item)
	f.mu.Unlock()
	result, err := f.do(ctx, h.n, item)
	f.mu.Lock()
	defer f.mu.Unlock()
	h.busy, h.lost = false, errors.Is(err, ErrLost)
	return result, err
}

func (h *fake) Close() error {
	h.farm.mu.Lock()
	defer h.farm.mu.Unlock()
	if !h.farm.open[h] {
		h.farm.faults = append(h.farm.faults, fmt.Sprintf("host %d was closed twice", h.n))
	}
	delete(h.farm.open, h)
	return errors.New("nobody minds")
}

// run runs items 0 to n-1 and checks what always holds.
func (f *farm) run(t fataler, ctx context.Context, n, hosts int, onLoss func(int, error, bool)) []Outcome[int, string] {
	items := make([]int, n)
	for i := range items {
		items[i] = i
	}
	q := &Queue[int, string]{Items: items, Hosts: hosts, Boot: f.Boot, OnLoss: onLoss}
	out := q.Run(ctx)
	if len(out) != n || len(f.open) > 0 || len(f.faults) > 0 {
		t.Fatalf("%d outcomes of %d, %d hosts left open, %q", len(out), n, len(f.open), f.faults)
	}
	again := 0
	for i, o := range out {
		if again += o.Again; o.Item != i {
			t.Fatalf("outcome %d is of item %d", i, o.Item)
		}
	}
	if again > MaxRepeats {
		t.Fatalf("%d items were run again", again)
	}
	return out
}

type fataler interface{ Fatalf(string, ...any) }

func TestNothingToDo(t *testing.T) {
	f := &farm{}
	if f.run(t, t.Context(), 0, 3, nil); f.booted != 0 {
		t.Errorf("%d hosts were booted for nothing", f.booted)
	}
}

// TestItemsAreShared: no host waits while there is work, and no more hosts are made than there are items.
func TestItemsAreShared(t *testing.T) {
	const hosts = 3
	var together sync.WaitGroup
	together.Add(hosts)
	f := &farm{do: func(_ context.Context, host, item int) (string, error) {
		if item < hosts { // the first ones end only when all hosts have one
			together.Done()
			together.Wait()
		}
		return fmt.Sprint(item), nil
	}}
	for i, o := range f.run(t, t.Context(), 10, hosts, nil) {
		if o.Err != nil || o.Result != fmt.Sprint(i) || o.Again != 0 {
			t.Errorf("%+v", o)
		}
	}
	if f.booted != hosts {
		t.Errorf("%d hosts were booted", f.booted)
	}
	f = &farm{do: func(context.Context, int, int) (string, error) { return "", nil }}
	if f.run(t, t.Context(), 2, 10, nil); f.booted > 2 {
		t.Errorf("%d hosts were booted for 2 items", f.booted)
	}
}

// TestALostHost: the interrupted item alone is run again, as the next one, on a new host.
func TestALostHost(t *testing.T) {
	lost := fmt.Errorf("%w: it hangs", ErrLost)
	tries := 0
	f := &farm{do: func(_ context.Context, _, item int) (string, error) {
		if item == 1 {
			if tries++; tries == 1 {
				return "half", lost
			}
		}
		return "whole", nil
	}}
	var told []string
	out := f.run(t, t.Context(), 3, 1, func(item int, err error, again bool) {
		told = append(told, fmt.Sprint(item, err, again))
	})
	if !slices.Equal(f.done, []int{0, 1, 1, 2}) || f.booted != 2 {
		t.Errorf("items ran as %v on %d hosts", f.done, f.booted)
	}
	if want := fmt.Sprint(1, lost, true); len(told) != 1 || told[0] != want {
		t.Errorf("told %q, want %q", told, want)
	}
	for i, o := range out {
		if o.Err != nil || o.Result != "whole" || (o.Again == 1) != (i == 1) {
			t.Errorf("%+v", o)
		}
	}
}

// TestRepeatsAreBounded: a run whose hosts are always lost ends, and each item but two is tried once.
func TestRepeatsAreBounded(t *testing.T) {
	for name, f := range map[string]*farm{
		"in use":  {do: func(context.Context, int, int) (string, error) { return "", ErrLost }},
		"at boot": {boot: func(int) error { return ErrLost }},
	} {
		for _, hosts := range []int{1, 3} {
			f.booted, f.done = 0, nil
			var mu sync.Mutex
			losses, repeats := 0, 0
			out := f.run(t, t.Context(), 5, hosts, func(_ int, _ error, again bool) {
				mu.Lock()
				defer mu.Unlock()
				losses++
				if again {
					repeats++
				}
			})
			for _, o := range out {
				if !errors.Is(o.Err, ErrLost) {
					t.Errorf("%s: %+v", name, o)
				}
			}
			if f.booted != 5+MaxRepeats || losses != 5+MaxRepeats || repeats != MaxRepeats {
				t.Errorf("%s, %d hosts: %d boots, %d losses, %d repeats", name, hosts, f.booted, losses, repeats)
			}
		}
	}
}

// TestOtherFailuresAreNotRepeated: an item's own failure is its outcome, and its host goes on.
func TestOtherFailuresAreNotRepeated(t *testing.T) {
	own := errors.New("the item failed")
	f := &farm{do: func(_ context.Context, _, item int) (string, error) { return "r", own }}
	for _, o := range f.run(t, t.Context(), 4, 1, func(int, error, bool) { t.Error("a loss is told") }) {
		if !errors.Is(o.Err, own) || o.Result != "r" || o.Again != 0 {
			t.Errorf("%+v", o)
		}
	}
	if f.booted != 1 || len(f.done) != 4 {
		t.Errorf("%d hosts, items %v", f.booted, f.done)
	}
	none := errors.New("no memory")
	f = &farm{boot: func(int) error { return none }}
	for _, o := range f.run(t, t.Context(), 2, 1, nil) {
		if !errors.Is(o.Err, none) || o.Again != 0 {
			t.Errorf("boot: %+v", o)
		}
	}
}

// TestTheContextEnds: what runs is interrupted, what waits is not begun, and all have an outcome.
func TestTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &farm{do: func(ctx context.Context, _, item int) (string, error) {
		if item == 1 {
			cancel()
			<-ctx.Done()
			return "", ctx.Err()
		}
		return "", nil
	}}
	out := f.run(t, ctx, 4, 1, nil)
	for i, o := range out {
		if want := i > 0; errors.Is(o.Err, context.Canceled) != want {
			t.Errorf("%+v", o)
		}
	}
	if !slices.Equal(f.done, []int{0, 1}) {
		t.Errorf("begun: %v", f.done)
	}
}

// TestAnyRun loses hosts at random: every item has an outcome, and was tried once and once more for each repeat.
func TestAnyRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, hosts := rapid.IntRange(0, 12).Draw(t, "items"), rapid.IntRange(-1, 5).Draw(t, "hosts")
		lossy := rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "lost at the first try")
		var mu sync.Mutex
		tries := make([]int, n)
		f := &farm{do: func(_ context.Context, _, item int) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if tries[item]++; tries[item] == 1 && lossy[item] {
				return "", ErrLost
			}
			return "ok", nil
		}}
		for i, o := range f.run(t, context.Background(), n, hosts, nil) {
			if tries[i] != 1+o.Again || (o.Err == nil) != (!lossy[i] || o.Again > 0) {
				t.Fatalf("%+v after %d tries", o, tries[i])
			}
		}
	})
}
