package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"wrenn.dev/wrenn/internal/errs"
	"wrenn.dev/wrenn/internal/id"
	"wrenn.dev/wrenn/internal/server/store"
)

// up makes a host that is up and has room for so much, with templates of one CPU and 256 MiB.
func (w *world) up(r store.Report, templates ...string) string {
	w.t.Helper()
	ctx := context.Background()
	h, err := w.Store.Host(ctx, "unix:///"+id.New())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, name := range templates {
		r.Templates = append(r.Templates, store.Template{Name: name, TemplateID: "tp-" + name, Vcpus: 1, MemoryMib: 256, DiskBytes: 1 << 30})
	}
	r.Address = h.Address
	if _, err := w.Report(ctx, h.ID, r, time.Hour); err != nil {
		w.t.Fatal(err)
	}
	if err := w.HostSettled(ctx, h.ID); err != nil {
		w.t.Fatal(err)
	}
	return h.ID
}

// wanted is a sandbox that is asked for.
func (w *world) wanted(s store.Sizes) store.NewSandbox {
	return store.NewSandbox{ID: id.New(), Team: w.team, Op: "start", OpTime: time.Hour, Sizes: s, OnExpiry: "destroy"}
}

// amount is what sandboxes take of a host.
type amount struct{ sandboxes, vcpus, memory, disk int64 }

func (a amount) plus(b amount, times int64) amount {
	return amount{a.sandboxes + times*b.sandboxes, a.vcpus + times*b.vcpus, a.memory + times*b.memory, a.disk + times*b.disk}
}

// over says whether it is more than a limit allows, of which 0 is none.
func (a amount) over(limit amount) bool {
	over := func(a, limit int64) bool { return limit > 0 && a > limit }
	return over(a.sandboxes, limit.sandboxes) || over(a.vcpus, limit.vcpus) || over(a.memory, limit.memory) || over(a.disk, limit.disk)
}

// takes is what a sandbox takes, by its row: as an agent counts it.
func takes(sb store.Sandbox) amount {
	a := amount{1, int64(sb.Vcpus), int64(sb.MemoryMib), int64(sb.MemoryMib)<<20 + sb.DiskBytes}
	switch {
	case store.Ended(sb.State) && !sb.WithHost:
		return amount{}
	case !sb.Awake:
		return amount{disk: a.disk}
	}
	return a
}

func reserved(h store.Host) amount {
	return amount{int64(h.ReservedSandboxes), int64(h.ReservedVcpus), h.ReservedMemoryMib, h.ReservedDiskBytes}
}

func limits(h store.Host) amount {
	return amount{int64(h.MaxSandboxes), int64(h.MaxVcpus), h.MaxMemoryMib, h.MaxDiskBytes}
}

