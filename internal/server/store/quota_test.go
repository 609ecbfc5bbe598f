package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/postgres/postgrestest"
	"wrenn.dev/wrenn/internal/server/store"
)

func most(n int64) *int64 { return &n }

// limit gives the world's team limits.
func (w *world) limit(l store.Limits) {
	w.t.Helper()
	if _, err := w.UpdateTeam(context.Background(), w.team, nil, &l); err != nil {
		w.t.Fatal(err)
	}
}

// newKey makes a key of the world's team.
func (w *world) newKey(l store.Limits) string {
	w.t.Helper()
	k, err := w.AddKey(context.Background(), store.Key{TeamID: w.team, Name: "k", Prefix: "p", Hash: []byte(id.New()), Scopes: []string{"write"},
		MaxSandboxes: l.Sandboxes, MaxVcpus: l.VCPUs, MaxMemoryMib: l.MemoryMiB, MaxDiskBytes: l.DiskBytes, MaxSnapshots: l.Snapshots})
	if err != nil {
		w.t.Fatal(err)
	}
	return k.ID
}

func (w *world) small(key string) store.NewSandbox {
	op := id.NewOf(id.Operation)
	return store.NewSandbox{ID: id.As(id.Prefix, op), Team: w.team, Host: w.host, Key: key, Op: op, OpTime: time.Hour, OnExpiry: "destroy",
		Reason: "asked for", Sizes: store.Sizes{Template: "base", VCPUs: 2, MemoryMiB: 256, DiskBytes: 1 << 20}}
}

