package hostagent_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
)

// TestOneDamagedRecord: an agent starts all the same, has the others, says of that one what is wrong, and removes it when it is asked to.
func TestOneDamagedRecord(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	damaged, other := w.create(a, hostagent.Spec{}), w.create(a, hostagent.Spec{})
	w.close(a)
	path := filepath.Join(w.StateDir, "sandboxes", damaged.ID, "record.json")
	if err := os.WriteFile(path, []byte(`{"sha256": "00",`), 0o600); err != nil {
		t.Fatal(err)
	}
	a = w.agent(quota.Amount{})
	if w.state(a, other.ID) != sandbox.Running {
		t.Errorf("the other is %s", w.state(a, other.ID))
	}
	if _, err := a.Get(damaged.ID); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := a.Pause(t.Context(), damaged.ID, "idle"); !errors.Is(err, errs.ErrCorrupt) {
		t.Errorf("pause: %v", err)
	}
	list, _, err := a.List(hostagent.Filter{}, "", 10)
	i := slices.IndexFunc(list, func(i hostagent.Info) bool { return i.ID == damaged.ID })
	if err != nil || len(list) != 2 || list[i].State != sandbox.Unreadable || list[i].Changes[0].Reason == "" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if states := a.Status().States; states[sandbox.Unreadable] != 1 || states[sandbox.Running] != 1 {
		t.Errorf("status: %v", states)
	}
	for _, id := range []string{damaged.ID, other.ID} {
		if _, err := a.Destroy(t.Context(), id, "done"); err != nil {
			t.Error(err)
		}
	}
	if known, err := w.Manager(t).Known(t.Context()); err != nil || len(known) != 0 {
		t.Errorf("left: %v, %v", known, err)
	}
}
