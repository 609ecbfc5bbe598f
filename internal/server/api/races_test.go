package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
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
	"wrenn.dev/wrenn/internal/vmm"
	pb "wrenn.dev/wrenn/proto/hostagent/v1"
)

// held has starts wait until it is closed, and tells of each that waits.
func (w *world) held() (waiting chan struct{}, release func()) {
	waiting, gate := make(chan struct{}, 100), make(chan struct{})
	w.Guest.OnReady = func(ctx context.Context) error {
		waiting <- struct{}{}
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return waiting, sync.OnceFunc(func() { close(gate) })
}

func keyed(key, body string) call {
	return call{method: "POST", path: "/v1/sandboxes", body: body, header: map[string]string{"Idempotency-Key": key}}
}

// all are the ids of the sandboxes that have not ended.
func (w *world) all() []string {
	w.t.Helper()
	var ids []string
	for _, sb := range as[rest.SandboxPage](w.t, w.do(call{method: "GET", path: "/v1/sandboxes"}), 200).Sandboxes {
		ids = append(ids, sb.ID)
	}
	return ids
}

func TestOneKeyIsOneSandbox(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	answers := make([]answer, 6)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = w.do(keyed("k", `{"template":"base"}`)) })
	}
	wg.Wait()
	first, replayed := as[rest.Sandbox](t, answers[0], 201), 0
	for _, a := range answers {
		if sb := as[rest.Sandbox](t, a, 201); sb.ID != first.ID {
			t.Errorf("%s and %s were made", sb.ID, first.ID)
		}
		if a.header.Get("Idempotent-Replayed") == "true" {
			replayed++
		}
	}
	if len(w.all()) != 1 || replayed != len(answers)-1 {
		t.Errorf("there are %v, and %d answers came again", w.all(), replayed)
	}
	if e := fails(t, w.do(keyed("k", `{"template":"base","vcpus":1}`)), 400, rest.InvalidArgument); or(e.Field) != "Idempotency-Key" {
		t.Errorf("%+v", e)
	}
	_, theirs := w.NewTeam("theirs")
	c := keyed("k", `{"template":"base"}`)
	c.key = theirs
	if sb := as[rest.Sandbox](t, w.do(c), 201); sb.ID == first.ID {
		t.Error("another team's key is the same")
	}
}

func TestWhatFailedIsDoneAnew(t *testing.T) {
	w := newWorld(t, quota.Amount{Sandboxes: 1})
	other := w.create(`{"template":"base"}`).ID
	fails(t, w.do(keyed("k", `{"template":"base"}`)), 429, rest.ResourceExhausted)
	as[struct{}](t, w.do(call{method: "DELETE", path: "/v1/sandboxes/" + other}), 204)
	sb := as[rest.Sandbox](t, w.do(keyed("k", `{"template":"base"}`)), 201)
	if again := as[rest.Sandbox](t, w.do(keyed("k", `{"template":"base"}`)), 201); again.ID != sb.ID {
		t.Errorf("%s came after %s", again.ID, sb.ID)
	}
}

func TestACallerWhoLeavesComesBack(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	waiting, release := w.held()
	defer release()
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		resp, err := w.HTTP.Client().Do(w.request(ctx, keyed("k", `{"template":"base"}`)))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		left <- err
	}()
	<-waiting
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	release()
	sb := as[rest.Sandbox](t, w.do(keyed("k", `{"template":"base"}`)), 201)
	if all := w.all(); len(all) != 1 || all[0] != sb.ID {
		t.Errorf("there are %v, and %s was answered", all, sb.ID)
	}
}

// TestAServerThatEndsInTheMidst left a key that is claimed and a sandbox that is starting: who asks again gets that one.
func TestAServerThatEndsInTheMidst(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	op := control.NewOp()
	spec := control.Spec{Template: "base", OnExpiry: "destroy"}
	first, err := w.Control.Create(t.Context(), w.Team, op, spec)
	if err != nil {
		t.Fatal(err)
	}
	again, err := w.Control.Create(t.Context(), w.Team, op, spec)
	if err != nil || again.ID != first.ID {
		t.Errorf("%s after %s: %v", again.ID, first.ID, err)
	}
	if err := w.Control.Destroy(t.Context(), w.Team, first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Control.Create(t.Context(), w.Team, op, spec); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("it came back to life: %v", err)
	}
}

func TestADestroyDuringACreate(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	waiting, release := w.held()
	defer release()
	made := make(chan answer)
	go func() { made <- w.do(call{method: "POST", path: "/v1/sandboxes", body: `{"template":"base"}`}) }()
	<-waiting
	ids := w.all()
	if len(ids) != 1 {
		t.Fatalf("there are %v", ids)
	}
	destroyed := make(chan answer)
	go func() { destroyed <- w.do(call{method: "DELETE", path: "/v1/sandboxes/" + ids[0]}) }()
	w.until(ids[0], rest.Stopping)
	release()
	as[struct{}](t, <-destroyed, 204)
	fails(t, <-made, 409, rest.FailedPrecondition)
	if sb := w.get(ids[0]); sb.State != rest.Stopped {
		t.Errorf("it is %s", sb.State)
	}
	if left := w.Agent.Status().States; len(left) != 0 {
		t.Errorf("the host has %v", left)
	}
}

