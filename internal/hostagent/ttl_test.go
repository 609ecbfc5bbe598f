package hostagent_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/vmm"
)

// timed runs a test in a bubble of its own time.
func timed(t *testing.T, test func(t *testing.T, w *world, a *hostagent.Agent)) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		a, err := hostagent.Start(context.Background(), w.config(quota.Amount{}))
		if err != nil {
			t.Fatal(err)
		}
		w.settle(a)
		test(t, w, a)
		w.close(a)
	})
}

func TestTTLOfAnIdleSandbox(t *testing.T) {
	timed(t, func(t *testing.T, w *world, a *hostagent.Agent) {
		sleeps := w.create(a, hostagent.Spec{TTL: time.Hour, OnExpiry: hostagent.ExpiryPause})
		ends := w.create(a, hostagent.Spec{TTL: time.Hour})
		stays := w.create(a, hostagent.Spec{})
		if !stays.ExpiresAt.IsZero() || time.Until(ends.ExpiresAt) > time.Hour || ends.ExpiresAt.IsZero() {
			t.Errorf("they expire at %v and %v", stays.ExpiresAt, ends.ExpiresAt)
		}
		time.Sleep(59 * time.Minute)
		for _, id := range []string{sleeps.ID, ends.ID, stays.ID} {
			if w.state(a, id) != sandbox.Running {
				t.Errorf("%s too early", w.state(a, id))
			}
		}
		time.Sleep(2 * time.Minute)
		if w.state(a, sleeps.ID) != sandbox.Paused || w.state(a, ends.ID) != sandbox.Stopped || w.state(a, stays.ID) != sandbox.Running {
			t.Errorf("%s, %s, %s", w.state(a, sleeps.ID), w.state(a, ends.ID), w.state(a, stays.ID))
		}
		info, _ := a.Get(sleeps.ID)
		if last := info.Changes[len(info.Changes)-1]; !strings.Contains(last.Reason, "idle for its TTL of 1h") {
			t.Errorf("%+v", last)
		}
		time.Sleep(100 * time.Hour)
		if w.state(a, sleeps.ID) != sandbox.Paused {
			t.Error("a paused one has no TTL")
		}
	})
}

func TestActivityBeginsTheTTLAnew(t *testing.T) {
	timed(t, func(t *testing.T, w *world, a *hostagent.Agent) {
		sb := w.create(a, hostagent.Spec{TTL: time.Hour})
		time.Sleep(50 * time.Minute)
		if _, err := a.Processes(t.Context(), sb.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
		defer cancel()
		if _, err := a.Exec(ctx, sb.ID, command(nil), hostagent.ExecOptions{KillOnHangup: true}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(50 * time.Minute)
		if w.state(a, sb.ID) != sandbox.Running {
			t.Fatal("a sandbox with activity expired")
		}
		if _, err := a.SetTTL(t.Context(), sb.ID, 2*time.Hour, hostagent.ExpiryPause); err != nil {
			t.Fatal(err)
		}
		time.Sleep(119 * time.Minute)
		if w.state(a, sb.ID) != sandbox.Running {
			t.Fatal("a new TTL does not begin anew")
		}
		time.Sleep(2 * time.Minute)
		if w.state(a, sb.ID) != sandbox.Paused {
			t.Errorf("it is %s", w.state(a, sb.ID))
		}
	})
}

func TestAnExpiryThatFailsIsTriedAgain(t *testing.T) {
	timed(t, func(t *testing.T, w *world, a *hostagent.Agent) {
		var busy atomic.Bool
		w.Guest.OnQuiesce = func(context.Context) error {
			if busy.Load() {
				return errors.New("busy")
			}
			return nil
		}
		sb := w.create(a, hostagent.Spec{TTL: time.Hour, OnExpiry: hostagent.ExpiryPause})
		busy.Store(true)
		time.Sleep(time.Hour + 30*time.Second)
		if w.state(a, sb.ID) != sandbox.Running {
			t.Errorf("it is %s", w.state(a, sb.ID))
		}
		busy.Store(false)
		time.Sleep(time.Minute)
		if w.state(a, sb.ID) != sandbox.Paused {
			t.Errorf("it is %s", w.state(a, sb.ID))
		}
	})
}

func TestTheRecordOfAFailedOneGoesInTheEnd(t *testing.T) {
	timed(t, func(t *testing.T, w *world, a *hostagent.Agent) {
		sb := w.create(a, hostagent.Spec{})
		w.Machines.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM})
		time.Sleep(hostagent.DefaultRetention - time.Minute)
		if w.state(a, sb.ID) != sandbox.Failed {
			t.Errorf("it is %s", w.state(a, sb.ID))
		}
		time.Sleep(2 * time.Minute)
		if w.state(a, sb.ID) != sandbox.Stopped {
			t.Errorf("it is %s", w.state(a, sb.ID))
		}
	})
}
