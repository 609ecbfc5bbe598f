package hostagent_test

import (
	"errors"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// TestLogsOutliveTheAgent: what a machine wrote last is told by the agent that saw its end, and by the next one.
func TestLogsOutliveTheAgent(t *testing.T) {
	w := newWorld(t)
	first := w.agent(quota.Amount{})
	sb := w.create(first, hostagent.Spec{})
	want := "the log of " + sb.ID
	if l, err := first.Logs(t.Context(), sb.ID, 1000); err != nil || l.VMM != want {
		t.Errorf("while it runs: %+v, %v", l, err)
	}
	w.Machines.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM})
	w.until(first, sb.ID, sandbox.Failed)
	w.unused(first)
	w.settle(first)
	if l, err := first.Logs(t.Context(), sb.ID, 1000); err != nil || l.VMM != want {
		t.Errorf("when it has ended: %+v, %v", l, err)
	}
	w.close(first)
	second := w.agent(quota.Amount{})
	if l, err := second.Logs(t.Context(), sb.ID, 4); err != nil || l.VMM != want[len(want)-4:] {
		t.Errorf("by the next agent: %+v, %v", l, err)
	}
	if _, err := second.Destroy(t.Context(), sb.ID, "seen"); err != nil {
		t.Error(err)
	}
	if _, err := second.Logs(t.Context(), sb.ID, 4); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("of one that is gone: %v", err)
	}
}

// TestOnlySoManyRecordsOfTheEndedAreKept: those of the last ones.
func TestOnlySoManyRecordsOfTheEndedAreKept(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	a.SetMaxBuried(2)
	var ids []string
	for range 4 {
		sb := w.create(a, hostagent.Spec{})
		w.Machines.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM})
		w.until(a, sb.ID, sandbox.Failed)
		ids = append(ids, sb.ID)
	}
	w.until(a, ids[0], sandbox.Stopped)
	w.until(a, ids[1], sandbox.Stopped)
	for i, want := range []sandbox.State{sandbox.Stopped, sandbox.Stopped, sandbox.Failed, sandbox.Failed} {
		if got := w.state(a, ids[i]); got != want {
			t.Errorf("the %dth is %s, want %s", i+1, got, want)
		}
	}
}
