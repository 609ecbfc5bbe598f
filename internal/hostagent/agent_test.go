package hostagent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

func TestALife(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{Labels: map[string]string{"for": "test"}})
	if sb.State != sandbox.Running || sb.Labels["for"] != "test" {
		t.Errorf("%+v", sb)
	}
	if _, steps, err := a.Pause(t.Context(), sb.ID, "idle"); err != nil || len(steps) == 0 {
		t.Fatal(steps, err)
	}
	if got := a.Status().Used; got.Sandboxes != 0 || got.DiskBytes == 0 {
		t.Errorf("a paused one takes %+v", got)
	}
	if _, _, err := a.Pause(t.Context(), sb.ID, "again"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if info, steps, err := a.Resume(t.Context(), sb.ID); err != nil || info.State != sandbox.Running || len(steps) == 0 || info.Labels["for"] != "test" {
		t.Fatal(info, steps, err)
	}
	if _, _, err := a.Resume(t.Context(), sb.ID); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if snap, _, err := a.CreateSnapshot(t.Context(), sb.ID, "one"); err != nil || snap.Build == "" {
		t.Error(snap, err)
	}
	if _, _, err := a.CreateSnapshot(t.Context(), sb.ID, "one"); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Error(err)
	}
	clones, _, err := a.Fork(t.Context(), sb.ID, hostagent.Forks{Count: 3})
	if err != nil || len(clones) != 3 {
		t.Fatal(clones, err)
	}
	from := w.create(a, hostagent.Spec{Spec: sandbox.Spec{Snapshot: "one"}})
	if got := a.Status(); got.Used.Sandboxes != 5 || got.States[sandbox.Running] != 5 {
		t.Errorf("%+v", got)
	}
	if err := a.DeleteSnapshot(t.Context(), "one"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	for _, id := range []string{clones[0].Info.ID, clones[1].Info.ID, clones[2].Info.ID, from.ID, sb.ID} {
		if _, err := a.Destroy(t.Context(), id, "done"); err != nil {
			t.Error(err)
		}
	}
	if _, err := a.Destroy(t.Context(), sb.ID, "again"); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if err := a.DeleteSnapshot(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if got := a.Status(); !unused(got.Used) || len(got.States) != 0 {
		t.Errorf("left: %+v", got)
	}
}

func TestListPages(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	for i := range 5 {
		w.create(a, hostagent.Spec{Labels: map[string]string{"odd": fmt.Sprint(i % 2)}})
	}
	seen, after := 0, ""
	for {
		list, more, err := a.List(hostagent.Filter{}, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			if i.ID <= after {
				t.Error("out of order")
			}
			seen, after = seen+1, i.ID
		}
		if !more {
			break
		}
	}
	if seen != 5 {
		t.Errorf("saw %d", seen)
	}
	if odd, _, err := a.List(hostagent.Filter{Labels: map[string]string{"odd": "1"}}, "", 100); err != nil || len(odd) != 2 {
		t.Error(odd, err)
	}
	if paused, _, err := a.List(hostagent.Filter{States: map[sandbox.State]bool{sandbox.Paused: true}}, "", 100); err != nil || len(paused) != 0 {
		t.Error(paused, err)
	}
}

// TestOneSandboxInLine has a slow pause: what is asked of the same sandbox waits for it, what is asked of another doesn't.
func TestOneSandboxInLine(t *testing.T) {
	w := newWorld(t)
	hold, entered := make(chan struct{}), make(chan struct{}, 1)
	a := w.agent(quota.Amount{})
	slow, other := w.create(a, hostagent.Spec{}), w.create(a, hostagent.Spec{})
	w.VMM.OnPause = func(_ context.Context, id string) error {
		if id == slow.ID {
			entered <- struct{}{}
			<-hold
		}
		return nil
	}
	var wg sync.WaitGroup
	var order []string
	var mu sync.Mutex
	done := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if order = append(order, what); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	wg.Go(func() { _, _, err := a.Pause(t.Context(), slow.ID, "x"); done("pause", err) })
	<-entered
	wg.Go(func() { _, _, err := a.Resume(t.Context(), slow.ID); done("resume", err) })
	if _, _, err := a.Pause(t.Context(), other.ID, "x"); err != nil {
		t.Error(err)
	}
	done("other", nil)
	close(hold)
	wg.Wait()
	if got := strings.Join(order, " "); !strings.HasPrefix(got, "other pause") && got != "other resume pause" {
		t.Error(got)
	}
	if w.state(a, slow.ID) != sandbox.Running {
		t.Errorf("after pause and resume it is %s", w.state(a, slow.ID))
	}
}

// TestWhoHangsUpAbortsNothing leaves a pause under way and one that waits in line.
func TestWhoHangsUpAbortsNothing(t *testing.T) {
	w := newWorld(t)
	hold, entered := make(chan struct{}), make(chan struct{}, 1)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	w.VMM.OnPause = func(ctx context.Context, _ string) error { entered <- struct{}{}; <-hold; return ctx.Err() }
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 2)
	go func() { _, _, err := a.Pause(ctx, sb.ID, "x"); left <- err }()
	<-entered
	go func() { _, err := a.Destroy(ctx, sb.ID, "x"); left <- err }()
	cancel()
	for range 2 {
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	close(hold)
	w.until(a, sb.ID, sandbox.Paused)
	w.settle(a)
	if w.state(a, sb.ID) != sandbox.Paused {
		t.Error("what waited in line when its caller left was done")
	}
}

func TestTheLineIsBounded(t *testing.T) {
	w := newWorld(t)
	hold, entered := make(chan struct{}), make(chan struct{}, 100)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	w.VMM.OnPause = func(context.Context, string) error { entered <- struct{}{}; <-hold; return nil }
	var wg sync.WaitGroup
	full := make(chan error, 100)
	for range 50 {
		wg.Go(func() {
			_, _, err := a.CreateSnapshot(t.Context(), sb.ID, "same")
			full <- err
		})
	}
	<-entered
	if err := <-full; !errors.Is(err, errs.ErrResourceExhausted) {
		t.Error(err)
	}
	close(hold)
	wg.Wait()
}

func TestQuotasRefuseBeforeAnythingIsMade(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{Sandboxes: 2, MemoryMiB: 600})
	first := w.create(a, hostagent.Spec{})
	w.create(a, hostagent.Spec{})
	w.VMM.OnStart = func(context.Context, vmm.Config) error { t.Error("a machine was started"); return nil }
	if _, _, err := a.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base"}}); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Error(err)
	}
	if _, _, err := a.Fork(t.Context(), first.ID, hostagent.Forks{Count: 1}); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Error(err)
	}
	w.VMM.OnStart = nil
	if _, _, err := a.Pause(t.Context(), first.ID, "x"); err != nil {
		t.Fatal(err)
	}
	w.create(a, hostagent.Spec{})
	if _, _, err := a.Resume(t.Context(), first.ID); !errors.Is(err, errs.ErrResourceExhausted) || w.state(a, first.ID) != sandbox.Paused {
		t.Error(err, w.state(a, first.ID))
	}
}

