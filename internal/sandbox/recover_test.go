package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/vmm"
)

// TestRecover leaves a kept sandbox in every state and has the next process take over.
func TestRecover(t *testing.T) {
	pause := func(w *world, sb *Sandbox) {
		if _, err := sb.Pause(w.t.Context(), "idle"); err != nil {
			w.t.Fatal(err)
		}
	}
	left := func(s State) func(w *world, sb *Sandbox) {
		return func(w *world, sb *Sandbox) { sb.Leave(); w.setState(sb.ID, s) }
	}
	rebooted := func(w *world) { w.boot = "another" }
	for name, c := range map[string]struct {
		leave  func(w *world, sb *Sandbox)
		then   func(w *world)
		want   State
		reason string
	}{
		"running":                 {left(Running), nil, Running, "adopted"},
		"running, host restarted": {left(Running), rebooted, Lost, "the host was restarted while it was running"},
		"running, machine gone": {func(w *world, sb *Sandbox) {
			sb.Leave()
			w.host.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM})
		}, nil, Lost, "its machine ended while nobody watched"},
		"running, pager gone": {func(w *world, sb *Sandbox) {
			sb.Leave()
			w.pagers.die(sb.ID, "killed")
		}, nil, Lost, "its page-fault server ended while nobody watched"},
		"running, pager left": {func(w *world, sb *Sandbox) {
			sb.Leave()
			w.pagers.leave(sb.ID)
		}, nil, Running, "adopted"},
		"paused":                             {pause, nil, Paused, "paused"},
		"paused, host restarted":             {pause, rebooted, Paused, "paused"},
		"pausing":                            {left(Pausing), nil, Running, "adopted"},
		"pausing, host restarted":            {left(Pausing), rebooted, Lost, "the host was restarted while it was pausing"},
		"pausing and frozen":                 {frozenNotFreed, nil, Paused, "it is paused now"},
		"pausing and frozen, host restarted": {frozenNotFreed, rebooted, Paused, "it is paused now"},
		"resuming":                           {func(w *world, sb *Sandbox) { pause(w, sb); w.setState(sb.ID, Resuming) }, nil, Paused, "paused again"},
		"starting":                           {left(Starting), nil, Stopped, "while it was starting"},
		"stopping":                           {left(Stopping), nil, Stopped, "while it was stopping"},
		"failed":                             {left(Failed), nil, Failed, "test"},
		"lost before, and its rest was left": {left(Lost), nil, Lost, "test"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sb := w.create(Spec{Keep: true})
			c.leave(w, sb)
			if c.then != nil {
				c.then(w)
			}
			got, err := w.Recover(t.Context(), sb.ID)
			if err != nil || got.State != c.want || !strings.Contains(got.Reason, c.reason) || (got.Sandbox != nil) != (c.want == Running) {
				t.Fatalf("%+v, %v", got, err)
			}
			w.restIs(sb.ID, c.want)
			if got.Sandbox != nil {
				got.Sandbox.Leave()
			}
			if again, err := w.Recover(t.Context(), sb.ID); c.want != Stopped && (err != nil || again.State != c.want) {
				t.Errorf("again: %+v, %v", again, err)
			} else if again.Sandbox != nil {
				again.Sandbox.Leave()
			}
			if err := w.Destroy(t.Context(), sb.ID, "done"); (err != nil) != (c.want == Stopped) {
				t.Error(err)
			}
			if err := w.Tidy(t.Context()); err != nil {
				t.Error(err)
			}
			w.empty()
			w.onlyBuilds(1)
		})
	}
}

// frozenNotFreed fails a pause when the build is whole.
func frozenNotFreed(w *world, sb *Sandbox) {
	w.disk.Fail = onlyOn("Remove", errBroken)
	if _, err := sb.Pause(w.t.Context(), "idle"); !errors.Is(err, errBroken) || sb.Held() {
		w.t.Error(err)
	}
	w.disk.Fail = nil
}

