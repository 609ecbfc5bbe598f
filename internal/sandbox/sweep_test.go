package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot"
)

func TestAPagerThatDiesTakesItsMachine(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	w.pagers.die(sb.ID, "out of cheese")
	<-sb.Machine.Done()
	if err := sb.Died(); !strings.Contains(err.Error(), "out of cheese") {
		t.Errorf("%v", err)
	}
	if err := sb.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

// TestAPagerThatLeavesIsNotMissed has the memory of a sandbox come in as a whole. It runs on without its pager, in this process' hands
// and in another's, and what its start touched is kept for the next one.
func TestAPagerThatLeavesIsNotMissed(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true, Stream: true})
	if !w.pagers.last.Stream {
		t.Error("the pager was not told to")
	}
	w.pagers.leave(sb.ID)
	if clones, _, err := sb.Fork(t.Context(), 1, nil); err != nil || clones[0].Err != nil || !w.pagers.last.Stream {
		t.Errorf("a fork: %+v, %v", clones, err)
	} else if err := clones[0].Sandbox.Destroy(t.Context(), "done"); err != nil {
		t.Error(err)
	}
	sb.Leave()
	again, err := w.Adopt(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-again.Machine.Done():
		t.Error("its machine was ended")
	case <-again.Ended():
		t.Error("it ended")
	default:
	}
	if _, err := again.Pause(t.Context(), "idle"); err != nil {
		t.Error(err)
	}
	if set, err := readWorkingSet(w.workingSet(again.record.Began)); err != nil || len(set.Pages) == 0 {
		t.Errorf("the working set: %v, %v", set, err)
	}
	if err := w.Destroy(t.Context(), sb.ID, "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

func TestAdopt(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("one that is held: %v", err)
	}
	sb.Leave()
	again, err := w.Adopt(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, metadata, _ := w.host.Config(sb.ID)
	if again.Token == sb.Token || metadata[metaToken] != nil {
		t.Errorf("token %s, metadata %v", again.Token, metadata)
	}
	if _, err := again.Pause(t.Context(), "idle"); err != nil {
		t.Error(err)
	}
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("one that is paused: %v", err)
	}
}

func TestAdoptOfAMachineWithoutItsPager(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	sb.Leave()
	w.pagers.die(sb.ID, "killed")
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrUnavailable) || w.state(sb.ID) != Failed {
		t.Errorf("%v, %s", err, w.state(sb.ID))
	}
	<-sb.Machine.Done()
	if _, err := w.Adopt(t.Context(), sb.ID); !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "pager") {
		t.Errorf("a second time: %v", err)
	}
	if err := w.Destroy(t.Context(), sb.ID, "done"); err != nil {
		t.Error(err)
	}
	w.empty()
}

// TestSweepOfWhatWasInterrupted leaves sandboxes in the middle of a pause and of a resume.
func TestSweepOfWhatWasInterrupted(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(w *world, sb *Sandbox)
		want  State
	}{
		"frozen, and not taken apart": {func(w *world, sb *Sandbox) {
			w.disk.Fail = onlyOn("Remove", errBroken)
			if _, err := sb.Pause(w.t.Context(), "idle"); !errors.Is(err, errBroken) {
				w.t.Error(err)
			}
			w.disk.Fail = nil
		}, Paused},
		"resuming": {func(w *world, sb *Sandbox) {
			if _, err := sb.Pause(w.t.Context(), "idle"); err != nil {
				w.t.Fatal(err)
			}
			w.setState(sb.ID, Resuming)
		}, Paused},
		"pausing, not frozen": {func(w *world, sb *Sandbox) {
			sb.Leave()
			w.setState(sb.ID, Pausing)
		}, Running},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{Keep: true})
			c.leave(w, sb)
			done, err := w.Sweep(t.Context(), false)
			if err != nil || len(done) != 1 || !done[0].Kept {
				t.Fatalf("%+v, %v", done, err)
			}
			if w.state(sb.ID) != c.want {
				t.Errorf("it is %s, want %s", w.state(sb.ID), c.want)
			}
			if _, err := w.Sweep(t.Context(), true); err != nil {
				t.Error(err)
			}
			w.empty()
			w.onlyBuilds(1)
		})
	}
}