func TestAFailedCreateGivesBackItsRoom(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{Sandboxes: 1})
	broken := errors.New("broken")
	w.VMM.OnStart = func(context.Context, vmm.Config) error { return broken }
	for range 3 {
		if _, _, err := a.Create(t.Context(), hostagent.Spec{Spec: sandbox.Spec{Template: "base"}}); !errors.Is(err, broken) {
			t.Error(err)
		}
	}
	w.VMM.OnStart = nil
	w.create(a, hostagent.Spec{})
}

// TestAMachineThatEnds is on record with the reason, gives back what it had, and stays to be asked about.
func TestAMachineThatEnds(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	sb := w.create(a, hostagent.Spec{})
	w.Machines.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM, Detail: "out of memory"})
	info := w.until(a, sb.ID, sandbox.Failed)
	w.settle(a)
	if last := info.Changes[len(info.Changes)-1]; !strings.Contains(last.Reason, "out of memory") {
		t.Errorf("%+v", last)
	}
	w.unused(a)
	if ids, err := w.VMM.List(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
	if _, _, err := a.Pause(t.Context(), sb.ID, "x"); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if _, err := a.Destroy(t.Context(), sb.ID, "x"); err != nil {
		t.Error(err)
	}
}

func TestEventsTellOfEveryChange(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	w.create(a, hostagent.Spec{}) // with the warm build's
	at := a.LastEvent()
	sb := w.create(a, hostagent.Spec{})
	if _, _, err := a.Pause(t.Context(), sb.ID, "idle"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Destroy(t.Context(), sb.ID, "unwanted"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []sandbox.State{sandbox.Starting, sandbox.Running, sandbox.Pausing, sandbox.Paused, sandbox.Stopping, sandbox.Stopped} {
		e, err := a.Next(t.Context(), at)
		if err != nil || e.Gap || e.What.State != want || e.What.Reason == "" || e.What.Sandbox != sb.ID {
			t.Errorf("%+v, %v; want %s", e, err, want)
		}
		at = e.ID
	}
}

func TestASecondAgentIsRefused(t *testing.T) {
	w := newWorld(t)
	w.agent(quota.Amount{})
	if _, err := hostagent.Start(t.Context(), w.config(quota.Amount{})); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
}
