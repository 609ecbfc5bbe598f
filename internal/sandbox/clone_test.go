package sandbox

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
)

func TestNamedSnapshots(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if w.state(sb.ID) != Running || w.guest.refuses {
		t.Errorf("the source is %s", w.state(sb.ID))
	}
	if _, err := sb.Snapshot(t.Context(), "one"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("the name again: %v", err)
	}
	for _, name := range []string{"", "A", "../x", "-x", strings.Repeat("x", 65)} {
		if _, err := sb.Snapshot(t.Context(), name); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Fatal(err)
	}
	clone := w.create(Spec{Snapshot: "one"})
	if err := w.DeleteSnapshot(t.Context(), "one"); !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), clone.ID) {
		t.Errorf("deleted in use: %v", err)
	}
	if err := clone.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	if list, err := w.Snapshots(); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if err := w.DeleteSnapshot(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := w.DeleteSnapshot(t.Context(), "one"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	w.onlyBuilds(1)
}

func TestASnapshotsSizesAreItsOwn(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	for field, spec := range map[string]Spec{
		"vcpus": {VCPUs: 2}, "memory": {MemoryMiB: 512}, "disk": {DiskBytes: 1 << 30}, "cold": {Cold: true}, "template": {Template: "base"},
	} {
		spec.Snapshot = "one"
		var fe *errs.FieldError
		if _, err := w.Create(t.Context(), spec, nil); !errors.As(err, &fe) || fe.Field != field {
			t.Errorf("%s: %v", field, err)
		} else if field == "memory" && (!strings.Contains(err.Error(), "256") || !strings.Contains(err.Error(), "512")) {
			t.Errorf("%v does not name both values", err)
		}
	}
	same := w.create(Spec{Snapshot: "one", MemoryMiB: 256, VCPUs: 1})
	if err := errors.Join(same.Destroy(t.Context(), "done"), sb.Destroy(t.Context(), "done")); err != nil {
		t.Error(err)
	}
}

func TestFork(t *testing.T) {
	w := newWorld(t)
	w.network.Slots = 10
	sb := w.create(Spec{})
	clones, _, err := sb.Fork(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]bool{sb.Token: true}
	for _, c := range clones {
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		if tokens[c.Sandbox.Token] || c.Sandbox.Build() != sb.Build() {
			t.Errorf("clone %s of build %s", c.Sandbox.ID, c.Sandbox.Build())
		}
		tokens[c.Sandbox.Token] = true
	}
	if slices.ContainsFunc(w.refs(), func(r string) bool { return strings.HasPrefix(r, refFork) }) {
		t.Errorf("references %v", w.refs())
	}
	for _, s := range []*Sandbox{sb, clones[0].Sandbox, clones[1].Sandbox, clones[2].Sandbox} {
		if err := s.Destroy(t.Context(), "done"); err != nil {
			t.Error(err)
		}
	}
	w.empty()
	w.onlyBuilds(1)
	for _, count := range []int{0, -1, 101} {
		if _, _, err := sb.Fork(t.Context(), count, nil); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%d: %v", count, err)
		}
	}
}

func TestEachCloneFailsForItself(t *testing.T) {
	w := newWorld(t) // with three slots, one of which is taken
	sb := w.create(Spec{})
	clones, _, err := sb.Fork(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, c := range clones {
		if c.Err != nil {
			failed++
			if !errors.Is(c.Err, errs.ErrResourceExhausted) {
				t.Error(c.Err)
			}
			continue
		}
		if err := c.Sandbox.Destroy(t.Context(), "done"); err != nil {
			t.Error(err)
		}
	}
	if failed != 1 {
		t.Errorf("%d failed, want 1", failed)
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}