func TestTwoPausesAtOnce(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	at := "/v1/sandboxes/" + w.create(`{"template":"base"}`).ID
	statuses := make([]int, 6)
	var wg sync.WaitGroup
	for i := range statuses {
		wg.Go(func() { statuses[i] = w.do(call{method: "POST", path: at + "/pause"}).status })
	}
	wg.Wait()
	count := map[int]int{}
	for _, s := range statuses {
		count[s]++
	}
	if count[http.StatusOK] != 1 || count[http.StatusConflict] != len(statuses)-1 {
		t.Errorf("%v", statuses)
	}
}

func TestAPauseThatFails(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	id := w.create(`{"template":"base"}`).ID
	w.Guest.OnQuiesce = func(context.Context) error { return fmt.Errorf("not now: %w", errs.ErrUnavailable) }
	fails(t, w.do(call{method: "POST", path: "/v1/sandboxes/" + id + "/pause"}), 503, rest.Unavailable)
	if sb := w.get(id); sb.State != rest.Running {
		t.Errorf("it is %s", sb.State)
	}
}

func TestWhatHappensOnTheHost(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	dies, expires, sleeps := w.create(`{"template":"base"}`), w.create(`{"template":"base","ttl_seconds":1}`),
		w.create(`{"template":"base","ttl_seconds":1,"on_expiry":"pause"}`)
	w.Machines.End(dies.ID, vmm.Exit{Reason: vmm.ExitUnknown, Detail: "out of luck"})
	if sb := w.until(dies.ID, rest.Failed); !strings.Contains(sb.Reason, "out of luck") {
		t.Errorf("the reason is %q", sb.Reason)
	}
	w.until(expires.ID, rest.Stopped)
	w.until(sleeps.ID, rest.Paused)
	as[rest.Sandbox](t, w.do(call{method: "POST", path: "/v1/sandboxes/" + sleeps.ID + "/resume"}), 200)
}

// TestWhatWasCutOff is what a server finds that comes after one that was killed.
func TestWhatWasCutOff(t *testing.T) {
	w := newWorld(t, quota.Amount{})
	ctx := t.Context()
	// The host has it before the row says that it should: the world's own watch may look at any time.
	onHost := func(id string) {
		if _, err := w.AsHost.Sandboxes.Create(ctx, connect.NewRequest(&pb.CreateRequest{Id: id, Template: "base"})); err != nil {
			t.Fatal(err)
		}
	}
	row := func(made bool) store.Sandbox {
		n := store.NewSandbox{ID: id.New(), Team: w.Team, Host: w.AsHost.ID, Op: "op", OpTime: -time.Second, Sizes: store.Sizes{Template: "base"},
			OnExpiry: "destroy", Reason: "asked for"}
		if made {
			onHost(n.ID)
		}
		sb, err := w.Store.Create(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		return sb
	}
	stop := func(sb store.Sandbox) {
		if _, err := w.Store.Begin(ctx, w.Team, sb.ID, store.Stop, "asked for", "stop", -time.Second); err != nil {
			t.Fatal(err)
		}
	}
	never, made, stopping, ended, foreign := row(false), row(true), row(true), row(true), id.New()
	onHost(foreign)
	stop(stopping)
	stop(ended)
	if _, err := w.Store.Finish(ctx, ended.ID, "stop", store.Stopped, "given up"); err != nil && !errors.Is(err, store.ErrOvertaken) {
		t.Fatal(err)
	}
	watched, leave := context.WithCancel(ctx)
	var next sync.WaitGroup
	next.Go(func() { control.New(w.Store, w.Hosts, slog.New(slog.DiscardHandler)).Watch(watched) })
	defer next.Wait()
	defer leave()
	if sb := w.until(never.ID, rest.Failed); !strings.Contains(sb.Reason, "cut off") {
		t.Errorf("the reason is %q", sb.Reason)
	}
	w.until(made.ID, rest.Running)
	w.until(stopping.ID, rest.Stopped)
	has := func(id string) bool {
		_, err := w.AsHost.Sandboxes.Get(ctx, connect.NewRequest(&pb.GetRequest{Id: id}))
		return !errors.Is(err, errs.ErrNotFound)
	}
	for deadline := time.Now().Add(20 * time.Second); has(stopping.ID) || has(ended.ID); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what has ended is still on the host")
		}
	}
	if !has(made.ID) || !has(foreign) {
		t.Error("what runs, or is somebody else's, was removed")
	}
}