// TestNothingIsTakenTwice has many do anything at once on hosts that are nearly always full: none is ever over its capacity, and at the end each
// has reserved exactly what its sandboxes take, which is nothing when they have ended.
func TestNothingIsTakenTwice(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	hosts := []string{w.up(store.Report{MaxSandboxes: 3, MaxMemoryMiB: 900}, "base"), w.up(store.Report{MaxVCPUs: 4, MaxDiskBytes: 12 << 30}, "base"),
		w.up(store.Report{MaxSandboxes: 5, MaxVCPUs: 5, MaxMemoryMiB: 1024, MaxDiskBytes: 20 << 30})}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	var ids []string
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var watched sync.WaitGroup
	watched.Go(func() {
		for {
			for _, host := range hosts {
				h, err := w.GetHost(ctx, host)
				if err != nil || reserved(h).over(limits(h)) || min(h.ReservedSandboxes, h.ReservedVcpus) < 0 {
					t.Errorf("%+v %v", h, err)
					return
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	for n := range 8 {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		wg.Go(func() {
			for step := range 60 {
				mu.Lock()
				sandbox := ""
				if len(ids) > 0 {
					sandbox = ids[rng.IntN(len(ids))]
				}
				mu.Unlock()
				op := fmt.Sprint(n, " ", step)
				made, err := w.anythingOnHosts(ctx, rng, sandbox, op, hosts)
				if err != nil && !errors.Is(err, errs.ErrResourceExhausted) && !errors.Is(err, errs.ErrFailedPrecondition) && !errors.Is(err, errs.ErrUnavailable) {
					t.Errorf("%v", err)
				}
				if made != "" {
					mu.Lock()
					ids = append(ids, made)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	watched.Wait()
	w.sumsUp(hosts, ids)
	for _, sandbox := range ids {
		if sb, err := w.Begin(ctx, w.team, sandbox, store.Stop, "the end", "end", time.Hour); err == nil {
			_, err = w.Finish(ctx, sandbox, "end", store.Stopped, "the end")
			if err != nil {
				t.Error(err)
			}
		} else if sb.WithHost {
			if _, err := w.GiveUp(ctx, w.team, sandbox, "the end"); err != nil {
				t.Error(err)
			}
		}
	}
	for _, host := range hosts {
		if h, err := w.GetHost(ctx, host); err != nil || reserved(h) != (amount{}) {
			t.Errorf("of nothing there is taken %+v: %v", reserved(h), err)
		}
	}
	if len(ids) < 20 {
		t.Errorf("only %d sandboxes were made", len(ids))
	}
}

// anythingOnHosts does one thing, to a sandbox or a host, and returns the sandbox that it made, if any.
func (w *world) anythingOnHosts(ctx context.Context, rng *rand.Rand, sandbox, op string, hosts []string) (made string, err error) {
	finish := func(c store.Change, ends ...store.State) error {
		if _, err := w.Begin(ctx, w.team, sandbox, c, "asked for", op, time.Hour); err != nil {
			return err
		}
		if rng.IntN(5) == 0 {
			return nil // it is never heard of again
		}
		_, err := w.Finish(ctx, sandbox, op, ends[rng.IntN(len(ends))], "done")
		return err
	}
	switch what := rng.IntN(20); {
	case what < 8 || sandbox == "":
		sizes := store.Sizes{Template: "base"}
		if rng.IntN(2) == 0 {
			sizes = store.Sizes{Template: "base", VCPUs: rng.Int32N(3) + 1, MemoryMiB: 100 * (rng.Int32N(4) + 1), DiskBytes: 1 << 30}
		}
		n := w.wanted(sizes)
		n.Op = op
		sb, err := w.Create(ctx, n)
		if err != nil || rng.IntN(6) == 0 {
			return sb.ID, err
		}
		if rng.IntN(6) == 0 {
			_, err = w.Finish(ctx, sb.ID, op, store.Failed, "no luck")
			return sb.ID, err
		}
		_, err = w.Started(ctx, sb.ID, op, store.Sizes{Template: "base", VCPUs: sb.Vcpus, MemoryMiB: sb.MemoryMib, DiskBytes: sb.DiskBytes}, "it answers")
		return sb.ID, err
	case what < 11:
		return "", finish(store.Pause, store.Paused, store.Paused, store.Running)
	case what < 15:
		return "", finish(store.Resume, store.Running, store.Running, store.Paused)
	case what < 17:
		return "", finish(store.Stop, store.Stopped)
	case what < 18:
		sb, err := w.Get(ctx, w.team, sandbox)
		if err == nil {
			_, err = w.Observe(ctx, sb, store.Failed, "it died")
		}
		return "", err
	case what < 19:
		if _, err := w.Report(ctx, hosts[0], store.Report{Address: "unix:///x", MaxSandboxes: 3, MaxMemoryMiB: 900}, -time.Hour); err != nil {
			return "", err
		}
		_, err = w.Lapse(ctx, hosts[0], time.Hour, time.Hour)
		return "", err
	}
	if _, err := w.Report(ctx, hosts[0], store.Report{Address: "unix:///x", MaxSandboxes: 3, MaxMemoryMiB: 900}, time.Hour); err != nil {
		return "", err
	}
	sb, err := w.Get(ctx, w.team, sandbox)
	if err == nil {
		_, err = w.ComeBack(ctx, sb, []string{store.Running, store.Paused, store.Lost}[rng.IntN(3)], "it is back")
	}
	return "", errors.Join(err, w.HostSettled(ctx, hosts[0]))
}

// sumsUp holds what each host has reserved against what its sandboxes take.
func (w *world) sumsUp(hosts, ids []string) {
	w.t.Helper()
	want := map[string]amount{}
	for _, sandbox := range ids {
		sb, err := w.Get(context.Background(), w.team, sandbox)
		if err != nil {
			w.t.Fatal(err)
		}
		want[sb.HostID] = want[sb.HostID].plus(takes(sb), 1)
	}
	for _, host := range hosts {
		h, err := w.GetHost(context.Background(), host)
		if err != nil || reserved(h) != want[host] {
			w.t.Errorf("host %s has reserved %+v, and its sandboxes take %+v: %v", host, reserved(h), want[host], err)
		}
	}
}

// naive is a host as the model of placement has it.
type naive struct {
	id        string
	limit     amount
	taken     amount
	has       bool // the template
	takesNone bool
}

func (n naive) load() float64 {
	load := 0.0
	for _, r := range [][2]int64{{n.taken.sandboxes, n.limit.sandboxes}, {n.taken.vcpus, n.limit.vcpus}, {n.taken.memory, n.limit.memory}} {
		if r[1] > 0 {
			load = max(load, float64(r[0])/float64(r[1]))
		}
	}
	return load
}

// before says whether a host comes first.
func (n naive) before(m *naive) bool {
	switch {
	case m == nil:
		return true
	case n.load() != m.load():
		return n.load() < m.load()
	case n.taken.sandboxes != m.taken.sandboxes:
		return n.taken.sandboxes < m.taken.sandboxes
	}
	return n.id < m.id
}

// TestPlacement holds where sandboxes go against a model that looks at all hosts, one after the other.
func TestPlacement(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		var hosts []*naive
		for range rapid.IntRange(1, 4).Draw(t, "hosts") {
			n := &naive{has: rapid.Bool().Draw(t, "has"), takesNone: rapid.IntRange(0, 5).Draw(t, "drains") == 0, limit: amount{rapid.Int64Range(0, 4).Draw(t, "sandboxes"),
				rapid.Int64Range(0, 6).Draw(t, "vcpus"), 256 * rapid.Int64Range(0, 6).Draw(t, "memory"), rapid.Int64Range(0, 6).Draw(t, "disk") << 30}}
			r := store.Report{MaxSandboxes: int32(n.limit.sandboxes), MaxVCPUs: int32(n.limit.vcpus), MaxMemoryMiB: n.limit.memory, MaxDiskBytes: n.limit.disk}
			if n.id = w.up(r, map[bool][]string{true: {"base"}}[n.has]...); n.takesNone {
				if _, err := w.Drain(ctx, n.id, true); err != nil {
					t.Fatal(err)
				}
			}
			hosts = append(hosts, n)
		}
		for range rapid.IntRange(1, 8).Draw(t, "sandboxes") {
			vcpus, memory := rapid.Int32Range(1, 3).Draw(t, "vcpus"), 128*rapid.Int32Range(1, 4).Draw(t, "memory")
			takes := amount{1, int64(vcpus), int64(memory), int64(memory)<<20 + 1<<30}
			var want *naive
			for _, n := range hosts {
				if n.has && !n.takesNone && !n.taken.plus(takes, 1).over(n.limit) && n.before(want) {
					want = n
				}
			}
			sb, err := w.Create(ctx, w.wanted(store.Sizes{Template: "base", VCPUs: vcpus, MemoryMiB: memory, DiskBytes: 1 << 30}))
			switch {
			case want == nil && (errors.Is(err, errs.ErrResourceExhausted) || errors.Is(err, errs.ErrUnavailable) || errors.Is(err, errs.ErrNotFound)):
				continue
			case want == nil || err != nil || sb.HostID != want.id:
				t.Fatalf("it went to %q (%v), want %+v of %+v", sb.HostID, err, want, hosts)
			}
			want.taken = want.taken.plus(takes, 1)
		}
		for _, n := range hosts { // out of the way of the next
			if _, err := w.Drain(ctx, n.id, true); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestWhatIsShortIsNamed(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if _, err := w.Create(ctx, w.wanted(store.Sizes{Template: "base"})); !errors.Is(err, errs.ErrUnavailable) {
		t.Errorf("without a host: %v", err)
	}
	w.up(store.Report{MaxVCPUs: 2, MaxMemoryMiB: 300}, "base")
	w.up(store.Report{MaxVCPUs: 8, MaxMemoryMiB: 200}, "base")
	for want, sizes := range map[string]store.Sizes{
		"9 vcpus (8 are free)":                           {Template: "base", VCPUs: 9, MemoryMiB: 100},
		"400 MiB of memory (300 are free)":               {Template: "base", VCPUs: 1, MemoryMiB: 400},
		"8 vcpus, 300 MiB of memory and 1073741824 byte": {Template: "base", VCPUs: 8, MemoryMiB: 300},
	} {
		if _, err := w.Create(ctx, w.wanted(sizes)); !errors.Is(err, errs.ErrResourceExhausted) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestAResumeTakesItsRoomAgain in the transaction in which it begins, or does not begin.
func TestAResumeTakesItsRoomAgain(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.up(store.Report{MaxSandboxes: 1}, "base")
	sb, err := w.Create(ctx, w.wanted(store.Sizes{Template: "base"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{store.Running, store.Paused} {
		if _, err := w.Finish(ctx, sb.ID, "start", to, "done"); err != nil {
			t.Fatal(err)
		}
		if to == store.Running {
			if _, err := w.Begin(ctx, w.team, sb.ID, store.Pause, "", "start", time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
	other, err := w.Create(ctx, w.wanted(store.Sizes{Template: "base"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Begin(ctx, w.team, sb.ID, store.Resume, "", "resume", time.Hour); !errors.Is(err, errs.ErrResourceExhausted) {
		t.Errorf("a resume without room: %v", err)
	}
	if now, err := w.Get(ctx, w.team, sb.ID); err != nil || now.State != store.Paused {
		t.Errorf("it is %s: %v", now.State, err)
	}
	if _, err := w.Finish(ctx, other.ID, "start", store.Failed, "no luck"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Begin(ctx, w.team, sb.ID, store.Resume, "", "resume", time.Hour); err != nil {
		t.Errorf("a resume with room: %v", err)
	}
}
