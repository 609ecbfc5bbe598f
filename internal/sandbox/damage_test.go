package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/snapshot/manifest"
)

// damage flips a bit in a sandbox's record.
func (w *world) damage(id string) {
	w.t.Helper()
	path := filepath.Join(w.path(id), recordName)
	data, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// TestADamagedRecordIsLeftAlone: whoever takes over or sweeps leaves such a sandbox as it is, and goes on with the others; whoever asks for
// its end gets it.
func TestADamagedRecordIsLeftAlone(t *testing.T) {
	for _, state := range []State{Running, Paused} {
		for _, last := range []string{"destroy", "sweep"} {
			t.Run(string(state)+" and "+last, func(t *testing.T) {
				w := newWorld(t)
				sb, other := w.create(Spec{Keep: true}), w.create(Spec{Keep: true})
				if state == Paused {
					if _, err := sb.Pause(t.Context(), "idle"); err != nil {
						t.Fatal(err)
					}
				}
				sb.Leave()
				other.Leave()
				w.damage(sb.ID)
				before, err := w.builds.List()
				if err != nil {
					t.Fatal(err)
				}
				if found, err := w.Recover(t.Context(), sb.ID); !errors.Is(err, errs.ErrCorrupt) || found.State != Unreadable {
					t.Errorf("recover: %+v, %v", found, err)
				}
				done, err := w.Sweep(t.Context(), false)
				if err != nil || len(done) != 2 || !done[0].Kept || !done[1].Kept {
					t.Errorf("sweep: %+v, %v", done, err)
				}
				i := slices.IndexFunc(done, func(s Swept) bool { return s.ID == sb.ID })
				if !strings.Contains(done[i].Reason, "wrenn rm "+sb.ID) {
					t.Errorf("what to do: %q", done[i].Reason)
				}
				list, err := w.List()
				i = slices.IndexFunc(list, func(r Record) bool { return r.ID == sb.ID })
				if err != nil || len(list) != 2 || list[i].State != Unreadable || list[i].Changes[0].Time.IsZero() {
					t.Errorf("list: %+v, %v", list, err)
				}
				if after, err := w.builds.List(); err != nil || !slices.Equal(after, before) {
					t.Errorf("its build is gone: %v, then %v, %v", before, after, err)
				}
				if _, _, there := w.host.Config(sb.ID); there != (state == Running) {
					t.Errorf("it has a machine: %v", there)
				}
				if last == "sweep" {
					if _, err := w.Sweep(t.Context(), true); err != nil {
						t.Error(err)
					}
				} else {
					for _, id := range []string{sb.ID, other.ID} {
						if err := w.Destroy(t.Context(), id, "done"); err != nil {
							t.Error(err)
						}
					}
				}
				w.empty()
				w.onlyBuilds(1)
			})
		}
	}
}

// TestAnothersDamagedBuildFailsNothing: to remove a sandbox or a snapshot works; that builds can't be collected is told by who tidies up.
func TestAnothersDamagedBuildFailsNothing(t *testing.T) {
	w := newWorld(t)
	damaged, sb := w.create(Spec{Keep: true}), w.create(Spec{Keep: true})
	if _, err := sb.Snapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Sandbox{damaged, sb} {
		if _, err := s.Pause(t.Context(), "idle"); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(w.buildsDir(), damaged.record.Build, manifest.Name)
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	fresh, err := NewManager(w.cfg) // one that has read no manifest before
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Destroy(t.Context(), sb.ID, "done"); err != nil {
		t.Error(err)
	}
	if err := fresh.DeleteSnapshot(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	if err := fresh.Tidy(t.Context()); !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), damaged.ID) {
		t.Errorf("tidy: %v", err)
	}
	if err := fresh.Destroy(t.Context(), damaged.ID, "done"); err != nil {
		t.Error(err)
	}
	if err := fresh.Tidy(t.Context()); err != nil {
		t.Error(err)
	}
	w.empty()
	w.onlyBuilds(1)
}

// TestASweepKeepsWhatTellsWhy for a day.
func TestASweepKeepsWhatTellsWhy(t *testing.T) {
	for _, state := range []State{Failed, Lost} {
		w := newWorld(t)
		sb := w.create(Spec{Keep: true})
		sb.Leave()
		w.setState(sb.ID, state)
		done, err := w.Sweep(t.Context(), false)
		if err != nil || len(done) != 1 || !done[0].Kept || w.state(sb.ID) != state {
			t.Fatalf("%s: %+v, %v", state, done, err)
		}
		if _, _, there := w.host.Config(sb.ID); there {
			t.Errorf("%s: its machine is there", state)
		}
		f, r, err := w.holdRecord(sb.ID)
		if err != nil {
			t.Fatal(err)
		}
		r.Changes[len(r.Changes)-1].Time = time.Now().Add(-Retention)
		if err := f.write(r); err != nil {
			t.Fatal(err)
		}
		f.release()
		if done, err := w.Sweep(t.Context(), false); err != nil || len(done) != 1 || !done[0].Removed() {
			t.Errorf("%s, a day later: %+v, %v", state, done, err)
		}
		w.empty()
	}
}

// TestOneNameIsGivenOnce: two managers, as of two processes, freeze two sandboxes under one name at a time.
func TestOneNameIsGivenOnce(t *testing.T) {
	w := newWorld(t)
	other, err := NewManager(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	one := w.create(Spec{})
	two, err := other.Create(t.Context(), Spec{Template: "base"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make([]error, 2)
	var both, frozen sync.WaitGroup
	frozen.Add(2)
	w.guest.quiesce = func(context.Context) error { // both have looked for the name by now
		frozen.Done()
		frozen.Wait()
		return nil
	}
	for i, sb := range []*Sandbox{one, two} {
		both.Go(func() { _, failed[i] = sb.Snapshot(t.Context(), "name") })
	}
	both.Wait()
	if (failed[0] == nil) == (failed[1] == nil) || !errors.Is(errors.Join(failed...), errs.ErrAlreadyExists) {
		t.Errorf("%v", failed)
	}
	w.guest.quiesce = nil
	winner := one
	if failed[0] != nil {
		winner = two
	}
	if names, err := w.Snapshots(); err != nil || names["name"] != winner.Build() {
		t.Errorf("%v, %v, want %s", names, err, winner.Build())
	}
	for _, sb := range []*Sandbox{one, two} { // the loser as well runs on
		if _, err := sb.Pause(t.Context(), "idle"); err != nil {
			t.Error(err)
		}
	}
}
