package api_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/hostagent/quota"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/control"
	"wrenn.dev/wrenn/internal/server/rest"
	"wrenn.dev/wrenn/internal/server/store"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// claimed is an operation whose server was killed at some step: its idempotency key is claimed, and has no answer.
func (w *world) claimed() control.Op {
	w.t.Helper()
	op := control.NewOp()
	if _, name, err := w.Store.Claim(w.t.Context(), w.Team, string(op), string(op), []byte("asked"), -time.Second); err != nil || name != string(op) {
		w.t.Fatal(name, err)
	}
	return op
}

// watch has another server look at everything, until the test ends.
func (w *world) watch() {
	watched, leave := context.WithCancel(w.t.Context())
	var next sync.WaitGroup
	next.Go(func() { control.New(w.Store, w.Hosts, slog.New(slog.DiscardHandler)).Watch(watched) })
	w.t.Cleanup(func() {
		leave()
		next.Wait()
	})
}

// TestAPauseAskedAgain after its server was killed: before the host was asked, after the host had done it, when the other server has seen that, and
// when the answer alone was lost.
func TestAPauseAskedAgain(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	pause := func(op control.Op, sb string) {
		t.Helper()
		if got, err := w.Control.Pause(ctx, w.Team, op, sb); err != nil || got.State != store.Paused {
			t.Errorf("%s %v", got.State, err)
		}
	}
	begin := func(op control.Op, sb string, lasts time.Duration) {
		t.Helper()
		if _, err := w.Store.Begin(ctx, w.Team, sb, store.Pause, "asked for", string(op), lasts); err != nil {
			t.Fatal(err)
		}
	}
	onHost := func(sb string) {
		t.Helper()
		if _, err := w.AsHost.Sandboxes.Pause(ctx, connect.NewRequest(&pb.PauseRequest{Id: sb})); err != nil {
			t.Fatal(err)
		}
	}
	op, sb := w.claimed(), w.create(`{"template":"base"}`).ID
	begin(op, sb, time.Hour)
	pause(op, sb)

	op, sb = w.claimed(), w.create(`{"template":"base"}`).ID
	begin(op, sb, time.Hour)
	onHost(sb)
	pause(op, sb)

	op, sb = w.claimed(), w.create(`{"template":"base"}`).ID
	begin(op, sb, -time.Second)
	onHost(sb)
	w.until(sb, rest.Paused)
	pause(op, sb)

	if _, err := w.Control.Resume(ctx, w.Team, control.NewOp(), sb); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Control.Pause(ctx, w.Team, op, sb); err != nil || got.State != store.Running {
		t.Errorf("it was paused once, and runs again since: %s %v", got.State, err)
	}
	again := w.claimed()
	pause(again, sb)
	resumed := w.claimed()
	for range 2 {
		if got, err := w.Control.Resume(ctx, w.Team, resumed, sb); err != nil || got.State != store.Running {
			t.Errorf("%s %v", got.State, err)
		}
	}
	if err := w.Control.Destroy(ctx, w.Team, sb); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Control.Resume(ctx, w.Team, resumed, sb); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("it came back to life: %v", err)
	}
}

// TestAForkAskedAgain after its server was killed at any step has the clones that it wrote down, and no others.
func TestAForkAskedAgain(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	of, err := w.Store.Get(ctx, w.Team, w.create(`{"template":"base","metadata":{"user":"ann"}}`).ID)
	if err != nil {
		t.Fatal(err)
	}
	begun := func() (control.Op, []string) {
		t.Helper()
		op := w.claimed()
		ids := []string{id.Derived(id.Prefix, string(op), 0), id.Derived(id.Prefix, string(op), 1)}
		if _, err := w.Store.BeginFork(ctx, store.Clones{Of: of, IDs: ids, Op: string(op), OpTime: time.Hour, Reason: "forked"}); err != nil {
			t.Fatal(err)
		}
		return op, ids
	}
	fork := func(op control.Op, ids []string) {
		t.Helper()
		clones, err := w.Control.Fork(ctx, w.Team, op, of.ID, "", 2)
		if err != nil || len(clones) != 2 {
			t.Fatal(clones, err)
		}
		for i, c := range clones {
			if c.Sandbox.ID != ids[i] || c.Sandbox.State != store.Running || c.Sandbox.Metadata["user"] != "ann" {
				t.Errorf("%+v", c)
			}
		}
	}
	op, ids := begun()
	fork(op, ids) // the host was not asked
	fork(op, ids) // the answer was lost

	op, ids = begun()
	if _, err := w.AsHost.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: of.ID, Ids: ids, IdempotencyKey: string(op)})); err != nil {
		t.Fatal(err)
	}
	fork(op, ids) // the host has done it
	if all := w.all(); len(all) != 5 {
		t.Errorf("there are %v", all)
	}
	if err := w.Control.Destroy(ctx, w.Team, ids[0]); err != nil {
		t.Fatal(err)
	}
	clones, err := w.Control.Fork(ctx, w.Team, op, of.ID, "", 2)
	if err != nil || clones[0].Sandbox.State != store.Stopped || clones[1].Sandbox.State != store.Running {
		t.Errorf("what was destroyed came back to life: %v %v", clones, err)
	}
}

