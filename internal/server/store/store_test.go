package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/store"
)

func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }

// world is an empty store with a team and a host.
type world struct {
	*store.Store
	t          testing.TB
	team, host string
}

func newWorld(t testing.TB) *world { return newWorldAt(t, postgrestest.Database(t)) }

func newWorldAt(t testing.TB, url string) *world {
	t.Helper()
	s, err := store.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	team, err := s.Team(context.Background(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	host, err := s.Host(context.Background(), "unix:///there")
	if err != nil {
		t.Fatal(err)
	}
	return &world{Store: s, t: t, team: team.ID, host: host.ID}
}

// starting makes a sandbox with a start under way.
func (w *world) starting(op string) store.Sandbox {
	w.t.Helper()
	sb, err := w.Create(context.Background(), store.NewSandbox{ID: id.New(), Team: w.team, Host: w.host, Op: op, OpTime: time.Hour,
		Sizes: store.Sizes{Template: "base"}, OnExpiry: "destroy", Reason: "asked for"})
	if err != nil {
		w.t.Fatal(err)
	}
	return sb
}

func (w *world) running() store.Sandbox {
	w.t.Helper()
	sb := w.starting("start")
	sb, err := w.Started(context.Background(), sb.ID, "start", store.Sizes{Template: "base", VCPUs: 1, MemoryMiB: 256}, "it answers")
	if err != nil {
		w.t.Fatal(err)
	}
	return sb
}

// snapshot is one that is to be made.
func (w *world) snapshot(of store.Sandbox, name string) store.NewSnapshot {
	op := id.NewOf(id.Operation)
	return store.NewSnapshot{ID: id.As(id.Snapshot, op), Of: of, Name: name, Op: op, OpTime: time.Hour}
}

// events are a sandbox's states as its events tell them.
func (w *world) events(sandbox string) []string {
	w.t.Helper()
	list, err := w.Next(context.Background(), w.team, sandbox, store.Place{}, 1000, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var states []string
	for _, e := range list {
		states = append(states, e.State)
	}
	return states
}

func TestOpenTwice(t *testing.T) {
	url := postgrestest.Database(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			s, err := store.Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestTwoPausesAtOnce(t *testing.T) {
	w := newWorld(t)
	sb := w.running()
	results := make([]error, 8)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			_, results[i] = w.Begin(t.Context(), w.team, sb.ID, store.Pause, "asked for", fmt.Sprint("pause ", i), time.Hour)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "pausing") {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d of the pauses began", won)
	}
}

func TestADestroyOvertakesACreate(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	sb := w.starting("start")
	if _, err := w.Begin(ctx, w.team, sb.ID, store.Stop, "no longer wanted", "stop", time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Started(ctx, sb.ID, "start", store.Sizes{}, "it answers"); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("the start's late answer: %v", err)
	}
	if _, err := w.Finish(ctx, sb.ID, "stop", store.Stopped, "no longer wanted"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Started(ctx, sb.ID, "start", store.Sizes{}, "it answers"); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("the start's very late answer: %v", err)
	}
	if got, want := w.events(sb.ID), []string{"starting", "stopping", "stopped"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestWhatAHostSaysLate(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	read := w.running()
	if _, err := w.Begin(ctx, w.team, read.ID, store.Pause, "asked for", "pause", time.Hour); err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Observe(ctx, read, store.Running, "it runs"); changed || err != nil {
		t.Errorf("what was read before the pause began: %v %v", changed, err)
	}
	now, err := w.Get(ctx, w.team, read.ID)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Observe(ctx, now, store.Running, "it runs"); changed || err != nil {
		t.Errorf("while the pause is under way: %v %v", changed, err)
	}
	if changed, err := w.Observe(ctx, now, store.Failed, "the machine died"); !changed || err != nil {
		t.Errorf("its end, while the pause is under way: %v %v", changed, err)
	}
	if _, err := w.Finish(ctx, read.ID, "pause", store.Paused, "asked for"); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("the pause's answer after that: %v", err)
	}
}

func TestAnOperationThatIsGivenUp(t *testing.T) {
	w := newWorld(t)
	sb := w.running()
	sb, err := w.Begin(t.Context(), w.team, sb.ID, store.Pause, "asked for", "pause", -time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := w.Observe(t.Context(), sb, store.Running, "the pause was cut off"); !changed || err != nil {
		t.Errorf("%v %v", changed, err)
	}
	if _, err := w.Finish(t.Context(), sb.ID, "pause", store.Paused, "asked for"); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("its answer after all: %v", err)
	}
}

func TestAnyReasonIsKept(t *testing.T) {
	w := newWorld(t)
	for _, reason := range []string{"a\x00b", "\xff", strings.Repeat("ü", 1<<16)} {
		sb := w.starting("start")
		sb, err := w.Finish(t.Context(), sb.ID, "start", store.Failed, reason)
		if err != nil || sb.Reason == "" {
			t.Errorf("%.20q: %q %v", reason, sb.Reason, err)
		}
	}
	if _, err := w.SetMetadata(t.Context(), w.team, w.running().ID, map[string]string{"a": "\x00"}); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
	if _, _, err := w.ListKeys(t.Context(), w.team, "\x00", 1); !errors.Is(err, errs.ErrInvalid) {
		t.Error(err)
	}
}

func TestAStateTwiceIsOnce(t *testing.T) {
	w := newWorld(t)
	w.running()
	list, _, err := w.List(t.Context(), store.Query{Team: w.team, States: []string{store.Running, store.Paused, store.Running}, Limit: 10})
	if err != nil || len(list) != 1 {
		t.Error(list, err)
	}
}

func TestTeamsDoNotSeeEachOther(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	other, err := w.Team(ctx, "theirs")
	if err != nil {
		t.Fatal(err)
	}
	sb := w.running()
	if _, err := w.BeginSnapshot(ctx, w.snapshot(sb, "kept")); err != nil {
		t.Fatal(err)
	}
	_, get := w.Get(ctx, other.ID, sb.ID)
	_, begin := w.Begin(ctx, other.ID, sb.ID, store.Stop, "", "op", time.Hour)
	_, ttl := w.SetTTL(ctx, other.ID, sb.ID, 1, "pause")
	_, metadata := w.SetMetadata(ctx, other.ID, sb.ID, map[string]string{})
	_, snapshot := w.BeginDelete(ctx, other.ID, "kept", time.Hour)
	for name, err := range map[string]error{"get": get, "begin": begin, "ttl": ttl, "metadata": metadata, "snapshot": snapshot} {
		if !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, _, err := w.List(ctx, store.Query{Team: other.ID, Limit: 10})
	if err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	events, err := w.Next(ctx, other.ID, "", store.Place{}, 10, 0)
	if err != nil || len(events) != 0 {
		t.Error(events, err)
	}
}

func TestASnapshotInUseStays(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	snap, err := w.BeginSnapshot(ctx, w.snapshot(w.running(), "kept"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.BeginSnapshot(ctx, w.snapshot(w.running(), "kept")); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("its name again: %v", err)
	}
	from := store.NewSandbox{ID: id.New(), Team: w.team, Host: w.host, Op: "start", OpTime: time.Hour, Snapshot: "kept", OnExpiry: "destroy"}
	if _, err := w.Create(ctx, from); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("from one that is half made: %v", err)
	}
	if _, err := w.SnapshotReady(ctx, snap.ID, snap.Op); err != nil {
		t.Fatal(err)
	}
	sb, err := w.Create(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.BeginDelete(ctx, w.team, "kept", time.Hour); !errors.Is(err, errs.ErrFailedPrecondition) || !strings.Contains(err.Error(), sb.ID) {
		t.Errorf("it is in use: %v", err)
	}
	if _, err := w.Finish(ctx, sb.ID, "start", store.Failed, "no room"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.BeginDelete(ctx, w.team, "kept", time.Hour); err != nil {
		t.Error(err)
	}
	from.ID = id.New()
	if _, err := w.Create(ctx, from); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Errorf("from one that is being deleted: %v", err)
	}
	if err := w.RemoveSnapshot(ctx, snap.ID); err != nil {
		t.Error(err)
	}
	if _, err := w.GetSnapshot(ctx, w.team, "kept"); !errors.Is(err, errs.ErrNotFound) {
		t.Errorf("it is gone: %v", err)
	}
}

func TestEventsWakeAReader(t *testing.T) {
	w := newWorld(t)
	place, err := w.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if back, err := store.ParsePlace(place.String()); err != nil || back != place {
		t.Error(back, err)
	}
	got := make(chan []store.Event, 1)
	go func() {
		list, err := w.Next(t.Context(), w.team, "", place, 10, time.Minute)
		if err != nil {
			t.Error(err)
		}
		got <- list
	}()
	sb := w.starting("start")
	list := <-got
	if len(list) != 1 || list[0].SandboxID != sb.ID || list[0].State != store.Starting {
		t.Errorf("%v", list)
	}
}

// TestNoEventIsMissed has a reader follow many writers, whose transactions end in another order than they began.
func TestNoEventIsMissed(t *testing.T) {
	w := newWorld(t)
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				w.starting("start")
			}
		})
	}
	seen := map[string]bool{}
	var place store.Place
	for deadline := time.Now().Add(time.Minute); len(seen) < writers*each && time.Now().Before(deadline); {
		list, err := w.Next(t.Context(), w.team, "", place, 7, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if seen[e.SandboxID] {
				t.Fatalf("%s came twice", e.SandboxID)
			}
			seen[e.SandboxID], place = true, store.PlaceOf(e)
		}
	}
	wg.Wait()
	if len(seen) != writers*each {
		t.Errorf("%d of %d events were seen", len(seen), writers*each)
	}
}

func TestOneDoesTheWorkOfAKey(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if a, _, err := w.Claim(ctx, w.team, "k", "first", []byte("asked"), time.Hour); a != nil || err != nil {
		t.Fatal(a, err)
	}
	waiter := make(chan *store.Answer)
	go func() {
		a, _, err := w.Claim(ctx, w.team, "k", "second", []byte("asked"), time.Hour)
		if err != nil {
			t.Error(err)
		}
		waiter <- a
	}()
	if _, _, err := w.Claim(ctx, w.team, "k", "third", []byte("something else"), time.Hour); !errors.Is(err, errs.ErrInvalid) {
		t.Errorf("another request: %v", err)
	}
	if err := w.Keep(ctx, w.team, "k", "first", store.Answer{Status: 201, Body: []byte("made")}); err != nil {
		t.Fatal(err)
	}
	if a := <-waiter; a == nil || a.Status != 201 || string(a.Body) != "made" {
		t.Errorf("%+v", a)
	}
	for _, c := range []string{"a", "b"} { // what failed may be done anew
		if a, name, err := w.Claim(ctx, w.team, "l", c, []byte("asked"), time.Hour); a != nil || name != c || err != nil {
			t.Fatal(a, err)
		}
		if err := w.Drop(ctx, w.team, "l", c); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Renew(ctx, w.team, "n", "a", time.Hour); err != nil { // of a key that nobody has: nothing
		t.Fatal(err)
	}
	if _, _, err := w.Claim(ctx, w.team, "n", "a", []byte("asked"), -time.Second); err != nil {
		t.Fatal(err)
	}
	if err := w.Renew(ctx, w.team, "n", "a", time.Hour); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if a, _, err := w.Claim(short, w.team, "n", "b", []byte("asked"), time.Hour); a != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a claim that was renewed was taken: %v %v", a, err)
	}
	for _, c := range []string{"a", "b"} { // what is given up goes on under its name
		if a, name, err := w.Claim(ctx, w.team, "m", c, []byte("asked"), -time.Second); a != nil || name != "a" || err != nil {
			t.Fatal(a, err)
		}
	}
}

func TestKeys(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if has, err := w.HasKeys(ctx); has || err != nil {
		t.Error(has, err)
	}
	k, err := w.AddKey(ctx, store.Key{TeamID: w.team, Name: "n", Prefix: "p", Hash: []byte("h"), Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Truncate(time.Microsecond)
	if err := w.KeysUsed(ctx, map[string]time.Time{k.ID: at, "ky-none": at}); err != nil {
		t.Fatal(err)
	}
	if err := w.KeysUsed(ctx, map[string]time.Time{k.ID: at.Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if k, _, err = w.KeyByHash(ctx, []byte("h")); err != nil || !k.LastUsedAt.Equal(at) {
		t.Error(k.LastUsedAt, err)
	}
	first, err := w.RevokeKey(ctx, w.team, k.ID, false)
	if err != nil || first.RevokedAt == nil {
		t.Fatal(first, err)
	}
	if again, err := w.RevokeKey(ctx, w.team, k.ID, false); err != nil || !again.RevokedAt.Equal(*first.RevokedAt) {
		t.Error(again, err)
	}
	if _, err := w.RevokeKey(ctx, "tm-other", k.ID, false); !errors.Is(err, errs.ErrNotFound) {
		t.Error(err)
	}
	if list, next, err := w.ListKeys(ctx, w.team, "", 1); err != nil || len(list) != 1 || next != "" {
		t.Error(list, next, err)
	}
}
