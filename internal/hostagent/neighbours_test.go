package hostagent_test

import (
	"path/filepath"
	"testing"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/sandbox/sandboxtest"
)

// TestTwoStateFoldersOnOneKernel: the drivers show an agent what the other one has, and it leaves that alone; what nobody has it takes apart.
func TestTwoStateFoldersOnOneKernel(t *testing.T) {
	w := newWorld(t)
	w.Neighbours = filepath.Join(t.TempDir(), "states")
	other := sandboxtest.NewHost(t)
	other.Neighbours, other.Machines, other.VMM = w.Neighbours, w.Machines, w.VMM
	a := w.agent(quota.Amount{})
	ours := w.create(a, hostagent.Spec{})
	theirs, err := other.Manager(t).Known(t.Context())
	if err != nil || len(theirs) != 0 {
		t.Errorf("the other one is to look at %v: %v", theirs, err)
	}
	if _, err := other.Manager(t).Sweep(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if w.state(a, ours.ID) != sandbox.Running {
		t.Errorf("after the other one's sweep it is %s", w.state(a, ours.ID))
	}
	alone := sandboxtest.NewHost(t)
	alone.Machines, alone.VMM = w.Machines, w.VMM
	if left, err := alone.Manager(t).Known(t.Context()); err != nil || len(left) != 1 || left[0] != ours.ID {
		t.Errorf("without a word of the other what it has would be left from a crash: %v %v", left, err)
	}
}
