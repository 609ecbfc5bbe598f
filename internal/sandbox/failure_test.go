package sandbox

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm"
)

// TestAFailedPauseRunsOn fails each part of a pause: the sandbox runs, nothing is left, and the next pause works.
func TestAFailedPauseRunsOn(t *testing.T) {
	for name, set := range map[string]func(w *world) (mend func()){
		"quiesce": func(w *world) func() {
			w.guest.quiesce = func(context.Context) error { return errBroken }
			return func() { w.guest.quiesce = nil }
		},
		"pause": func(w *world) func() {
			w.vmm.OnPause = func(context.Context, string) error { return errBroken }
			return func() { w.vmm.OnPause = nil }
		},
		"snapshot": func(w *world) func() {
			w.vmm.OnSnapshot = func(context.Context, string, vmm.Snapshot) error { return errBroken }
			return func() { w.vmm.OnSnapshot = nil }
		},
		"disk": func(w *world) func() {
			w.disk.Fail = onlyOn("Freeze", errBroken)
			return func() { w.disk.Fail = nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{})
			before := sb.Build()
			mend := set(w)
			if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errBroken) {
				t.Errorf("%v", err)
			}
			if w.state(sb.ID) != Running || w.guest.refuses || sb.Build() != before {
				t.Errorf("it is %s, quiet %v, build %s", w.state(sb.ID), w.guest.refuses, sb.Build())
			}
			w.onlyBuilds(1)
			mend()
			var diff bool
			w.vmm.OnSnapshot = func(_ context.Context, _ string, s vmm.Snapshot) error { diff = s.Diff; return nil }
			if _, err := sb.Pause(t.Context(), "idle"); err != nil {
				t.Fatal(err)
			}
			if lost := name == "snapshot" || name == "disk"; diff == lost {
				t.Errorf("the next freeze took what changed: %v; the account of it was emptied: %v", diff, lost)
			}
			again, err := w.Resume(t.Context(), sb.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Destroy(t.Context(), "done"); err != nil {
				t.Error(err)
			}
			w.onlyBuilds(1)
		})
	}
}

// TestAFailedResumeStaysPaused fails each part of a resume.
func TestAFailedResumeStaysPaused(t *testing.T) {
	for name, set := range map[string]func(w *world){
		"network": func(w *world) { w.network.Fail = onlyOn("acquire", errBroken) },
		"pager":   func(w *world) { w.pagers.fail = onlyOn("Start", errBroken) },
		"disk":    func(w *world) { w.disk.Fail = onlyOn("Create", errBroken) },
		"machine": func(w *world) { w.vmm.OnStart = func(context.Context, vmm.Config) error { return errBroken } },
		"wake":    func(w *world) { w.guest.awake = func(context.Context) error { return errBroken } },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{})
			if _, err := sb.Pause(t.Context(), "idle"); err != nil {
				t.Fatal(err)
			}
			set(w)
			if _, err := w.Resume(t.Context(), sb.ID, nil); !errors.Is(err, errBroken) {
				t.Errorf("%v", err)
			}
			if w.state(sb.ID) != Paused {
				t.Fatalf("it is %s", w.state(sb.ID))
			}
			w.network.Fail, w.pagers.fail, w.disk.Fail, w.vmm.OnStart, w.guest.awake = nil, nil, nil, nil, nil
			again, err := w.Resume(t.Context(), sb.ID, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Destroy(t.Context(), "done"); err != nil {
				t.Error(err)
			}
			w.empty()
		})
	}
}

func TestACallerThatLeavesAPauseFinishesIt(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	ctx, cancel := context.WithCancel(t.Context())
	w.vmm.OnSnapshot = func(context.Context, string, vmm.Snapshot) error { cancel(); return nil }
	if _, err := sb.Pause(ctx, "idle"); err != nil || w.state(sb.ID) != Paused {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
}

// TestAMachineThatDiesInAPause is a failed sandbox, and no running one.
func TestAMachineThatDiesInAPause(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	w.guest.quiesce = func(ctx context.Context) error {
		if err := sb.Machine.Kill(ctx); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errs.ErrUnavailable) || w.state(sb.ID) != Failed {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

// TestAFullDisk is told as such, and does not keep anybody from making room.
func TestAFullDisk(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	w.guest.quiesce = func(context.Context) error { return unix.ENOSPC }
	if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errs.ErrResourceExhausted) || w.state(sb.ID) != Running {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
}
