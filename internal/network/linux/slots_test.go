package linux

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestSlotIsClaimedOnce(t *testing.T) {
	s := slots{t.TempDir()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 20 {
		wg.Go(func() {
			switch err := s.claim(3, "cl-a"); {
			case err == nil:
				mu.Lock()
				won++
				mu.Unlock()
			case !errors.Is(err, errs.ErrAlreadyExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d claims succeeded, want 1", won)
	}
}

func TestSlotsAndTheirOwners(t *testing.T) {
	s := slots{t.TempDir()}
	for slot, id := range map[int]string{0: "cl-a", 7: "cl-b"} {
		if err := s.claim(slot, id); err != nil {
			t.Fatal(err)
		}
	}
	// What has no slot's name is none.
	if err := os.WriteFile(filepath.Join(s.dir, "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.all()
	if err != nil || !maps.Equal(all, map[int]string{0: "cl-a", 7: "cl-b"}) {
		t.Errorf("all = %v, %v", all, err)
	}
	if of, err := s.of("cl-b"); err != nil || !slices.Equal(of, []int{7}) {
		t.Errorf("of = %v, %v", of, err)
	}
	for range 2 {
		if err := s.free(7); err != nil {
			t.Error(err)
		}
	}
	if owner, err := s.owner(7); err != nil || owner != "" {
		t.Errorf("owner = %q, %v", owner, err)
	}
	if err := s.claim(7, "cl-c"); err != nil {
		t.Error(err)
	}
}

func TestPickSkipsWhatIsTaken(t *testing.T) {
	d, err := New(Config{StateDir: t.TempDir(), Slots: 3})
	if err != nil {
		t.Fatal(err)
	}
	named, err := namedSlots()
	if err != nil {
		t.Fatal(err)
	}
	if len(named) > 0 {
		t.Fatalf("this machine has namespaces of sandboxes: %v", named)
	}
	for want, id := range []string{"cl-a", "cl-b", "cl-c"} {
		slot, err := d.pick(id)
		if err != nil || slot != want {
			t.Fatalf("pick = %d, %v; want %d", slot, err, want)
		}
		if err := d.slots.claim(slot, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.pick("cl-d"); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("pick: %v, want ErrResourceExhausted", err)
	}
	if _, err := d.pick("cl-b"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("pick: %v, want ErrAlreadyExists", err)
	}
}

func TestNewRefusesWhatCannotBe(t *testing.T) {
	for _, cfg := range []Config{
		{StateDir: t.TempDir(), Slots: -1},
		{StateDir: t.TempDir(), Slots: MaxSlots + 1},
		{StateDir: filepath.Join(t.TempDir(), strings.Repeat("x", 250))},
	} {
		if _, err := New(cfg); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("New(%+v): %v, want ErrInvalid", cfg, err)
		}
	}
}

func TestFindForgetsASlotThatIsAnothersNow(t *testing.T) {
	d, err := New(Config{StateDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.slots.claim(4, "cl-a"); err != nil {
		t.Fatal(err)
	}
	if slot, err := d.find("cl-a"); err != nil || slot != 4 {
		t.Fatalf("find = %d, %v", slot, err)
	}
	if err := errors.Join(d.slots.free(4), d.slots.claim(4, "cl-b"), d.slots.claim(5, "cl-a")); err != nil {
		t.Fatal(err)
	}
	if slot, err := d.find("cl-a"); err != nil || slot != 5 {
		t.Errorf("find = %d, %v; want 5", slot, err)
	}
	if err := d.slots.free(5); err != nil {
		t.Fatal(err)
	}
	if _, err := d.find("cl-a"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("find: %v, want ErrNotFound", err)
	}
}

func TestStepEndsWithItsContext(t *testing.T) {
	reason := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := step(ctx, pointSlot); err != nil {
		t.Error(err)
	}
	cancel(reason)
	if err := step(ctx, pointSlot); !errors.Is(err, reason) {
		t.Errorf("step: %v, want the cause", err)
	}
}

func TestFailpointsAreNamedOnce(t *testing.T) {
	list := Failpoints()
	seen := map[string]bool{}
	for _, name := range list {
		if seen[name] || !strings.HasPrefix(name, "network.") {
			t.Errorf("%q", name)
		}
		seen[name] = true
	}
}

// TestHandOver gives a slot to another, and what a killed process has left of that goes with a tidying, and nothing else.
func TestHandOver(t *testing.T) {
	s := slots{t.TempDir()}
	if err := s.claim(4, ready); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("cl-dead", s.path(4)+handed); err != nil {
		t.Fatal(err)
	}
	if all, err := s.all(); err != nil || !maps.Equal(all, map[int]string{4: ready}) {
		t.Errorf("before: %v, %v", all, err)
	}
	if err := s.hand(4, "cl-a"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("cl-dead", s.path(5)+handed); err != nil {
		t.Fatal(err)
	}
	if err := s.tidy(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	if owner, err := s.owner(4); err != nil || owner != "cl-a" {
		t.Errorf("after: %q, %v", owner, err)
	}
}