// restIs fails the test unless a sandbox has on the host what one in a state has.
func (w *world) restIs(id string, s State) {
	w.t.Helper()
	if r, err := w.Get(id); s == Stopped && !errors.Is(err, errs.ErrNotFound) || s != Stopped && (err != nil || r.State != s) {
		w.t.Errorf("the record says %s, %v", r.State, err)
	}
	for name, list := range map[string]func(context.Context) ([]string, error){
		"machine": w.vmm.List, "disk": w.disk.List, "network": w.network.List, "pager": w.pagers.List,
	} {
		if ids, err := list(w.t.Context()); err != nil || slices.Contains(ids, id) != (s == Running) {
			w.t.Errorf("%s of one that is %s: %v, %v", name, s, ids, err)
		}
	}
}

// TestRecoverOfOneThatEndsWithItsOwner is as Sweep: 'wrenn run' was killed.
func TestRecoverOfOneThatEndsWithItsOwner(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{})
	if _, err := w.Recover(t.Context(), sb.ID); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("one in use: %v", err)
	}
	sb.Leave()
	if got, err := w.Recover(t.Context(), sb.ID); err != nil || got.State != Stopped {
		t.Errorf("%+v, %v", got, err)
	}
	w.empty()
}

// TestOneThatDoesNotAnswerIsLeft as it is.
func TestOneThatDoesNotAnswerIsLeft(t *testing.T) {
	w := newWorld(t)
	sb := w.create(Spec{Keep: true})
	sb.Leave()
	w.guest.awake = func(context.Context) error { return errBroken }
	if got, err := w.Recover(t.Context(), sb.ID); !errors.Is(err, errBroken) || got.Sandbox != nil {
		t.Errorf("%+v, %v", got, err)
	}
	w.restIs(sb.ID, Running)
	w.guest.awake = nil
	if got, err := w.Recover(t.Context(), sb.ID); err != nil || got.Sandbox == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWatchIsToldOfEveryChange(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var told []string
	w.Watch(func(id string, c Change) {
		mu.Lock()
		defer mu.Unlock()
		if told = append(told, string(c.State)); c.Reason == "" || c.Time.IsZero() {
			t.Errorf("%+v", c)
		}
	})
	sb := w.create(Spec{Cold: true})
	if _, err := sb.Pause(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	sb, err := w.Resume(t.Context(), sb.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.guest.quiesce = func(context.Context) error { return errBroken }
	if _, err := sb.Pause(t.Context(), "idle"); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	w.host.End(sb.ID, vmm.Exit{Reason: vmm.ExitOOM, Detail: "out of memory"})
	<-sb.Ended()
	if err := sb.Clear(t.Context()); err != nil {
		t.Error(err)
	}
	w.restIs(sb.ID, Failed)
	if err := w.Destroy(t.Context(), sb.ID, "done"); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(told, " "); got != "starting running pausing paused resuming running pausing running failed stopping stopped" {
		t.Error(got)
	}
}

func TestNotes(t *testing.T) {
	w := newWorld(t)
	const id = "cl-00000000000000000007"
	sb := w.create(Spec{ID: id, Keep: true, Note: json.RawMessage(`{"a":1}`)})
	note := func() string {
		r, err := w.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		var flat strings.Builder
		for _, c := range string(r.Note) {
			if !strings.ContainsRune(" \n", c) {
				flat.WriteRune(c)
			}
		}
		return flat.String()
	}
	if note() != `{"a":1}` || sb.ID != id {
		t.Error(note(), sb.ID)
	}
	if err := sb.SetNote(json.RawMessage(`{"b":2}`)); err != nil || note() != `{"b":2}` {
		t.Error(note(), err)
	}
	if err := w.SetNote(id, nil); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := sb.Pause(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	if err := w.SetNote(id, json.RawMessage(`3`)); err != nil || note() != "3" {
		t.Error(note(), err)
	}
	if _, err := w.Create(t.Context(), Spec{Template: "base", ID: id}, nil); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Error(err)
	}
	if _, err := w.Create(t.Context(), Spec{Template: "base", ID: "../x"}, nil); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}
