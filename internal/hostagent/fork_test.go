package hostagent_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/sandbox"
	"wrenn.dev/wrenn/internal/statefile"
	"wrenn.dev/wrenn/internal/vmm"
)

func idsOf(clones []hostagent.Clone) []string {
	var ids []string
	for _, c := range clones {
		ids = append(ids, c.Info.ID)
	}
	return ids
}

// TestACallerNamesTheClones: asked for again with the key, also of the next agent, they are there; what is missing is made.
func TestACallerNamesTheClones(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	of := w.create(a, hostagent.Spec{TTL: time.Hour, Labels: map[string]string{"for": "test"}})
	forks := hostagent.Forks{Count: 3, IDs: []string{id.New(), id.New(), id.New()}, Key: "k"}
	clones, _, err := a.Fork(t.Context(), of.ID, forks)
	if err != nil || !slices.Equal(idsOf(clones), forks.IDs) || clones[0].Info.TTL != time.Hour || clones[2].Info.Labels["for"] != "test" {
		t.Fatal(clones, err)
	}
	w.close(a)
	a = w.agent(quota.Amount{})
	if again, _, err := a.Fork(t.Context(), of.ID, forks); err != nil || !slices.Equal(idsOf(again), forks.IDs) {
		t.Error(again, err)
	}
	if _, err := a.Destroy(t.Context(), forks.IDs[1], "as if it was never made"); err != nil {
		t.Fatal(err)
	}
	if again, _, err := a.Fork(t.Context(), of.ID, forks); err != nil || !slices.Equal(idsOf(again), forks.IDs) {
		t.Error(again, err)
	}
	if used := a.Status().Used; used.Sandboxes != 4 {
		t.Errorf("%+v", used)
	}
	for name, other := range map[string]hostagent.Forks{
		"another key": {Count: 1, IDs: forks.IDs[:1], Key: "l"}, "no key": {Count: 1, IDs: forks.IDs[:1]},
		"the source": {Count: 1, IDs: []string{of.ID}, Key: "k2"}, "one that is there": {Count: 2, IDs: []string{id.New(), forks.IDs[0]}, Key: "m"},
	} {
		if _, _, err := a.Fork(t.Context(), of.ID, other); !errors.Is(err, errs.ErrAlreadyExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, odd := range map[string]hostagent.Forks{
		"twice": {Count: 2, IDs: []string{of.ID, of.ID}}, "too few": {Count: 2, IDs: []string{id.New()}}, "empty": {Count: 2, IDs: []string{"", id.New()}},
	} {
		if _, _, err := a.Fork(t.Context(), of.ID, odd); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := a.Status(); got.Used.Sandboxes != 4 {
		t.Errorf("what was refused left something: %+v", got)
	}
}

// TestADestroyDuringAFork waits in the clone's line, and ends what the fork made.
func TestADestroyDuringAFork(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	of := w.create(a, hostagent.Spec{})
	clone := id.New()
	entered, gate := make(chan struct{}, 8), make(chan struct{})
	w.Guest.OnAwake = func(ctx context.Context) error {
		entered <- struct{}{}
		<-gate
		return nil
	}
	forked, destroyed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, _, err := a.Fork(t.Context(), of.ID, hostagent.Forks{Count: 1, IDs: []string{clone}, Key: "k"})
		forked <- err
	}()
	<-entered
	go func() {
		_, err := a.Destroy(t.Context(), clone, "no longer wanted")
		destroyed <- err
	}()
	close(gate)
	if err := <-forked; err != nil {
		t.Error(err)
	}
	if err := <-destroyed; err != nil {
		t.Error(err)
	}
	if got := a.Status(); got.Used.Sandboxes != 1 || len(got.States) != 1 {
		t.Errorf("%+v", got)
	}
}

// TestAForkThatFails leaves none of the ids taken.
func TestAForkThatFails(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{Sandboxes: 2})
	of := w.create(a, hostagent.Spec{})
	forks := hostagent.Forks{Count: 2, IDs: []string{id.New(), id.New()}, Key: "k"}
	if _, _, err := a.Fork(t.Context(), of.ID, forks); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Error(err)
	}
	w.Guest.OnQuiesce = func(context.Context) error { return errs.ErrUnavailable }
	forks.Count, forks.IDs = 1, forks.IDs[:1]
	if _, _, err := a.Fork(t.Context(), of.ID, forks); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
	w.Guest.OnQuiesce = nil
	w.VMM.OnStart = func(context.Context, vmm.Config) error { return errs.ErrUnavailable }
	if _, _, err := a.Fork(t.Context(), of.ID, forks); !errors.Is(err, errs.ErrUnavailable) {
		t.Error(err)
	}
	if _, err := a.Get(forks.IDs[0]); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	w.VMM.OnStart = nil
	if clones, _, err := a.Fork(t.Context(), of.ID, forks); err != nil || clones[0].Err != nil {
		t.Error(clones, err)
	}
}

// TestAForkThatWasCutOff waits for what an agent before this one left half made, and makes it anew.
func TestAForkThatWasCutOff(t *testing.T) {
	w := newWorld(t)
	a := w.agent(quota.Amount{})
	of := w.create(a, hostagent.Spec{})
	forks := hostagent.Forks{Count: 1, IDs: []string{id.New()}, Key: "k"}
	if _, _, err := a.Fork(t.Context(), of.ID, forks); err != nil {
		t.Fatal(err)
	}
	w.close(a)
	path := filepath.Join(w.StateDir, "sandboxes", forks.IDs[0], "record.json")
	var r sandbox.Record
	if err := statefile.Read(path, 1<<20, &r); err != nil {
		t.Fatal(err)
	}
	r.State = sandbox.Starting // as if the agent had been killed in the midst of it
	if err := statefile.Write(path, &r); err != nil {
		t.Fatal(err)
	}
	next, err := hostagent.Start(t.Context(), w.config(quota.Amount{}))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close(next)
	clones, _, err := next.Fork(t.Context(), of.ID, forks) // before it has taken over
	if err != nil || clones[0].Err != nil || clones[0].Info.State != sandbox.Running {
		t.Error(clones, err)
	}
}