// TestClonesAreNotLost: a server that is killed while the host forks has written them down, and the next one finds them.
func TestClonesAreNotLost(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	of, err := w.Store.Get(ctx, w.Team, w.create(`{"template":"base"}`).ID)
	if err != nil {
		t.Fatal(err)
	}
	made, never := id.New(), id.New()
	if _, err := w.AsHost.Sandboxes.Fork(ctx, connect.NewRequest(&pb.ForkRequest{Id: of.ID, Ids: []string{made}})); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Store.BeginFork(ctx, store.Clones{Of: of, IDs: []string{made, never}, Op: "op", OpTime: -time.Second, Reason: "forked"}); err != nil {
		t.Fatal(err)
	}
	w.watch()
	w.until(made, rest.Running)
	w.until(never, rest.Failed)
}

func TestASnapshotAskedAgain(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	of, err := w.Store.Get(ctx, w.Team, w.create(`{"template":"base"}`).ID)
	if err != nil {
		t.Fatal(err)
	}
	begun := func(name string) (control.Op, store.Snapshot) {
		t.Helper()
		op := w.claimed()
		snap, err := w.Store.BeginSnapshot(ctx, store.NewSnapshot{ID: id.As(id.Snapshot, string(op)), Of: of, Name: name, Op: string(op), OpTime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return op, snap
	}
	for _, onHost := range []bool{false, true} {
		name := map[bool]string{false: "a", true: "b"}[onHost]
		op, snap := begun(name)
		if onHost {
			w.freeze(of.ID, snap.ID)
		}
		for range 2 {
			if got, err := w.Control.Snapshot(ctx, w.Team, op, of.ID, "", name); err != nil || got.ID != snap.ID || got.State != store.SnapshotWhole {
				t.Errorf("%+v %v", got, err)
			}
		}
		if err := w.Control.DeleteSnapshot(ctx, w.Team, name); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Control.Snapshot(ctx, w.Team, op, of.ID, "", name); !errors.Is(err, errs.ErrFailedPrecondition) {
			t.Errorf("what was deleted was made again: %v", err)
		}
	}
}

// freeze has the host make a snapshot that no server hears of.
func (w *world) freeze(sandbox, snapshot string) {
	w.t.Helper()
	_, err := w.AsHost.Snapshots.CreateSnapshot(w.t.Context(), connect.NewRequest(&pb.CreateSnapshotRequest{Id: sandbox, Name: snapshot}))
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestASnapshotThatWasCutOff is ready if the host has it, and else gives its name back; what the host makes of it too late goes.
func TestASnapshotThatWasCutOff(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	of, err := w.Store.Get(ctx, w.Team, w.create(`{"template":"base"}`).ID)
	if err != nil {
		t.Fatal(err)
	}
	begun := func(name string) store.Snapshot {
		t.Helper()
		op := string(w.claimed())
		snap := store.NewSnapshot{ID: id.As(id.Snapshot, op), Of: of, Name: name, Op: op, OpTime: -time.Second}
		if name == "made" { // the host has it before the row says that it should: a watch may look at any time
			w.freeze(of.ID, snap.ID)
		}
		row, err := w.Store.BeginSnapshot(ctx, snap)
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	made, never := begun("made"), begun("never")
	w.watch()
	settled := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	settled("it is not ready", func() bool {
		snap, err := w.Store.GetSnapshot(ctx, w.Team, "made")
		return err == nil && snap.ID == made.ID
	})
	settled("its name is not given back", func() bool {
		return w.do(call{method: "POST", path: "/v1/sandboxes/" + of.ID + "/snapshots", body: `{"name":"never"}`}).status == 201
	})
	w.freeze(of.ID, never.ID)
	if _, err := w.Store.SnapshotReady(ctx, never.ID, never.Op); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("its server's late word: %v", err)
	}
	if err := w.Store.AbandonSnapshot(ctx, never.ID, -time.Second); err != nil { // no more a snapshot in the making: nothing changes
		t.Fatal(err)
	}
	if _, err := w.Store.BeginDelete(ctx, w.Team, never.ID, -time.Second); err != nil { // its time is over
		t.Fatal(err)
	}
	w.watch()
	settled("what came too late is still on the host", func() bool {
		list, err := w.AsHost.Snapshots.ListSnapshots(ctx, connect.NewRequest(&pb.ListSnapshotsRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(list.Msg.GetSnapshots(), func(s *pb.Snapshot) bool { return s.GetName() == never.ID })
	})
}

// TestASnapshotThatFails gives its name back, whether or not it is known what the host does.
func TestASnapshotThatFails(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID + "/snapshots"
	for _, c := range []struct {
		err    error
		status int
		code   rest.ErrorCode
	}{{errs.ErrUnavailable, 503, rest.Unavailable}, {errs.ErrResourceExhausted, 429, rest.ResourceExhausted}} {
		w.Guest.OnQuiesce = func(context.Context) error { return c.err }
		fails(t, w.do(call{method: "POST", path: at, body: `{"name":"kept"}`}), c.status, c.code)
		w.Guest.OnQuiesce = nil
		as[rest.Snapshot](t, w.do(call{method: "POST", path: at, body: `{"name":"kept"}`}), 201)
		if got := as[rest.Team](t, w.do(call{method: "GET", path: "/v1/team"}), 200); got.Used.Snapshots != 1 {
			t.Errorf("%+v", got.Used)
		}
		as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/snapshots/kept"}), 204)
	}
}