func (w *world) setState(id string, s State) {
	w.t.Helper()
	f, r, err := w.holdRecord(id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.release()
	r.Before = r.Build
	r.change(s, "test")
	if err := f.write(r); err != nil {
		w.t.Fatal(err)
	}
}

func TestSweepOfReferences(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	for _, ref := range []snapshot.Ref{{Kind: refSandbox, Name: "cl-00000000000000000000"}, {Kind: refFork, Name: "cl-00000000000000000001"}} {
		if err := w.builds.SetRef(t.Context(), ref, sb.Build()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Sweep(t.Context(), false); err != nil {
		t.Error(err)
	}
	if want := fmt.Sprintf("[sandbox/%s template/tp-base]", sb.ID); fmt.Sprint(w.refs()) != want {
		t.Errorf("references %v, want %s", w.refs(), want)
	}
}

// TestAFreezeThatWasInterrupted dies in a snapshot when it is made and its reference has moved: the machine stands still, and the
// record tells of the build before. Whoever adopts it next lets it go on, and a pause that is interrupted then is not taken for done.
func TestAFreezeThatWasInterrupted(t *testing.T) {
	for name, sweep := range map[string]bool{"adopted at once": false, "swept before": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{Keep: true})
			before := sb.Build()
			if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			frozen := sb.Build()
			if err := sb.Machine.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			sb.record.Build = before
			if err := sb.folder.write(sb.record); err != nil {
				t.Fatal(err)
			}
			sb.Leave()
			still := true
			w.vmm.OnResume = func(context.Context, string) error { still = false; return nil }
			if sweep {
				if done, err := w.Sweep(t.Context(), false); err != nil || !done[0].Kept {
					t.Fatalf("%+v, %v", done, err)
				}
				if still {
					t.Error("a sweep left it standing still")
				}
			}
			again, err := w.Adopt(t.Context(), sb.ID)
			if err != nil {
				t.Fatal(err)
			}
			if still {
				t.Error("it stands still")
			}
			w.guest.quiesce = func(context.Context) error { return errBroken }
			if _, err := again.Pause(t.Context(), "idle"); !errors.Is(err, errBroken) || again.Build() != frozen || !again.record.DiffLost {
				t.Errorf("%v, build %s, want %s", err, again.Build(), frozen)
			}
			if err := again.Destroy(t.Context(), "done"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAPagerThatDiesAfterItsSandboxWasLeft ends nothing: the id may be another machine's by then.
func TestAPagerThatDiesAfterItsSandboxWasLeft(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	sb.Leave()
	w.pagers.die(sb.ID, "killed")
	for range 100 {
		runtime.Gosched()
	}
	if _, _, running := w.host.Config(sb.ID); !running {
		t.Error("the machine was ended by who had left it")
	}
	if done, err := w.Sweep(t.Context(), false); err != nil || len(done) != 1 || !done[0].Removed() {
		t.Errorf("a sweep keeps a machine whose pager is gone: %+v, %v", done, err)
	}
	w.empty()
}

// TestSweepOfWorkingSets removes those of builds that are gone.
func TestSweepOfWorkingSets(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	for _, name := range []string{sb.Build(), sb.Build() + ".cl-00000000000000000000", "bd-00000000000000000000"} {
		if err := os.MkdirAll(filepath.Dir(w.workingSet(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.workingSet(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Sweep(t.Context(), false); err != nil {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Dir(w.workingSet("x")))
	if err != nil || len(entries) != 1 || entries[0].Name() != sb.Build() {
		t.Errorf("%v, %v", entries, err)
	}
}
