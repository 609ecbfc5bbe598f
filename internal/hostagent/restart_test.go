package hostagent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// TestARestartLosesNone stops an agent under running and paused sandboxes and starts another.
func TestARestartLosesNone(t *testing.T) {
	w := newWorld(t)
	first := w.agent(quota.Amount{})
	var running []hostagent.Info
	for range 40 {
		running = append(running, w.create(first, hostagent.Spec{TTL: time.Hour, Labels: map[string]string{"a": "b"}}))
	}
	paused := w.create(first, hostagent.Spec{})
	if _, _, err := first.Pause(t.Context(), paused.ID, "x"); err != nil {
		t.Fatal(err)
	}
	used := first.Status().Used
	w.close(first)
	if _, _, err := first.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base"}}); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("a stopped agent: %v", err)
	}

	second := w.agent(quota.Amount{Sandboxes: 1}) // fewer than there are: what runs stays
	if second.Status().Used != used {
		t.Errorf("%+v, was %+v", second.Status().Used, used)
	}
	for _, sb := range running {
		info, err := second.Get(sb.ID)
		if err != nil || info.State != sandbox.Running || info.Labels["a"] != "b" || info.ExpiresAt.IsZero() {
			t.Errorf("%+v, %v", info, err)
		}
		if list, err := second.Processes(t.Context(), sb.ID); err != nil || len(list) != 1 {
			t.Error(list, err)
		}
		if _, _, err := second.Pause(t.Context(), sb.ID, "x"); err != nil {
			t.Error(err)
		}
	}
	if w.state(second, paused.ID) != sandbox.Paused {
		t.Error(w.state(second, paused.ID))
	}
}

// TestAReboot finds its paused sandboxes paused and its running ones lost, with the reason, and nothing else of them.
func TestAReboot(t *testing.T) {
	w := newWorld(t)
	first := w.agent(quota.Amount{})
	running, paused := w.create(first, hostagent.Spec{}), w.create(first, hostagent.Spec{})
	if _, _, err := first.Pause(t.Context(), paused.ID, "x"); err != nil {
		t.Fatal(err)
	}
	w.close(first)
	w.Reboot()
	second := w.agent(quota.Amount{})
	info, err := second.Get(running.ID)
	if err != nil || info.State != sandbox.Lost {
		t.Fatalf("%+v, %v", info, err)
	}
	if last := info.Changes[len(info.Changes)-1]; !strings.Contains(last.Reason, "the host was restarted") {
		t.Errorf("%+v", last)
	}
	for name, list := range map[string]func(context.Context) ([]string, error){
		"machine": w.VMM.List, "disk": w.Disk.List, "network": w.Network.List, "pager": w.Pagers.List,
	} {
		if ids, err := list(t.Context()); err != nil || len(ids) != 0 {
			t.Errorf("%s is left: %v, %v", name, ids, err)
		}
	}
	if got := second.Status().Used; got.Sandboxes != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := second.Processes(t.Context(), running.ID); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if _, _, err := second.Resume(t.Context(), paused.ID); err != nil {
		t.Error(err)
	}
	if _, err := second.Destroy(t.Context(), running.ID, "seen"); err != nil {
		t.Error(err)
	}
}

// TestAMachineThatEndedMeanwhile is lost, although the host was not restarted.
func TestAMachineThatEndedMeanwhile(t *testing.T) {
	w := newWorld(t)
	first := w.agent(quota.Amount{})
	machine, pager := w.create(first, hostagent.Spec{}), w.create(first, hostagent.Spec{})
	w.close(first)
	w.Machines.End(machine.ID, vmm.Exit{Reason: vmm.ExitOOM})
	w.Pagers.Die(pager.ID, "killed")
	second := w.agent(quota.Amount{})
	for _, id := range []string{machine.ID, pager.ID} {
		if got := w.until(second, id, sandbox.Lost).Changes; !strings.Contains(got[len(got)-1].Reason, "nobody watched") {
			t.Errorf("%+v", got)
		}
	}
}

// TestOneThatDoesNotAnswer is neither lost nor in the way of the others; it is taken over when it answers.
func TestOneThatDoesNotAnswer(t *testing.T) {
	w := newWorld(t)
	first := w.agent(quota.Amount{})
	sb := w.create(first, hostagent.Spec{})
	w.close(first)
	w.Guest.OnAwake = func(context.Context) error { return errors.New("hung") }
	second := w.agent(quota.Amount{})
	if w.state(second, sb.ID) != sandbox.Running || second.Status().Used.Sandboxes != 1 {
		t.Errorf("it is %s", w.state(second, sb.ID))
	}
	if _, err := second.Processes(t.Context(), sb.ID); err == nil {
		t.Error("it answered")
	}
	w.Guest.OnAwake = nil
	if list, err := second.Processes(t.Context(), sb.ID); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
}

// TestACreateIsFoundByItsKey after an agent that ended before it could keep the answer.
func TestACreateIsFoundByItsKey(t *testing.T) {
	w := newWorld(t)
	first := w.agent(quota.Amount{})
	sb := w.create(first, hostagent.Spec{Key: "k"})
	w.close(first)
	second := w.agent(quota.Amount{})
	if again := w.create(second, hostagent.Spec{Key: "k"}); again.ID != sb.ID {
		t.Errorf("%s, was %s", again.ID, sb.ID)
	}
	if other := w.create(second, hostagent.Spec{Key: "other"}); other.ID == sb.ID {
		t.Error("another key found it")
	}
}

func TestDestroyAll(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	for range 3 {
		w.create(a, hostagent.Spec{})
	}
	if err := a.DestroyAll(t.Context(), "shut down"); err != nil {
		t.Error(err)
	}
	if list, _, err := a.List(hostagent.Filter{}, "", 10); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

// TestAnotherProgramsSandboxIsLeftAlone while it is in use: it takes nothing of the limits, and can't be worked on.
func TestAnotherProgramsSandboxIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	theirs, err := w.Manager(t).Create(t.Context(), sandbox.Spec{Template: "base"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := w.agent(quota.Amount{})
	if got := a.Status(); got.Used.Sandboxes != 0 || got.States[sandbox.Running] != 1 {
		t.Errorf("%+v", got)
	}
	if _, _, err := a.Pause(t.Context(), theirs.ID, "x"); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
	if err := theirs.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	if _, err := a.Destroy(t.Context(), theirs.ID, "x"); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
}

// TestASandboxThatIsLookedAt is waited for: a sweep holds a paused one for a moment.
func TestASandboxThatIsLookedAt(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	if _, _, err := a.Pause(t.Context(), sb.ID, "x"); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(w.StateDir, "sandboxes", sb.ID, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	resumed := make(chan error, 1)
	go func() { _, _, err := a.Resume(t.Context(), sb.ID); resumed <- err }()
	select {
	case err := <-resumed:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-resumed; err != nil {
		t.Error(err)
	}
}