// TestManyAtOnceStayBelowTheQuota has callers of two servers ask for the last places at once.
func TestManyAtOnceStayBelowTheQuota(t *testing.T) {
	url := postgrestest.Database(t)
	w := newWorldAt(t, url)
	other, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	w.limit(store.Limits{Sandboxes: most(10), VCPUs: most(14)})
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for i := range 40 {
		s := []*store.Store{w.Store, other}[i%2]
		wg.Go(func() {
			var full *errs.QuotaError
			switch _, err := s.Create(t.Context(), w.small("")); {
			case err == nil:
				made.Add(1)
			case errors.As(err, &full) && full.Field == "vcpus" && full.Used <= 14 && full.Limit == 14 && full.Asked == 2:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 7 || refused.Load() != 33 {
		t.Errorf("%d were made and %d refused, want 7 of 14 CPUs", made.Load(), refused.Load())
	}
}

func TestWhatTakesOfAQuota(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	const disk = 256<<20 + 1<<20
	full := func(field string, err error) {
		t.Helper()
		var q *errs.QuotaError
		if !errors.As(err, &q) || q.Field != field || !errors.Is(err, errs.ErrResourceExhausted) {
			t.Errorf("got %v, want that %s is full", err, field)
		}
	}
	w.limit(store.Limits{VCPUs: most(2), Sandboxes: most(3), DiskBytes: most(4 * disk), Snapshots: most(1)})
	n := w.small("")
	sb, err := w.Create(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Create(ctx, n); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Errorf("asked for again, it takes nothing: %v", err)
	}
	_, err = w.Create(ctx, w.small(""))
	full("vcpus", err)
	run := func(sb store.Sandbox) {
		t.Helper()
		if _, err := w.Started(ctx, sb.ID, *sb.Op, store.Sizes{Template: "base", VCPUs: 2, MemoryMiB: 256, DiskBytes: 1 << 20}, "it answers"); err != nil {
			t.Fatal(err)
		}
	}
	run(sb)
	if _, err := w.Begin(ctx, w.team, sb.ID, store.Pause, "r", "pause", time.Hour); err != nil {
		t.Fatal(err)
	}
	_, err = w.Create(ctx, w.small("")) // it is not paused yet
	full("vcpus", err)
	if _, err := w.Changed(ctx, sb.ID, "pause", store.Paused, "r"); err != nil {
		t.Fatal(err)
	}
	second, err := w.Create(ctx, w.small(""))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Begin(ctx, w.team, sb.ID, store.Resume, "r", "resume", time.Hour)
	full("vcpus", err)
	run(second)
	second, _ = w.Get(ctx, w.team, second.ID)
	_, err = w.BeginFork(ctx, store.Clones{Of: second, IDs: []string{id.New(), id.New()}, Op: "fork", OpTime: time.Hour, Reason: "r"})
	full("sandboxes", err)
	if _, err := w.BeginSnapshot(ctx, w.snapshot(second, "one")); err != nil {
		t.Fatal(err)
	}
	_, err = w.BeginSnapshot(ctx, w.snapshot(second, "two"))
	full("snapshots", err)
	w.limit(store.Limits{DiskBytes: most(4 * disk), Snapshots: most(2)})
	if used, err := w.Used(ctx, w.team); err != nil || used != (store.Amount{Sandboxes: 2, VCPUs: 2, MemoryMiB: 256, DiskBytes: 3 * disk, Snapshots: 1}) {
		t.Errorf("%+v %v", used, err)
	}
	if _, err := w.BeginSnapshot(ctx, w.snapshot(second, "two")); err != nil {
		t.Fatal(err)
	}
	_, err = w.Create(ctx, w.small(""))
	full("disk_bytes", err)
	w.limit(store.Limits{Sandboxes: most(0)})
	_, err = w.Create(ctx, w.small(""))
	full("sandboxes", err)
}

// TestAKeysQuota is within its team's, and of what was made with the key alone.
func TestAKeysQuota(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.limit(store.Limits{Sandboxes: most(3)})
	narrow, wide := w.newKey(store.Limits{Sandboxes: most(1)}), w.newKey(store.Limits{Sandboxes: most(100)})
	for i, c := range []struct{ key, whose string }{{narrow, ""}, {narrow, "API key"}, {wide, ""}, {wide, ""}, {wide, "team"}, {"", "team"}} {
		_, err := w.Create(ctx, w.small(c.key))
		var q *errs.QuotaError
		if errors.As(err, &q); (err == nil) != (c.whose == "") || q != nil && q.Whose != c.whose {
			t.Errorf("%d: %v, want a limit of the %q", i, err, c.whose)
		}
	}
}

// TestQuotasAgainstAModel has many do anything at once, with limits that hold from the start: at no time is more taken than is allowed, and in the end
// exactly what a naive count of all rows says.
func TestQuotasAgainstAModel(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	l := store.Limits{Sandboxes: most(9), VCPUs: most(10), MemoryMiB: most(1280), DiskBytes: most(12 * (256<<20 + 1<<20)), Snapshots: most(3)}
	w.limit(l)
	narrow := w.newKey(store.Limits{VCPUs: most(4)})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	stop := make(chan struct{})
	var looking, working sync.WaitGroup
	looking.Go(func() {
		for {
			w.withinLimits(ctx, l)
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	var refused atomic.Int32
	for worker := range 6 {
		working.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(worker)))
			for range 40 {
				if err := w.anything(ctx, r, narrow); errors.Is(err, errs.ErrResourceExhausted) {
					refused.Add(1)
				} else if err != nil && !errors.Is(err, errs.ErrFailedPrecondition) && !errors.Is(err, errs.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	close(stop)
	looking.Wait()
	if refused.Load() == 0 {
		t.Error("nothing was refused: the limits are too wide for the test")
	}
	w.withinLimits(ctx, l)
}

// withinLimits counts a team's rows by themselves. The two lists are read at different times, so of the disk, which both take, there is no saying.
func (w *world) withinLimits(ctx context.Context, l store.Limits) {
	var n store.Amount
	list, _, err := w.List(ctx, store.Query{Team: w.team, Limit: 1000})
	if err != nil {
		w.t.Error(err)
	}
	for _, sb := range list {
		n.Sandboxes++
		if sb.State != store.Paused && sb.State != store.Stopping {
			n.VCPUs += int64(sb.Vcpus)
			n.MemoryMiB += int64(sb.MemoryMib)
		}
	}
	used, err := w.Used(ctx, w.team)
	if err != nil {
		w.t.Error(err)
	}
	if n.Sandboxes > *l.Sandboxes || n.VCPUs > *l.VCPUs || n.MemoryMiB > *l.MemoryMiB || used.Snapshots > *l.Snapshots {
		w.t.Errorf("%+v and %+v are over the limits", n, used)
	}
}

// anything does one thing to the team's sandboxes.
func (w *world) anything(ctx context.Context, r *rand.Rand, narrow string) error {
	key := []string{"", narrow}[r.IntN(2)]
	if r.IntN(3) == 0 {
		n := w.small(key)
		sb, err := w.Create(ctx, n)
		if err != nil {
			return err
		}
		_, err = w.Started(ctx, sb.ID, n.Op, n.Sizes, "it answers")
		return err
	}
	list, _, err := w.List(ctx, store.Query{Team: w.team, Limit: 1000})
	if err != nil || len(list) == 0 {
		return err
	}
	sb, op := list[r.IntN(len(list))], id.NewOf(id.Operation)
	change := func(c store.Change, to store.State) error {
		if _, err := w.Begin(ctx, w.team, sb.ID, c, "r", op, time.Hour); err != nil {
			return err
		}
		_, err := w.Changed(ctx, sb.ID, op, to, "r")
		return err
	}
	switch r.IntN(6) {
	case 0:
		return change(store.Stop, store.Stopped)
	case 1, 2:
		return change(store.Pause, store.Paused)
	case 3:
		return change(store.Resume, store.Running)
	case 4:
		clones, err := w.BeginFork(ctx, store.Clones{Of: sb, IDs: []string{id.New(), id.New()}, Key: key, Op: op, OpTime: time.Hour, Reason: "r"})
		for _, c := range clones {
			_, lost := w.Started(ctx, c.ID, op, store.Sizes{Template: "base", VCPUs: 2, MemoryMiB: 256, DiskBytes: 1 << 20}, "r")
			err = errors.Join(err, lost)
		}
		return err
	}
	n := w.snapshot(sb, fmt.Sprint("s-", r.IntN(1000)))
	n.Key = key
	snap, err := w.BeginSnapshot(ctx, n)
	if err != nil || r.IntN(2) == 0 {
		if errors.Is(err, errs.ErrAlreadyExists) {
			return nil
		}
		return err
	}
	return w.RemoveSnapshot(ctx, snap.ID)
}

func TestTeamsAreManaged(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	team := id.NewOf(id.Team)
	for range 2 { // asked for again, it is the one that was made
		if made, err := w.AddTeam(ctx, team, "theirs", store.Limits{Snapshots: most(1)}); err != nil || made.ID != team {
			t.Fatal(made, err)
		}
	}
	if _, err := w.AddTeam(ctx, id.NewOf(id.Team), "theirs", store.Limits{}); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Error(err)
	}
	taken := "ours"
	if _, err := w.UpdateTeam(ctx, team, &taken, nil); !errors.Is(err, errs.ErrAlreadyExists) {
		t.Error(err)
	}
	if list, next, err := w.ListTeams(ctx, "", 1); err != nil || len(list) != 1 || next == "" {
		t.Error(list, next, err)
	}
	sb, err := w.Create(ctx, store.NewSandbox{ID: id.New(), Team: team, Host: w.host, Op: "op", OpTime: time.Hour, OnExpiry: "destroy"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteTeam(ctx, team); !errors.Is(err, errs.ErrFailedPrecondition) {
		t.Error(err)
	}
	if _, err := w.Finish(ctx, sb.ID, "op", store.Failed, "r"); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteTeam(ctx, team); err != nil {
		t.Fatal(err)
	}
	_, create := w.Create(ctx, store.NewSandbox{ID: id.New(), Team: team, Host: w.host, Op: "op", OpTime: time.Hour, OnExpiry: "destroy"})
	_, get := w.GetTeam(ctx, team)
	_, update := w.UpdateTeam(ctx, team, nil, &store.Limits{})
	for name, err := range map[string]error{"create": create, "get": get, "update": update, "delete": w.DeleteTeam(ctx, team)} {
		if !errors.Is(err, errs.ErrNotFound) {
			t.Errorf("%s in a team that is gone: %v", name, err)
		}
	}
	if _, err := w.AddTeam(ctx, id.NewOf(id.Team), "theirs", store.Limits{}); err != nil {
		t.Errorf("its name is free: %v", err)
	}
}

// TestNothingComesToATeamThatGoes has a team deleted while sandboxes are made in it: it stays with them, or goes without.
func TestNothingComesToATeamThatGoes(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for range 10 {
		team := id.NewOf(id.Team)
		if _, err := w.AddTeam(ctx, team, team, store.Limits{}); err != nil {
			t.Fatal(err)
		}
		var made atomic.Int32
		var gone error
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				n := w.small("")
				n.Team = team
				if _, err := w.Create(ctx, n); err == nil {
					made.Add(1)
				} else if !errors.Is(err, errs.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() { gone = w.DeleteTeam(ctx, team) })
		wg.Wait()
		if (gone == nil) != (made.Load() == 0) {
			t.Errorf("%d sandboxes are in a team whose deletion said %v", made.Load(), gone)
		}
	}
}

func TestAuditLog(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range 3 {
		team := []string{"tm-a", "tm-b"}[i%2]
		if err := w.AddAct(ctx, store.Act{TeamID: team, KeyID: "ky", Operation: "createKey", Resource: "keys\x00", Status: 201, RequestID: "rq", Address: "::1"}); err != nil {
			t.Fatal(err)
		}
	}
	first, next, err := w.ListActs(ctx, "", "", 2)
	if err != nil || len(first) != 2 || next == "" || first[0].ID < first[1].ID {
		t.Fatal(first, next, err)
	}
	if rest, next, err := w.ListActs(ctx, "", next, 2); err != nil || len(rest) != 1 || next != "" {
		t.Error(rest, next, err)
	}
	if of, _, err := w.ListActs(ctx, "tm-b", "", 10); err != nil || len(of) != 1 {
		t.Error(of, err)
	}
	for _, odd := range []string{"x", "-1", "99999999999999999999"} {
		if _, _, err := w.ListActs(ctx, "", odd, 1); !errors.Is(err, errs.ErrInvalid) {
			t.Error(odd, err)
		}
	}
	if err := w.Tidy(ctx, time.Hour); err != nil {
		t.Fatal(err)
	}
	if all, _, err := w.ListActs(ctx, "", "", 10); err != nil || len(all) != 3 {
		t.Errorf("what is not old was removed: %v %v", all, err)
	}
}
